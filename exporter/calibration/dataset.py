"""Read a file of calibration samples, as far as that is possible without the model.

Three forms:
- `.txt`: one text per line, UTF-8, for models with a tokenizer; blank lines are ignored;
- `.jsonl`: one object per line, `{"text": "…"}` or the inputs by name as nested lists; the batch axis may be omitted;
- `.safetensors`: tensors by input name, whose first axis runs over the samples.
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

# Fewer samples do not show a model's ranges.
LEAST = 10
FORMS = ".txt (one text per line), .jsonl (one object of inputs per line) or .safetensors (tensors by input name)"


@dataclass(frozen=True)
class Entry:
    """A sample as it is in the file: a text, or values by input name; `place` says where, for messages."""

    place: str
    value: str | Mapping[str, Any]


@dataclass(frozen=True)
class CalibrationFile:
    """All samples of a file."""

    path: str
    entries: tuple[Entry, ...]


def read_calibration(path: str | os.PathLike[str]) -> CalibrationFile:
    """Read the file.

    Raises:
        CalibrationError: it cannot be read, has another form, or holds too few samples.
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
            "give some hundred samples like those that the model will process",
        )
    return CalibrationFile(name, tuple(entries))


def _text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CalibrationError(
            f"{path}, line {line}: the byte 0x{error.object[error.start]:02x} is not UTF-8", "text in UTF-8"
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
        raise CalibrationError(f"{path}, line {number} is not JSON ({error})", "one object per line") from error
    if not isinstance(value, dict) or not value:
        raise CalibrationError(
            f"{path}, line {number} is {line.strip()[:60]}",
            'an object such as {"text": "…"} or {"input_ids": [101, 102]}',
        )
    if "text" not in value:
        return value
    if set(value) != {"text"} or not isinstance(value["text"], str):
        raise CalibrationError(f"{path}, line {number} holds {line.strip()[:60]}", 'a single string under "text"')
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
            "the same number of rows for each input, one per sample",
        )
    return [
        Entry(f"row {index + 1}", {name: tensor[index : index + 1] for name, tensor in tensors.items()})
        for index in range(max(counts.values(), default=0))
    ]
