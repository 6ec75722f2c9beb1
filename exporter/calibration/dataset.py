"""Read a file of calibration samples, as far as that goes without the model.

In: a path. Out: a frozen `CalibrationFile`. Refuses (CalibrationError) a file that is missing, empty, of another form
or too short, naming the line.

Three forms:
- `.txt`: a text a line, UTF-8, for models with a tokenizer; blank lines are left out;
- `.jsonl`: an object a line, `{"text": "…"}` or the inputs by name as nested lists; the batch axis may be left out;
- `.safetensors`: tensors by input name, their first axis running over the samples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import CalibrationError, InputFileError
from runtime.format.golden import read_tensors

# Fewer say nothing about a model's ranges.
LEAST = 10
FORMS = ".txt (a text a line), .jsonl (an object of inputs a line) or .safetensors (tensors by input name)"


@dataclass(frozen=True)
class Entry:
    """A sample as it stands in the file: a text, or values by input name; `place` names it for people."""

    place: str
    value: str | Mapping[str, Any]


@dataclass(frozen=True)
class CalibrationFile:
    """All samples of a file, as they stand there, before a model is known."""

    path: str
    entries: tuple[Entry, ...]


def read_calibration(path: str | os.PathLike[str]) -> CalibrationFile:
    """Read the file, as far as that goes without the model.

    Raises:
        CalibrationError: it cannot be read, is of another form, or holds too few samples.
    """
    name = os.fspath(path)
    suffix = Path(name).suffix
    if suffix not in (".txt", ".jsonl", ".safetensors"):
        raise CalibrationError(f"the calibration file {name} ends in {suffix or 'nothing'!r}", FORMS)
    if suffix == ".safetensors":
        entries = _rows(name)
    else:
        entries = [
            Entry(f"line {number}", line.rstrip("\r") if suffix == ".txt" else _parsed(name, number, line))
            for number, line in enumerate(_text(name).split("\n"), 1)
            if line.strip()
        ]
    if len(entries) < LEAST:
        raise CalibrationError(
            f"the calibration file {name} holds {len(entries)} samples",
            f"at least {LEAST}",
            "give some hundred samples of what the model will be asked",
        )
    return CalibrationFile(name, tuple(entries))


def _text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CalibrationError(
            f"{path}, line {line}: the byte 0x{error.object[error.start]:02x} is no UTF-8", "text in UTF-8"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> CalibrationError:
    return CalibrationError(
        f"cannot read the calibration file {path}: {error.strerror or error}", FORMS, "check --calibration"
    )


def _parsed(path: str, number: int, line: str) -> str | Mapping[str, Any]:
    try:
        value = json.loads(line)
    # RecursionError: thousands of nested brackets.
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}, line {number} is no JSON ({error})", "an object a line") from error
    if not isinstance(value, dict) or not value:
        raise CalibrationError(
            f"{path}, line {number} is {line.strip()[:60]}",
            'an object such as {"text": "…"} or {"input_ids": [101, 102]}',
        )
    if "text" not in value:
        return value
    if set(value) != {"text"} or not isinstance(value["text"], str):
        raise CalibrationError(f"{path}, line {number} holds {line.strip()[:60]}", 'one string alone beside "text"')
    text: str = value["text"]
    return text


def _rows(path: str) -> list[Entry]:
    try:
        tensors = read_tensors(path)
    except InputFileError as error:
        raise CalibrationError(f"the calibration file {path}: {error.found}", FORMS, "check --calibration") from error
    counts = {name: tensor.shape[0] if tensor.dim() else 0 for name, tensor in tensors.items()}
    if len(set(counts.values())) > 1:
        raise CalibrationError(
            f"{path} holds {', '.join(f'{count} rows of {name}' for name, count in counts.items())}",
            "as many rows of each, one a sample",
        )
    return [
        Entry(f"row {index + 1}", {name: tensor[index : index + 1] for name, tensor in tensors.items()})
        for index in range(max(counts.values(), default=0))
    ]
