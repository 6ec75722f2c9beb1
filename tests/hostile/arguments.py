"""Operators of the list with arguments that they do not check: numbers that stand for nothing, or that divide."""

from __future__ import annotations

from collections.abc import Callable

from .builder import HEAD, forge
from .case import Case, Expected, add

_ERROR = "OperatorNotAllowedError"
_X = "x = torch.ones([1, 4, 4, 4], dtype=6)"
_N = "n = torch.size(input_ids, 0)"
_ROWS = "torch.size(input_ids, 0), 3"
_ANSWER = f"y = torch.zeros([{_ROWS}], dtype=6)"


def _case(name: str, what: str, *lines: str, expected: Expected = "refused", classes: str = "") -> None:
    body = "\n".join([*lines, "return (y,)"])
    error = _ERROR if expected == "refused" else ""
    add(Case("argument", name, what, lambda base: forge(base, body, classes=classes), expected, error))


def _module(base: bytes, name: str, code: str, body: str) -> bytes:
    """With more code, in a record of its own."""
    return forge(base, body, records={f"code/__torch__/{name}.py": code.encode()})


# Entries of tables that there are not.
for number in ("-1", "16", "99", "44", "255", "1099511627776"):
    _case(f"dtype {number}", "no dtype", f"y = torch.zeros([{_ROWS}], dtype={number})")
    _case(f"to {number}", "no dtype", _ANSWER, f"y = torch.to(y, {number})")
_case("dtype_by_place", "no dtype", 'y = torch.to(attention_mask, torch.device("cpu"), -1)')
_case("dtype_sum", "no dtype", f"y = torch.sum(torch.ones([{_ROWS}, 2]), [2], dtype=-1)")
_case("dtype_computed", "a dtype that is computed", _N, f"y = torch.zeros([{_ROWS}], dtype=torch.sub(n, 3))")
_case("dtype_of_a_tensor", "a number of a tensor as a dtype", f"y = torch.zeros([{_ROWS}], dtype=int(input_ids[0][0]))")
_case(
    "dtype_by_branch",
    "a dtype that a branch chooses",
    *("if bool(torch.any(input_ids)):", "  d = -1", "else:", "  d = 6"),
    f"y = torch.zeros([{_ROWS}], dtype=d)",
)
_case(
    "dtype_by_loop",
    "a dtype that a loop counts",
    *(_N, "d = 6", "for i in range(n):", "  d = torch.add(d, 100)"),
    f"y = torch.zeros([{_ROWS}], dtype=d)",
)
_case(
    "dtype_in_a_branch",
    "no dtype, in a block in a block",
    _ANSWER,
    *("if bool(torch.any(input_ids)):", "  for i in range(2):", "    y = torch.to(y, -1)"),
)
_case("dtype_by_name", "no dtype, by another name", "d = -1", f"y = torch.zeros([{_ROWS}], dtype=d)")
_case("dtype_own", "the dtype of a tensor", f"y = torch.zeros([{_ROWS}], dtype=ops.prim.dtype(torch.ones([1])))",
      expected="right")  # fmt: skip
_case("layout", "a sparse layout", f"y = torch.zeros([{_ROWS}], dtype=6, layout=1)")
_case("layout -1", "no layout", f"y = torch.zeros([{_ROWS}], dtype=6, layout=-1)")
_case("layout 99", "no layout", f"y = torch.zeros([{_ROWS}], dtype=6, layout=99)")
_case("layout_computed", "a layout that is a dtype", f"y = torch.zeros([{_ROWS}], layout=ops.prim.dtype(input_ids))")
_case("memory_format 99", "no memory format", _ANSWER, "y = torch.clone(y, memory_format=99)")
_case("memory_format -1", "no memory format", _ANSWER, "y = torch.contiguous(y, memory_format=-1)")
_case("memory_format_computed", "a computed one", _ANSWER, _N, "y = torch.contiguous(y, memory_format=n)")

# Numbers that are taken for smaller ones, or that have to be one of a few.
for number in ("0", "-1", "4294967297", "4611686018427387904"):
    for place, argument in enumerate(("stride", "padding", "dilation")):
        if (argument, number) == ("padding", "0"):
            continue
        given = ["[1, 1]", "[0, 0]", "[1, 1]"]
        given[place] = f"[1, {number}]"
        call = f"torch.conv2d(x, x, None, {', '.join(given)}, 1)"
        _case(f"conv2d {argument} {number}", f"a {argument} of {number}", _X, f"y = {call}")
_case("conv2d_groups", "no groups", _X, "y = torch.conv2d(x, x, None, [1, 1], [0, 0], [1, 1], 0)")
_case("conv2d_mode", "a stride beside a text", _X, 'y = torch._convolution_mode(x, x, None, [0, 1], "same", [1, 1], 1)')
_case("conv_transpose", "an output padding", _X,
      "y = torch.conv_transpose2d(x, x, None, [1, 1], [0, 0], [-1, 4294967297], 1, [1, 1])")  # fmt: skip
_case("conv2d_computed", "a stride that is computed", _X, _N,
      "y = torch.conv2d(x, x, None, [torch.mul(n, 4294967296), 1], [0, 0], [1, 1], 1)")  # fmt: skip
_case(
    "conv2d_changed",
    "a list of strides that is changed behind its check",
    *(_X, "s = [1, 1]", "s0 = torch.append(s, 4294967296)", "y = torch.conv2d(x, x, None, s, [0, 0], [1, 1], 1)"),
)
_case("arange_step", "steps of zero", "y = torch.arange(0, 6, 0)")
_case("arange_fraction", "a step that is zero as a whole number", "y = torch.arange(0, 6, 1e-05, dtype=4)")
_case("arange_step_computed", "a step that is computed", _N, "y = torch.arange(0, 6, torch.sub(n, 2))")
_case("pixel_shuffle", "a factor whose square is zero", _X, "y = torch.pixel_shuffle(x, 4294967296)")
_case("grid_sampler", "a mode that there is not", _X, "y = torch.grid_sampler(x, torch.ones([1, 4, 4, 2]), 7, 0, True)")
_case(
    "grid_padding", "a padding that there is not", _X, "y = torch.grid_sampler(x, torch.ones([1, 4, 4, 2]), 0, 9, True)"
)
_case(
    "upsample", "scales that contradict the size", _X, "y = torch.upsample_bilinear2d(x, [8, 8], False, -1e+18, 1e-18)"
)
_case("upsample_aa", "a scale beside a size", _X, "y = torch._upsample_bilinear2d_aa(x, [8, 8], False, None, 1.0)")

# Divisions of whole numbers: those of constants are computed while the code is read.
_case("floor_divide 0", "a division by zero", "y = torch.floor_divide(input_ids, 0)")
_case("remainder -1", "the rest of a division by -1", "y = torch.remainder(input_ids, -1)")
for turn, (name, numbers) in enumerate(
    [
        ("remainder", "1, 0"),
        ("remainder", "-9223372036854775808, -1"),
        ("floordiv", "-9223372036854775808, -1"),
        ("remainder", "1, torch.sub(1, 1)"),
        ("remainder", "torch.add(1, 1), z"),
        ("remainder", "1, (input_ids, 0)[1]"),
        ("remainder", "1, annotate(int, 0)"),
        ("remainder", "1, t[1]"),
        ("remainder", "1, torch.neg(b)"),
    ]
):
    _case(
        f"folded {turn}",
        f"a {name} of constants: {numbers}",
        *("z = 0", "t = (input_ids, 0)", "a, b, = t"),
        f"y = torch.full([{_ROWS}], torch.{name}({numbers}))",
    )
_case("remainder_of_a_size", "a division that is none of constants", _N, _ANSWER,
      "y = torch.add(y, torch.remainder(n, 2))", expected="right")  # fmt: skip

# Code that the walk through the model's own methods would not meet.
_METHOD = "  def em_attend(self: __torch__.A,\n    d: int) -> Tensor:\n    return torch.zeros([2, 3], dtype=d)\n"


def _through_a_method(base: bytes) -> bytes:
    body = "    y = (self).em_attend(-1)\n    return (y,)\n"
    return forge(base, code=HEAD.format(attributes="", body=body) + _METHOD)


_FUNCTION = "def em_attend(x: Tensor) -> Tensor:\n  return torch.to(x, -1)\n"
_OTHER = "class B(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
_OTHER += "  def em_attend(self: __torch__.other.B,\n    x: Tensor) -> Tensor:\n    return torch.to(x, -1)\n"


def _in_another_file(code: str, line: str) -> Callable[[bytes], bytes]:
    return lambda base: _module(base, "other", code, f"{line}\nreturn (y,)")


for _name, _what, _code, _line in [
    (
        "function",
        "a dtype in a function of no class",
        _FUNCTION,
        "y = __torch__.other.em_attend(input_ids)",
    ),
    ("object", "a dtype in a method of an object", _OTHER, "y = (__torch__.other.B()).em_attend(input_ids)"),
]:
    add(Case("argument", _name, _what, _in_another_file(_code, _line), "refused"))
add(Case("argument", "method", "a dtype that goes through a method", _through_a_method, "refused", _ERROR))
