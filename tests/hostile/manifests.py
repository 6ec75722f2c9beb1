"""Manifests that promise what the model does not keep, or that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .builder import Forged, forge
from .case import Case, Expected, add

DAMAGED = "ManifestDamagedError"


def _add(
    name: str, what: str, make: Callable[[bytes], bytes], error: str = DAMAGED, expected: Expected = "refused"
) -> None:
    add(Case("manifest", name, what, make, expected, error))


def _field(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda base: forge(base, manifest=changes)


def _output(**changes: Any) -> Callable[[bytes], bytes]:
    """The manifest's only output, with fields changed."""

    def make(base: bytes) -> bytes:
        made = Forged(base)
        made.manifest["outputs"] = [made.manifest["outputs"][0] | changes]
        return made.bytes()

    return make


def _text(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def make(base: bytes) -> bytes:
        made = Forged(base)
        return made.bytes(change(json.dumps(made.sealed_manifest()).encode()))

    return make


def _without(name: str) -> Callable[[bytes], bytes]:
    def make(base: bytes) -> bytes:
        made = Forged(base)
        del made.manifest[name]
        return made.bytes()

    return make


def _parts_none(base: bytes) -> bytes:
    made = Forged(base)
    return made.bytes(json.dumps(made.manifest | {"parts": []}).encode())


_add("utf_16", "a manifest in UTF-16", _text(lambda text: text.decode().encode("utf-16")))
_add("byte_order_mark", "a manifest with a byte order mark", _text(lambda text: b"\xef\xbb\xbf" + text), error="")
_add("no_json", "a manifest that is no JSON", _text(lambda text: text[:-10]))
_add("deep", "a hundred thousand brackets", _text(lambda text: b"[" * 100_000 + text))
_add("number_long", "a number of five thousand digits", _text(lambda _: b'{"format_version": ' + b"9" * 5000 + b"}"))
_add("list", "a list", _text(lambda text: b"[" + text + b"]"))
_add("parts_none", "a manifest that lists no parts", _parts_none, error="DigestError")
_add("newer", "a newer format", _field(format_version=3), error="")
_add("field_missing", "a manifest without inputs", _without("inputs"))
_add("inputs_none", "no inputs", _field(inputs=[]))
_add("task_number", "a number for the task", _field(task=1))
_add("precision_unknown", "a precision that there is not", _field(precision="int2"))
_add(
    "shapes_negative",
    "a warm-up at a negative size",
    _field(execution={"warmup_shapes": [{"batch": -1}], "warmup_calls": 1, "optimized_execution": True}),
)
_add(
    "warmup_many",
    "a warm-up without end",
    _field(execution={"warmup_shapes": [{"batch": 1}], "warmup_calls": 10**9, "optimized_execution": True}),
)
_add(
    "warmup_large",
    "a warm-up of terabytes",
    _field(
        execution={
            "warmup_shapes": [{"batch": 10**9, "sequence": 10**6}],
            "warmup_calls": 1,
            "optimized_execution": True,
        }
    ),
)
_EMBEDDING = {"prompts": {"q": "Given:\n\tquery \x1b[2J"}, "normalized": True, "similarity": "dot"}
_add("prompt_lines", "a prompt of two lines", _field(embedding=_EMBEDDING), error="", expected="right")
_add("prompt_number", "a number for a prompt", _field(embedding=_EMBEDDING | {"prompts": {"q": 5}}))
_add("similarity_unknown", "a similarity that there is not", _field(embedding=_EMBEDDING | {"similarity": "taste"}))
_add("output_type", "an output of whole numbers", _output(dtype="int2"))
