"""Pickles that lie: tensors beyond their records, objects unlike their classes, opcodes that upset a stack machine."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from . import assemble as a
from .builder import Forged, forge
from .case import Case, Expected, add

CONTEXT = "__torch__.torch.classes.ipex_prepack"
FOUR = struct.pack("<4f", 0.0, 1.0, 2.0, 3.0)
UNSAFE, NAME = "UnsafeArchiveError", "OperatorNotAllowedError"
# Uses the tensor that the case is about, and answers as the manifest says.
USE = "x = torch.sum({})\ny = torch.mul(torch.ones([torch.size(input_ids, 0), 3], dtype=6), x)\nreturn (y,)"
USE_CONSTANT = USE.format("CONSTANTS.c0")


def _constants(
    name: str,
    what: str,
    *values: bytes,
    records: Mapping[str, bytes] | None = None,
    expected: Expected = "refused",
    error: str = UNSAFE,
    body: str = USE_CONSTANT,
) -> None:
    held = {"constants/0": FOUR} if records is None else records
    content = a.pickle(a.many(*values))

    def make(base: bytes) -> bytes:
        return forge(base, body, constants=content, records=held)

    add(Case("tensor", name, what, make, expected, "" if expected != "refused" else error))


def _raw(name: str, what: str, content: bytes, error: str = UNSAFE) -> None:
    """A whole `constants.pkl`."""

    def make(base: bytes) -> bytes:
        return forge(base, constants=content)

    add(Case("opcode", name, what, make, "refused", error))


def _data(
    name: str,
    what: str,
    state: bytes,
    attributes: str = "",
    classes: str = "",
    expected: Expected = "refused",
    error: str = UNSAFE,
    body: str | None = None,
    whole: bytes | None = None,
) -> None:
    content = a.pickle(a.instance("__torch__", "A", state)) if whole is None else whole
    held = {"data/0": FOUR} if four in content else {}

    def make(base: bytes) -> bytes:
        more = {"body": body} if body else {}
        return forge(
            base,
            **more,  # type: ignore[arg-type]
            attributes=attributes,
            classes=classes,
            data=content,
            records=held,
        )

    add(Case("object", name, what, make, expected, "" if expected != "refused" else error))


def _class(name: str, attributes: str = "", methods: str = "") -> str:
    lines = "".join(f"  {line}\n" for line in attributes.splitlines())
    return f"class {name}(Module):\n  __parameters__ = []\n  __buffers__ = []\n{lines}{methods}"


four = a.tensor(a.storage())

# Tensors.
_constants("sound", "four numbers in a record of sixteen bytes", four, expected="right")
_constants("sound_view", "every second number", a.tensor(a.storage(), (2,), (2,), 1), expected="right")
_constants("sound_expanded", "one number, a hundred times", a.tensor(a.storage(), (100,), (0,), 3), expected="right")
_constants("sound_scalar", "a number without axes", a.tensor(a.storage(), (), (), 3), expected="right")
_constants(
    "sound_empty",
    "no numbers, at the end",
    a.tensor(a.storage(), (0,), (1,), 4),
    expected="right",
    body="x = CONSTANTS.c0\ny = torch.zeros([torch.size(input_ids, 0), 3], dtype=6)\nreturn (y,)",
)
_constants("size_beyond", "a million numbers from sixteen bytes", a.tensor(a.storage(), (2**20,)))
_constants("size_one_beyond", "five numbers from sixteen bytes", a.tensor(a.storage(), (5,)))
_constants("offset_far", "four numbers, four terabytes away", a.tensor(a.storage(), offset=2**40))
_constants("offset_one_beyond", "four numbers from the second on", a.tensor(a.storage(), offset=1))
_constants("offset_negative", "numbers in front of the record", a.tensor(a.storage(), offset=-4))
_constants(
    "offset_overflow", "an offset that overflows when counted in bytes", a.tensor(a.storage(), (1,), offset=2**62)
)
_constants("stride_beyond", "a stride that leads out of the record", a.tensor(a.storage(), (2,), (4,)))
_constants("stride_negative", "a stride that leads backwards", a.tensor(a.storage(), (2,), (-1,), 3))
_constants("stride_overflow", "a stride whose product overflows to zero", a.tensor(a.storage(), (5, 2), (2**62, 1)))
_constants("size_negative", "a negative size", a.tensor(a.storage(), (-4,), (1,)))
_constants("size_overflow", "sizes whose product overflows to zero", a.tensor(a.storage(), (2**32, 2**32), (0, 0)))
_constants("size_expanded_huge", "a trillion elements of one number", a.tensor(a.storage(), (2**40,), (0,)))
_constants("axes_differ", "two sizes and one stride", a.tensor(a.storage(), (2, 2), (1,)))
_constants("axes_many", "more axes than PyTorch has", a.tensor(a.storage(), (1,) * 200))
_constants(
    "size_no_numbers",
    "texts for sizes",
    a.call(
        "torch._utils",
        "_rebuild_tensor_v2",
        a.storage(),
        a.number(0),
        a.many(a.text("4")),
        a.numbers([1]),
        a.FALSE,
        a.NONE,
    ),
)
_constants("count_beyond", "a storage of more elements than its record", a.tensor(a.storage(count=2**20)))
_constants("count_below", "a storage of fewer elements than its record", a.tensor(a.storage(count=2), (2,)))
_constants("count_negative", "a storage of a negative length", a.tensor(a.storage(count=-4)))
_constants("count_overflow", "a storage whose bytes overflow", a.tensor(a.storage(count=2**62 + 4)))
_constants("count_zero", "a storage of nothing over a record of something", a.tensor(a.storage(count=0)))
_constants("dtype_wider", "doubles in a record of floats", a.tensor(a.storage("Double")))
_constants("dtype_narrower", "bytes in a record of floats", a.tensor(a.storage("Byte")))
_constants(
    "dtype_strange",
    "a type of numbers that no export holds",
    a.tensor(a.storage("ComplexDouble", count=1), (1,)),
    error=NAME,
)
_constants("dtype_unknown", "a type of numbers that there is not", a.tensor(a.storage("Quad")), error=NAME)
_constants(
    "dtype_quantised_plain", "quantised numbers in a plain tensor", a.tensor(a.storage("QInt8", count=16), (16,))
)
_constants("record_missing", "a record that is not there", a.tensor(a.storage(key="7")))
_constants("record_other_folder", "a record of another folder", a.tensor(a.storage(key="../extra/golden.safetensors")))
_constants("record_of_data", "a record of data.pkl", a.tensor(a.storage()), records={"data/0": FOUR})
_constants("record_twice", "a record as floats and as integers", four, a.tensor(a.storage("Int")))
_constants("record_unused", "a record that no pickle names", four, records={"constants/0": FOUR, "constants/1": FOUR})
_constants("record_shared", "a record under two tensors", four, a.tensor(a.storage(), (2, 2)), expected="right")
_constants(
    "bools",
    "truth values other than 0 and 1",
    a.tensor(a.storage("Bool", count=16), (16,)),
    records={"constants/0": bytes(range(16))},
)
_constants(
    "record_again",
    "a record of a megabyte, read a thousand times",
    *[a.tensor(a.storage(count=2**18), (2**18,))] * 1000,
    records={"constants/0": bytes(2**20)},
)
_constants("device_cuda", "numbers on another device", a.tensor(a.storage(device="cuda:0")))
_constants("device_meta", "numbers on no device", a.tensor(a.storage(device="meta")))
_constants("persistent_tag", "a persistent id of another kind", a.tensor(a.storage(tag="module")))
_constants("persistent_short", "a persistent id without its end", a.tensor(a.many(a.text("storage")) + b"Q"))
_constants("persistent_text", "a persistent id that is a text", a.tensor(a.text("storage") + b"Q"))
_constants(
    "persistent_dtype",
    "a number for a storage's type",
    a.tensor(a.many(a.text("storage"), a.number(250), a.text("0"), a.text("cpu"), a.number(4)) + b"Q"),
)
_constants("hooks", "backward hooks", a.tensor(a.storage(), hooks=a.pairs({"a": a.number(1)})))
_constants("grad_number", "a number for requires_grad", a.tensor(a.storage(), grad=a.number(7)))
_constants(
    "metadata",
    "a tensor with a seventh field",
    a.call(
        "torch._utils",
        "_rebuild_tensor_v2",
        a.storage(),
        a.number(0),
        a.numbers([4]),
        a.numbers([1]),
        a.FALSE,
        a.NONE,
        a.pairs({"neg": a.TRUE}),
    ),
)
_constants(
    "fields_missing",
    "a tensor without strides",
    a.call("torch._utils", "_rebuild_tensor_v2", a.storage(), a.number(0), a.numbers([4])),
)
_constants("fields_none", "a tensor of nothing", a.call("torch._utils", "_rebuild_tensor_v2"))
_constants("storage_itself", "a storage where a tensor belongs", a.storage())
_constants("tensor_for_storage", "a tensor where a storage belongs", a.tensor(four))
_constants("number_for_storage", "a number where a storage belongs", a.tensor(a.number(0)))

BYTES = {
    "constants/0": bytes(16),
    "constants/1": struct.pack("<4d", *[0.5] * 4),
    "constants/2": struct.pack("<4q", *[0] * 4),
}
SCALES, ZEROS = a.tensor(a.storage("Double", "1")), a.tensor(a.storage("Long", "2"))


def _quantised(
    name: str, what: str, parameters: bytes, size: tuple[int, ...] = (4, 4), expected: Expected = "refused", **form: int
) -> None:
    stored = a.storage("QInt8", count=16)
    body = USE.format("torch.dequantize(CONSTANTS.c0)")
    value = a.quantised(stored, parameters, size, **form)  # type: ignore[arg-type]
    _constants(name, what, value, records=BYTES, expected=expected, body=body)


_quantised("quantised", "a sound tensor in int8", a.per_channel(SCALES, ZEROS, 0), expected="right")
_quantised(
    "quantised_few_scales", "fewer scales than rows", a.per_channel(a.tensor(a.storage("Double", "1"), (2,)), ZEROS, 0)
)
_quantised(
    "quantised_few_zeros",
    "fewer zero points than rows",
    a.per_channel(SCALES, a.tensor(a.storage("Long", "2"), (2,)), 0),
)
_quantised("quantised_axis", "an axis that the tensor has not", a.per_channel(SCALES, ZEROS, 7))
_quantised("quantised_axis_negative", "an axis in front of the first", a.per_channel(SCALES, ZEROS, -9))
_quantised("quantised_size", "more numbers than the record holds", a.per_channel(SCALES, ZEROS, 0), (4, 2**20))
_quantised("quantised_offset", "numbers behind the record", a.per_channel(SCALES, ZEROS, 0), offset=2**40)
_quantised("quantised_scheme", "a scheme that there is not", a.many(a.number(200), SCALES, ZEROS, a.number(0)))
_quantised("quantised_short", "a scheme without its numbers", a.many(a.name("torch", "per_channel_affine")))
_quantised("quantised_types", "scales that are whole numbers", a.per_channel(ZEROS, SCALES, 0))
_quantised(
    "quantised_scale_number",
    "a scale that is a text",
    a.many(a.name("torch", "per_tensor_affine"), a.text("x"), a.number(0)),
)
_constants(
    "quantised_plain_storage", "floats in a quantised tensor", a.quantised(a.storage(), a.per_tensor(1.0, 0), (4,))
)

# Opcodes.
LISTED = a.name("torch._utils", "_rebuild_tensor_v2")
_raw("memo_far", "a memo of four thousand million entries", b"\x80\x02)r\xff\xff\xff\xff.")
_raw("memo_missing", "a memo entry that was never made", b"\x80\x02h\x09.")
_raw("memo_gap", "a memo entry between others that was never made", b"\x80\x02)q\x05h\x02.")
_raw("marks_none", "a tuple without a mark", b"\x80\x02))t.")
_raw("mark_popped", "a mark above the stack's end", b"\x80\x02)((R)t.")
_raw("stack_empty", "a pair of nothing", b"\x80\x02\x86.")
_raw("stack_two", "two values at the end", b"\x80\x02)).")
_raw("stack_none", "no value at the end", b"\x80\x02.")
_raw("mark_left", "a mark that nothing closes", b"\x80\x02().")
_raw("stop_missing", "no end", b"\x80\x02)")
_raw("stop_early", "more behind the end", b"\x80\x02).)")
_raw("protocol", "another protocol", b"\x80\x04).")
_raw("protocol_missing", "no protocol", b").")
_raw("protocol_twice", "the protocol in the middle", b"\x80\x02\x80\x02).", error=NAME)
_raw("text_long", "a text longer than the record", b"\x80\x02(X\xff\xff\xff\x7fabct.")
_raw("text_no_utf8", "a text that is no UTF-8", b"\x80\x02(X\x02\x00\x00\x00\xff\xfet.")
_raw("long_short", "a long number of two bytes", b"\x80\x02(\x8a\x02\x01\x02t.")
_raw("dict_odd", "a key without a value", a.pickle(a.many(b"}(" + a.number(1) + b"u")))
_raw(
    "dict_item_early",
    "a key and a value without a dict",
    a.pickle(a.many(a.number(1) + a.number(2) + b"s")),
    error=NAME,
)
_raw(
    "dict_item_number",
    "an entry of a number",
    a.pickle(a.many(a.number(1) + a.number(2) + a.number(3) + b"s")),
    error=NAME,
)
_raw("dict_keys_list", "a list for a key", a.pickle(a.many(b"}(" + b"]" + a.number(1) + b"u")))
_raw("list_of_tuple", "an item for a tuple", a.pickle(a.many(b")(" + a.number(1) + b"e")))
_raw("list_append", "an item for a number", a.pickle(a.many(a.number(1) + a.number(2) + b"a")), error=NAME)
_raw("reduce_number", "a call of a number", a.pickle(a.many(a.number(0) + b")R")))
_raw("reduce_far", "a call of a number far away", a.pickle(a.many(a.number(2**31 - 1) + b")R")))
_raw("reduce_text", "a call of a text", a.pickle(a.many(a.text("x") + b")R")))
_raw("reduce_none", "a call without arguments", a.pickle(a.many(LISTED + a.NONE + b"R")))
_raw("global_left", "a function that nothing calls", a.pickle(a.many(LISTED)))
_raw("build_tensor", "BUILD for a function", a.pickle(a.many(LISTED + b")b")))
_raw("newobj_list", "NEWOBJ of a list", a.pickle(a.many(b"])\x81")))
_raw(
    "newobj_arguments",
    "NEWOBJ with arguments",
    a.pickle(a.many(a.name(CONTEXT, "LinearOpContext") + a.numbers([1]) + b"\x81}b")),
)
_raw("object_unfinished", "an object without BUILD", a.pickle(a.many(a.name(CONTEXT, "LinearOpContext") + b")\x81")))
_raw("scheme_left", "a scheme on its own", a.pickle(a.many(a.name("torch", "per_tensor_affine"))))
_raw("no_tuple", "a list of constants, not a tuple", a.pickle(a.items(a.number(1))))
_raw("cycle_list", "a list that holds itself", a.pickle(a.many(b"]q\x00(h\x00e")))
_raw("cycle_dict", "a dict that holds itself", a.pickle(a.many(b"}q\x00(" + a.text("a") + b"h\x00u")))
_raw("deep", "ten thousand tuples in one another", b"\x80\x02)" + b"\x85" * 10_000 + b".")
_raw("wide", "a tuple that doubles thirty times", b"\x80\x02)" + b"q\x00h\x00\x86" * 30 + b"\x85.")
_raw("many", "a million numbers", a.pickle(b"(" + b"K\x01" * 1_000_000 + b"t"))
_raw(
    "typed_list", "a list of texts that is called a list of integers", a.pickle(a.many(a.typed("intlist", a.text("x"))))
)
_raw(
    "typed_list_mutable",
    "a list of integers that gets a text afterwards",
    a.pickle(a.many(a.name("torch.jit._pickle", "build_intlist") + b"(]q\x00tR" + b"h\x00(" + a.text("x") + b"e")),
)
_raw("typed_nothing", "a typed list of nothing", a.pickle(a.many(a.call("torch.jit._pickle", "build_tensorlist"))))
_raw(
    "typed_number",
    "a typed list that is a number",
    a.pickle(a.many(a.call("torch.jit._pickle", "build_tensorlist", a.number(1)))),
)
_raw(
    "tensor_table",
    "a tensor by its number in a table that is not there",
    a.pickle(a.many(a.call("torch.jit._pickle", "build_tensor_from_id", a.number(0)))),
    error=NAME,
)
_raw(
    "type_tag",
    "a list said to hold tensors that holds numbers",
    a.pickle(a.many(a.call("torch.jit._pickle", "restore_type_tag", a.items(a.number(1)), a.text("List[Tensor]")))),
    error=NAME,
)
_raw(
    "type_tag_code",
    "a type that runs on into code",
    a.pickle(a.many(a.call("torch.jit._pickle", "restore_type_tag", a.items(), a.text("List[ops.aten.save(1)]")))),
    error=NAME,
)
for foreign in (
    *(
        "os system",
        "builtins eval",
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_meta_tensor_no_storage",
    ),
    *("__main__ TensorID", "__main__ IntList", "builtins complex", "torch device", "torch.distributed.rpc rref"),
    *(
        "torch._tensor _rebuild_from_type_v2",
        "__torch__.torch.classes.aoti Model",
        "torch per_channel_affine_float_qparams",
    ),
    *("__torch__.torch.classes.profiling SourceStats", "__torch__.torch.classes.ipex_prepack Other", "torch Tensor"),
):
    where, attribute = foreign.split()
    value = a.name(where, attribute) + b")R"
    _raw(f"global {foreign}", f"the name {foreign}", a.pickle(a.many(value)), error=NAME)

# Objects.
T = "b : Tensor"
_data(
    "sound",
    "an object with the tensor that its class declares",
    a.pairs({"b": four}),
    T,
    expected="right",
    body=USE.format("self.b"),
)
_data("missing", "a declared attribute that is not there", a.EMPTY_DICT, T)
_data("surplus", "an attribute that is not declared", a.pairs({"b": four, "c": four}), T)
_data("renamed", "an attribute by another name", a.pairs({"c": four}), T)
_data("twice", "an attribute twice", b"}(" + a.text("b") + a.NONE + a.text("b") + four + b"u", T)
_data("number_for_tensor", "a number where a tensor is declared", a.pairs({"b": a.number(65)}), T)
_data("none_for_tensor", "None where a tensor is declared", a.pairs({"b": a.NONE}), T)
_data("text_for_number", "a text where a number is declared", a.pairs({"b": a.text("x")}), "b : int")
_data("bool_for_number", "a truth value where a number is declared", a.pairs({"b": a.TRUE}), "b : int")
_data("number_for_float", "a whole number where a float is declared", a.pairs({"b": a.number(1)}), "b : float")
_data("number_for_list", "a number where a list is declared", a.pairs({"b": a.number(1)}), "b : List[int]")
_data("list_of_others", "texts in a list of numbers", a.pairs({"b": a.items(a.text("x"))}), "b : List[int]")
_data("list_of_tensors", "numbers in a list of tensors", a.pairs({"b": a.items(a.number(9))}), "b : List[Tensor]")
_data(
    "list_with_another_type",
    "a list of numbers where tensors are declared",
    a.pairs({"b": a.typed("intlist", a.number(9))}),
    "b : List[Tensor]",
    body=USE.format("(self.b)[0]"),
)
_data(
    "tuple_short",
    "a pair where three are declared",
    a.pairs({"b": a.many(four, four)}),
    "b : Tuple[Tensor, Tensor, Tensor]",
    body=USE.format("(self.b)[2]"),
)
_data(
    "tuple_of_others",
    "a pair of numbers where tensors are declared",
    a.pairs({"b": a.numbers([1, 2])}),
    "b : Tuple[Tensor, Tensor]",
)
_data(
    "dict_of_others",
    "numbers in a dict of tensors",
    a.pairs({"b": a.pairs({"a": a.number(9)})}),
    "b : Dict[str, Tensor]",
)
_data("dict_keys", "texts for keys that are numbers", a.pairs({"b": a.pairs({"a": four})}), "b : Dict[int, Tensor]")
_data("optional_of_others", "a number in an optional tensor", a.pairs({"b": a.number(9)}), "b : Optional[Tensor]")
_data("type_unknown", "an attribute of a type that exports do not hold", a.pairs({"b": a.NONE}), "b : Future[Tensor]")
_data("type_union", "an attribute of one of two types", a.pairs({"b": a.number(1)}), "b : Union[int, Tensor]")
_data("type_no_type", "an attribute whose type is no type", a.pairs({"b": a.number(1)}), "b : torch.add(1, 2)")
_data("attributes_twice", "a class that declares an attribute twice", a.pairs({"b": four}), "b : int\nb : Tensor")
_data("state_list", "a list where an object's attributes belong", a.items(), "")
_data("state_none", "nothing where an object's attributes belong", a.NONE, "")
_data("state_keys", "numbers for names of attributes", b"}(" + a.number(1) + four + b"u", T)

SMALL, LARGE = _class("Small"), _class("Large", "\n".join(f"a{i} : Tensor" for i in range(400)))
_data(
    "another_class",
    "an object of a class without attributes where one with four hundred is declared",
    a.pairs({"b": a.instance("__torch__", "Small", a.EMPTY_DICT)}),
    "b : __torch__.Large",
    SMALL + LARGE,
    body=USE.format("(self.b).a399"),
)
_data(
    "class_sound",
    "an object within an object",
    a.pairs({"b": a.instance("__torch__", "B", a.pairs({"w": four}))}),
    "b : __torch__.B",
    _class("B", "w : Tensor"),
    expected="right",
    body=USE.format("(self.b).w"),
)
_data(
    "class_missing",
    "an object of a class that the code does not declare",
    a.pairs({"b": a.instance("__torch__", "B", a.EMPTY_DICT)}),
    "b : __torch__.B",
)
_data(
    "class_in_class_missing",
    "an inner object without its attribute",
    a.pairs({"b": a.instance("__torch__", "B", a.EMPTY_DICT)}),
    "b : __torch__.B",
    _class("B", "w : Tensor"),
)
_data(
    "class_twice",
    "a class that is declared twice",
    a.pairs({"b": a.instance("__torch__", "B", a.pairs({"w": four}))}),
    "b : __torch__.B",
    _class("B", "w : Tensor") + _class("B"),
)
_data(
    "state_setter",
    "a class that sets its state by code",
    a.pairs({}),
    "",
    _class("B", "", "  def __setstate__(self: __torch__.B,\n    state: int) -> NoneType:\n    return None\n"),
    error="",
)
_data("tensor_for_class", "a tensor where an object is declared", a.pairs({"b": four}), "b : __torch__.B", _class("B"))
_data(
    "class_for_tensor",
    "an object where a tensor is declared",
    a.pairs({"b": a.instance("__torch__", "B", a.EMPTY_DICT)}),
    T,
    _class("B"),
    body=USE.format("self.b"),
)
_data("enum", "an enumeration", a.EMPTY_DICT, "", "class E(Enum):\n  x : int = 1\n", error="")
_data("interface", "an interface", a.EMPTY_DICT, "", "class I(Interface):\n  pass\n", error="")
_data("named_tuple", "a named tuple", a.EMPTY_DICT, "", "class N(NamedTuple):\n  x : int\n", error="")
_data(
    "module_itself",
    "an object that holds itself",
    b"",
    "b : __torch__.A",
    whole=b"\x80\x02c__torch__\nA\nq\x00)\x81}q\x01(" + a.text("b") + b"h\x01ubq\x02.",
)
_data("no_object", "a tensor where the model belongs", b"", whole=a.pickle(four))
_data("number_model", "a number where the model belongs", b"", whole=a.pickle(a.number(1)))
_data(
    "another_model",
    "an object of a class without forward where the model belongs",
    b"",
    classes=_class("B"),
    whole=a.pickle(a.instance("__torch__", "B", a.EMPTY_DICT)),
    error="",
)

_constants(
    "context_library_class",
    "packed weights of the wrong form",
    a.instance(CONTEXT, "LinearOpContext", a.many(four, a.NONE)),
    body=USE.format("(CONSTANTS.c0).get_data_handle()"),
    error="",
)
_constants(
    "context_bias",
    "packed weights whose bias is too short",
    a.instance(CONTEXT, "MKLOpContext", a.many(a.tensor(a.storage(), (4, 1)), a.tensor(a.storage(), (1,)), a.NONE)),
    error="",
)
_constants(
    "context_state",
    "packed weights that are an object's attributes",
    a.instance(CONTEXT, "LinearOpContext", a.EMPTY_DICT),
    error="",
)
_constants(
    "context_axes",
    "packed weights without axes",
    a.instance(CONTEXT, "LinearOpContext", a.many(a.tensor(a.storage(), ()), a.NONE, a.NONE)),
    error="",
)
CONVOLUTION = (a.typed("intlist", a.number(1)), a.typed("intlist", a.number(0)), a.typed("intlist", a.number(1)))
_constants(
    "context_stride",
    "packed weights of a convolution along one axis with strides along none",
    a.instance(
        CONTEXT,
        "ConvolutionOpContext",
        a.many(
            *(a.tensor(a.storage(), (2, 2, 1)), a.NONE, a.typed("intlist"), *CONVOLUTION[1:], a.number(1), a.FALSE),
            a.typed("intlist"),
        ),
    ),
)
_constants(
    "context_groups",
    "packed weights of a convolution in no groups",
    a.instance(
        CONTEXT,
        "ConvolutionOpContext",
        a.many(
            *(a.tensor(a.storage(), (2, 2, 1)), a.NONE, *CONVOLUTION, a.number(0), a.FALSE, a.typed("intlist")),
        ),
    ),
)
_constants(
    "context_numbers",
    "packed weights that are whole numbers",
    a.instance(CONTEXT, "LinearOpContext", a.many(a.tensor(a.storage("Int"), (4, 1)), a.NONE, a.NONE)),
    error="",
)


def _handle(name: str, what: str, handle: str, operator: str = "ipex_linear", before: str = "") -> None:
    """Code that hands IPEX the address of packed weights; the manifest asks for IPEX, so its operators are there."""
    body = f"{before}y = ops.torch_ipex.{operator}(CONSTANTS.c0, CONSTANTS.c0, None, {handle}, None)\nreturn (y,)"
    weights = a.instance(CONTEXT, "MKLOpContext", a.many(a.tensor(a.storage(), (4, 1)), a.NONE, a.NONE))
    number = a.tensor(a.storage("Long", "1", 2), (2,))
    content = a.pickle(a.many(a.tensor(a.storage(), (1, 4)), weights, number))
    held = {"constants/0": FOUR, "constants/1": struct.pack("<2q", 2**40, 0)}

    def make(base: bytes) -> bytes:
        requires = Forged(base).manifest["requires"] | {"ipex": "2.8.0", "torch": "2.8.0", "torch_rule": "same-minor"}
        return forge(base, body, constants=content, records=held, manifest={"requires": requires})

    # Elsewhere than beside IPEX the manifest is refused first.
    add(Case("handle", name, what, make, "refused", ""))


_handle("number", "an address that is a number of the file", "CONSTANTS.c2")
_handle("other_class", "packed weights of another class", "(CONSTANTS.c1).get_data_handle()")
_handle("computed", "an address with a number added", "torch.add((CONSTANTS.c1).get_data_handle(), 8)", "ipex_MKLSGEMM")
_handle(
    "changed",
    "an address that was changed in place",
    "h",
    "ipex_MKLSGEMM",
    "h = (CONSTANTS.c1).get_data_handle()\nx = torch.add_(h, 8)\n",
)
_handle(
    "another_name",
    "a name that stands for two addresses",
    "h",
    "ipex_MKLSGEMM",
    "h = (CONSTANTS.c1).get_data_handle()\nh = CONSTANTS.c2\n",
)
_handle("input", "an address that the caller passes", "input_ids", "ipex_MKLSGEMM")


def _inputs(name: str, what: str, content: bytes) -> None:
    add(Case("opcode", name, what, lambda base: forge(base, records={"traced_inputs.pkl": content}), "refused", ""))


_inputs("traced_inputs", "a pickle that no export holds", a.pickle(a.EMPTY_TUPLE))
