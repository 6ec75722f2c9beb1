"""Interpret a pickle without running anything: keep a stack of values and check each step.

The first opcode that exports do not use, or use differently, is refused. TorchScript writes pickles of one form: memo
entries in order, containers that are filled at once and before anything refers to them, one value left at the end. This
form is required, because outside of it (cycles, lists that change after they got a type, missing memo entries)
TorchScript's unpickler trusts the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtime.artifact.pickles import rules
from runtime.artifact.pickles.classes import Class
from runtime.artifact.pickles.packed import check_packed
from runtime.artifact.pickles.reader import Reader
from runtime.artifact.pickles.tensors import Records, rebuild, rebuild_quantised
from runtime.artifact.pickles.types import kind_of
from runtime.artifact.pickles.values import Dict, Hooks, InvalidPickle, List, Name, Object, Tuple, Unbuilt, Value

_PROTOCOL = b"\x80\x02"
_EMPTY = Tuple((), 1)
# Opcodes followed by a number, with its format: values; and memo positions, with whether the opcode stores there.
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
_MEMO = {b"q": ("<B", True), b"r": ("<L", True), b"h": ("<B", False), b"j": ("<L", False)}
_CONSTANTS: dict[bytes, Value] = {b"N": None, b"\x88": True, b"\x89": False, b")": _EMPTY}
_PAIRS = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


class Interpreter:
    """Interprets one pickle.

    Args:
        data: the pickle's bytes.
        records: the records with its tensors' numbers.
        classes: the classes that the code declares.
    """

    def __init__(self, data: bytes, records: Records, classes: Mapping[str, Class]) -> None:
        self._bytes, self._records, self._classes = Reader(data), records, classes
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: list[Value] = []
        self._actions: dict[bytes, Callable[[], None]] = {
            **{b"(": self._mark, b"t": self._tuple, b"]": self._list, b"}": self._dict, b"e": self._fill_list},
            **{b"u": self._fill_dict, b"c": self._name, b"X": self._text, b"\x8a": self._long, b"Q": self._storage},
            **{b"\x81": self._new, b"b": self._build, b"R": self._call},
        }

    def run(self) -> Value:
        """Interpret the whole pickle and return its value.

        Raises:
            InvalidPickle: the pickle has a form that exports do not have.
        """
        if self._bytes.take(2) != _PROTOCOL:
            raise InvalidPickle("another protocol than 2")
        for _ in range(rules.MAX_OPCODES):
            code = self._bytes.take(1)
            if code == b".":
                break
            self._step(code)
        else:
            raise InvalidPickle(f"more than {rules.MAX_OPCODES} opcodes")
        if not self._bytes.at_end() or self._marks or len(self._stack) != 1:
            raise InvalidPickle("more or less than one value at its end")
        return self._stack[0]

    def _step(self, code: bytes) -> None:
        if code in _NUMBERS:
            self._stack.append(self._bytes.number(_NUMBERS[code]))
        elif code in _MEMO:
            form, put = _MEMO[code]
            self._remember(self._bytes.number(form)) if put else self._recall(self._bytes.number(form))
        elif code in _CONSTANTS:
            self._stack.append(_CONSTANTS[code])
        elif code in _PAIRS:
            items = [self._pop() for _ in range(_PAIRS[code])]
            self._stack.append(_tuple(items[::-1]))
        elif code in self._actions:
            self._actions[code]()
        else:
            raise InvalidPickle(f"the pickle opcode {code!r}", named=True)

    def _text(self) -> None:
        self._stack.append(self._bytes.text(self._bytes.number("<L")))

    def _long(self) -> None:
        if self._bytes.take(1) != b"\x08":
            raise InvalidPickle("a long number of other than 8 bytes")
        self._stack.append(self._bytes.number("<q"))

    # The stack. A mark is a position in it; values below the last mark cannot be popped.

    def _pop(self) -> Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise InvalidPickle("a value that is taken and is not there")
        return self._stack.pop()

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Value]:
        if not self._marks:
            raise InvalidPickle("the end of a container that has no beginning")
        place = self._marks.pop()
        items, self._stack[place:] = self._stack[place:], []
        return items

    def _remember(self, place: int) -> None:
        value = self._pop()
        self._stack.append(value)
        if place != len(self._memo):
            raise InvalidPickle(f"memo entry {place} after {len(self._memo)} others")
        if isinstance(value, Unbuilt) or (isinstance(value, (List, Dict)) and not value.filled):
            raise InvalidPickle("a memo entry for what is not complete")
        self._memo.append(value)

    def _recall(self, place: int) -> None:
        if place >= len(self._memo):
            raise InvalidPickle(f"memo entry {place} of {len(self._memo)}")
        self._stack.append(self._memo[place])

    # Containers.

    def _tuple(self) -> None:
        self._stack.append(_tuple(self._since_mark()))

    def _list(self) -> None:
        self._stack.append(List())

    def _dict(self) -> None:
        self._stack.append(Dict())

    def _fill_list(self) -> None:
        items = self._since_mark()
        filled = self._pop()
        if not isinstance(filled, List) or filled.filled or filled.kind:
            raise InvalidPickle("items for what is no empty list")
        filled.items, filled.depth, filled.filled = items, _depth(items), True
        self._stack.append(filled)

    def _fill_dict(self) -> None:
        items = self._since_mark()
        filled = self._pop()
        keys = items[::2]
        if not isinstance(filled, Dict) or filled.filled or len(items) % 2:
            raise InvalidPickle("entries for what is no empty dict, or a key without a value")
        if any(not isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise InvalidPickle("a dict with a key twice, or with keys that are no texts")
        filled.items, filled.depth = dict(zip(keys, items[1::2], strict=True)), _depth(items)
        filled.filled = True
        self._stack.append(filled)

    # Names, functions, objects.

    def _name(self) -> None:
        text = f"{self._bytes.line()} {self._bytes.line()}"
        kind = text.removeprefix("torch ").removesuffix("Storage")
        qualified = text.replace(" ", ".")
        known = text in rules.FUNCTIONS or text in (rules.PER_TENSOR, rules.PER_CHANNEL) or qualified in rules.PACKED
        known = known or (text == f"torch {kind}Storage" and kind in rules.DTYPES)
        if not known and not rules.OWN_CLASS.fullmatch(qualified):
            raise InvalidPickle(f"the pickled name {text[:120]}", named=True)
        if not known and qualified not in self._classes:
            raise InvalidPickle(f"the class {qualified[:120]}, which its code does not declare")
        self._stack.append(Name(text))

    def _storage(self) -> None:
        self._stack.append(self._records.storage(self._pop()))

    def _new(self) -> None:
        arguments, name = self._pop(), self._pop()
        qualified = name.text.replace(" ", ".") if isinstance(name, Name) else ""
        if arguments != _EMPTY or not (qualified in rules.PACKED or qualified in self._classes):
            raise InvalidPickle("an object of what is no class, or made with arguments")
        self._stack.append(Unbuilt(qualified))

    def _build(self) -> None:
        state, made = self._pop(), self._pop()
        if not isinstance(made, Unbuilt):
            raise InvalidPickle("attributes for what is no new object")
        if made.name in rules.PACKED:
            check_packed(made.name, state)
        else:
            self._check_attributes(made.name, state)
        self._stack.append(Object(made.name))

    def _check_attributes(self, name: str, state: Value) -> None:
        declared = self._classes[name].attributes
        if not isinstance(state, Dict) or set(state.items) != set(declared):
            raise InvalidPickle(f"an object of {name} with other attributes than its code declares")
        for attribute, value in state.items.items():
            if not declared[attribute].fits(value):
                raise InvalidPickle(f"{name}.{attribute} of another type than its code declares")

    def _call(self) -> None:
        arguments, name = self._pop(), self._pop()
        called = name.text if isinstance(name, Name) else ""
        if called == rules.TENSOR:
            self._stack.append(rebuild(arguments))
        elif called == rules.QUANTISED_TENSOR:
            self._stack.append(rebuild_quantised(arguments))
        elif called == rules.HOOKS and arguments == _EMPTY:
            self._stack.append(Hooks())
        elif called in rules.LISTS and isinstance(arguments, Tuple) and len(arguments.items) == 1:
            self._stack.append(_typed(arguments.items[0], rules.LISTS[called]))
        else:
            raise InvalidPickle("a call of what is no function, or with other arguments than exports have")


def _typed(value: Value, kind: str) -> List:
    if not isinstance(value, List) or value.kind or any(kind_of(item) != kind for item in value.items):
        raise InvalidPickle(f"a list of {kind} that is none, or holds something else")
    value.kind = kind
    return value


def _tuple(items: list[Value]) -> Tuple:
    return Tuple(tuple(items), _depth(items))


def _depth(items: list[Value]) -> int:
    depth = 1 + max((getattr(item, "depth", 0) for item in items), default=0)
    if depth > rules.MAX_DEPTH:
        raise InvalidPickle(f"containers in one another, more than {rules.MAX_DEPTH} deep")
    return depth
