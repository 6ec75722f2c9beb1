"""Sort the tracer's warnings: those known to be harmless, and decisions of the example that the file now keeps.

A warning is harmless only if a rule below names its line of code, with the reason. All others are `baked in`, and
verification shows whether the file is correct at other shapes.
"""

from __future__ import annotations

import linecache
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from runtime.host.torchscript import TracerWarning

Verdict = Literal["harmless", "baked in"]
_BAKED_IN = (
    "the traced example's decision holds for every call; verification shows whether that is correct at other shapes"
)

# The beginning of the tracer's message → what happened.
_KINDS = {
    "Converting a tensor to a Python boolean": "python boolean",
    "Converting a tensor to a Python integer": "python integer",
    "Converting a tensor to a Python index": "python integer",
    "Using len to get tensor shape": "python integer",
    "Converting a tensor to a Python float": "python float",
    # `.item()`: the message does not say the type of the number.
    "Converting a tensor to a Python number": "python number",
    "Iterating over a tensor": "iteration over tensor",
    "Converting a tensor to a NumPy array": "constant from tensor",
    "Converting a tensor to a Python list": "constant from tensor",
    "torch.tensor results are registered as constants": "constant from tensor",
    "torch.as_tensor results are registered as constants": "constant from tensor",
    "torch.from_numpy results are registered as constants": "constant from tensor",
}


@dataclass(frozen=True)
class Finding:
    """One place where the trace kept a value of its example.

    `place` is the file, relative to the folder it was imported from, and the line number. `line` is that line of code,
    empty if the source is not available.
    """

    kind: str
    place: str
    line: str
    verdict: Verdict
    reason: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.place}: {self.line or '(source not available)'} ({self.kind}; {self.reason})"


@dataclass(frozen=True)
class _Rule:
    """A line of code with a harmless warning: its file as in `Finding.place`, a pattern for the line, and why."""

    name: str
    file: str
    line: str
    reason: str


_RULES = (
    _Rule(
        "mask as long as the keys",
        "transformers/masking_utils.py",
        r"if \(padding_length := kv_length \+ kv_offset - attention_mask\.shape\[-1\]\) > 0:",
        "compares the lengths of mask and keys; the adapter gives a mask as long as the tokens, and no cache",
    ),
    _Rule(
        "causal flag",
        "transformers/integrations/sdpa_attention.py",
        r"is_causal = q_length > 1 and attention_mask is None and is_causal",
        "depends on the length only for a single token without a mask, which attends to itself either way",
    ),
    _Rule(
        "padding row of an embedding",
        "torch/nn/functional.py",
        r"assert padding_idx (<|>= -)\s*weight\.size\(0\)",
        "checks a configured row against the rows of a weight; both are fixed",
    ),
    _Rule(
        "bucket middle",
        "transformers/models/deberta_v2/modeling_deberta_v2.py",
        r"torch\.tensor\(mid - 1\)",
        "a constant of the configuration",
    ),
    _Rule(
        "bucket range",
        "transformers/models/deberta_v2/modeling_deberta_v2.py",
        r"torch\.log\(torch\.tensor\(\(max_position - 1\) / mid\)\)",
        "a constant of the configuration",
    ),
    *(
        _Rule(
            "size of a head",
            f"transformers/models/{name}/modeling_{name}.py",
            r"torch\.sqrt\(torch\.tensor\(query_layer\.size\(-1\), dtype=torch\.float\) \* scale_factor\)",
            "the width of an attention head, which the weights fix",
        )
        for name in ("deberta", "deberta_v2")
    ),
    _Rule(
        "scale of int8",
        "intel_extension_for_pytorch/quantization/_quantization_state_utils.py",
        r"args, scale\.item\(\), zp\.item\(\), dtype",
        "found while calibrating; the file is meant to keep it",
    ),
    _Rule(
        "scales of a weight",
        "intel_extension_for_pytorch/quantization/_quantization_state.py",
        r"if scale\.numel\(\) > 1:",
        "one per row of the weight, which is fixed",
    ),
    *(
        _Rule(
            "keys as long as queries",
            f"transformers/models/{name}/modeling_{name}.py",
            r"if (key|query)_layer\.size\(-2\) != (key|query)_layer\.size\(-2\):",
            "keys and queries come from the same tokens, so their number is equal at every call",
        )
        for name in ("deberta", "deberta_v2")
    ),
)


# This project's code between a model's line and the tracer (exporter/backends/ipex/backend.py has a function mode). The
# tensors of IPEX's int8, which see every function call, are also between them.
_BETWEEN = str(Path(__file__).parent.parent / "backends")


@contextmanager
def recorded() -> Iterator[list[warnings.WarningMessage]]:
    """All warnings of a trace, each with the line of the model, not of this project's code in between."""
    records: list[warnings.WarningMessage] = []

    def note(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        frame = sys._getframe()
        while (frame.f_code.co_filename, frame.f_lineno) != (filename, lineno) and frame.f_back:
            frame = frame.f_back
        while (
            frame.f_code.co_filename.startswith(_BETWEEN) or frame.f_code.co_name == "__torch_function__"
        ) and frame.f_back:
            frame = frame.f_back
            filename, lineno = frame.f_code.co_filename, frame.f_lineno
        records.append(warnings.WarningMessage(message, category, filename, lineno, file, line))

    with warnings.catch_warnings():
        warnings.simplefilter("always", TracerWarning)
        warnings.showwarning = note
        yield records


def triage(records: Iterable[warnings.WarningMessage]) -> tuple[Finding, ...]:
    """The findings in order, without duplicates."""
    return tuple(dict.fromkeys(_finding(record) for record in records))


def _finding(record: warnings.WarningMessage) -> Finding:
    text = str(record.message)
    kind = next((kind for start, kind in _KINDS.items() if text.startswith(start)), "other")
    file = _short(record.filename)
    line = linecache.getline(record.filename, record.lineno).strip()
    place = f"{file}:{record.lineno}"
    for rule in _RULES:
        if rule.file == file and re.search(rule.line, line):
            return Finding(kind, place, line, "harmless", f"{rule.name}: {rule.reason}")
    return Finding(kind, place, line, "baked in", _BAKED_IN)


def _short(filename: str) -> str:
    """The file relative to its entry of `sys.path`, else its name alone: without this machine's folders."""
    path = PurePath(filename)
    for root in sorted(filter(None, sys.path), key=len, reverse=True):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return path.name
