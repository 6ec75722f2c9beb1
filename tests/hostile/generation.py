"""Files that say of themselves that they generate text: sections that do not fit, and methods that do not do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .builder import ANSWER, HEAD, forge
from .case import Case, Expected, add

_DAMAGED, _FAILED = "ManifestDamagedError", "ArtifactFailedError"
_DEFAULTS: dict[str, Any] = {"sample": False, "temperature": 1.0, "top_k": 50, "top_p": None, "min_p": None,
                             "repetition_penalty": 1.0}  # fmt: skip
_CACHE: dict[str, Any] = {"heads": 1, "width": 4, "dtype": "float32"}
_SECTION: dict[str, Any] = {"caches": [_CACHE] * 2, "longest": 64, "stop_ids": [1], "defaults": _DEFAULTS, "chat": None}
_METHOD = """  def decode(self: __torch__.A,
    input_ids: Tensor,
    positions: Tensor,
    kept: Tensor,
    keys: Tensor,
    values: Tensor) -> {type}:
{body}"""
_ROWS = "torch.size(kept, 0), torch.size(kept, 1)"
# The base knows the ids 0 to 299.
_LOGITS = f"y = torch.zeros([{_ROWS}, 300], dtype=6)\nreturn (y,)"


def _section(name: str, what: str, **changes: Any) -> None:
    section = _SECTION | changes
    add(Case("generation", name, what, lambda base: forge(base, manifest={"generation": section}), "refused", _DAMAGED))


def _generating(body: str, type_: str = "Tuple[Tensor]", **changes: Any) -> Callable[[bytes], bytes]:
    def lines(text: str) -> str:
        return "".join(f"    {line}\n" for line in text.splitlines())

    code = HEAD.format(attributes="", body=lines(ANSWER)) + _METHOD.format(type=type_, body=lines(body))
    return lambda base: forge(base, code=code, manifest={"generation": _SECTION | changes})


def _method(
    name: str,
    what: str,
    body: str,
    type_: str = "Tuple[Tensor]",
    error: str = _FAILED,
    expected: Expected = "refused",
    **changes: Any,
) -> None:
    add(Case("generation", name, what, _generating(body, type_, **changes), expected, error))


_LISTS: Sequence[Any] = (
    *([], [_CACHE], [_CACHE] * 3, [_CACHE] * 2050, [_CACHE | {"heads": 0}] * 2, [_CACHE | {"width": -1}] * 2),
    *([_CACHE | {"heads": 2**40}] * 2, [_CACHE | {"dtype": "int64"}] * 2, [{"heads": 1}] * 2, {}, None),
)
for number, caches in enumerate(_LISTS):
    _section(f"caches {number}", "tensors that no cache has", caches=caches)
for longest in (0, -1, 2**24, 2**62, 1.5, None, "many"):
    _section(f"longest {longest}", "a length that no row has", longest=longest)
for stop_ids in ([-1], [2**31], [0.5], [None], 1, None):
    _section(f"stop_ids {stop_ids}", "ids that are none", stop_ids=stop_ids)
for field, values in {
    "sample": (1, None, "yes"),
    "temperature": (0, -1, None, "hot", 1e999),
    "top_k": (-1, 2**31, 0.5),
    "top_p": (1.5, -0.1, "most"),
    "min_p": (1.5, -0.1),
    "repetition_penalty": (0, -2, None),
}.items():
    for value in values:
        _section(f"{field} {value}", "a setting out of range", defaults=_DEFAULTS | {field: value})
_section("defaults_none", "no settings", defaults=None)
_section("template_long", "a template of a megabyte", chat={"template": "x" * 2**20, "variables": {}})
_section("template_number", "a number for a template", chat={"template": 1, "variables": {}})
_section("decode_missing", "a file without the method that the section promises")

_method("sound", "a method that does what it has to", _LOGITS, error="", expected="right")
_method("integers", "logits of whole numbers", f"y = torch.zeros([{_ROWS}, 300], dtype=4)\nreturn (y,)")
_method("rows", "logits of a row too many", "y = torch.zeros([3, 1, 300], dtype=6)\nreturn (y,)")
_method("rank", "logits without an axis for tokens", "y = torch.zeros([2, 300], dtype=6)\nreturn (y,)")
_method("two", "two outputs", f"y = torch.zeros([{_ROWS}, 300], dtype=6)\nreturn (y, y)", "Tuple[Tensor, Tensor]")
_method("bare", "an output that is no tuple", f"y = torch.zeros([{_ROWS}, 300], dtype=6)\nreturn y", "Tensor")
_method("number", "an output that is no tensor", "return (1,)", "Tuple[int]")
_method("nothing", "a vocabulary of nothing", f"y = torch.zeros([{_ROWS}, 0], dtype=6)\nreturn (y,)")
_ONES, _ZEROS = (f"torch.{one}([{_ROWS}, 300], dtype=6)" for one in ("ones", "zeros"))
_method("not_numbers", "logits that are no numbers", f"y = torch.log(torch.neg({_ONES}))\nreturn (y,)")
_method("infinite", "logits without end", f"y = torch.neg(torch.log({_ZEROS}))\nreturn (y,)")
_method(
    "vocabulary",
    "more logits than the model has ids",
    f"y = torch.cat([torch.zeros([{_ROWS}, 300], dtype=6), torch.ones([{_ROWS}, 9], dtype=6)], 2)\nreturn (y,)",
    error="InputValueError",
)
_method("index", "a read behind the cache's end", "y = torch.select(keys, 2, 9999)\nreturn (y,)")
_method("arguments", "a method that takes fewer caches", _LOGITS, caches=[_CACHE] * 4)
