"""Files of calibration samples: what is read, how it is split, and what is refused with its line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from exporter import ExportRequest
from exporter.calibration.dataset import read_calibration
from exporter.calibration.sampling import MOST, Calibration, fit_calibration
from exporter.loading.loader import Source, load_source
from exporter.loading.tokenizer import TokenizerPart
from exporter.shapes.trace_plan import TracePlan, make_plan
from runtime.errors import CalibrationError
from runtime.format.manifest import Axis, TensorSpec

TEXTS = [f"This is text number {number}, and it is like the others." for number in range(23)]
WIDTH = 15  # tokens of each
NO_TOKENIZER = TokenizerPart(None, None, (), "")


@pytest.fixture(scope="module")
def model(minilm: Path) -> tuple[Source, TracePlan]:
    request = ExportRequest(str(minilm), "unused.pt")
    source = load_source(request)
    return source, make_plan(source, request)


@pytest.fixture
def fit(model: tuple[Source, TracePlan], tmp_path: Path) -> Callable[..., Calibration]:
    """Write a file of this name and content, read it, and fit it to the real model."""
    source, plan = model

    def made(name: str, content: str | bytes, tokenizer: TokenizerPart = source.tokenizer) -> Calibration:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return fit_calibration(read_calibration(path), plan, tokenizer)

    return made


def lines(values: list[Any]) -> str:
    return "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values) + "\n"


def test_every_fifth_text_is_held_out(fit: Callable[..., Calibration]) -> None:
    """Blank lines do not count; what is held out is not among what is fitted to."""
    calibration = fit("lines.txt", "\ufeff" + lines([TEXTS[0], "", "  ", *TEXTS[1:]]))
    held_out = [sample["input_ids"].flatten().tolist() for sample in calibration.held_out]
    fitted = [sample["input_ids"].flatten().tolist() for sample in calibration.samples]
    assert len(held_out) == 4
    assert len([ids for ids in fitted if len(ids) == WIDTH]) == 19
    assert not [ids for ids in held_out if ids in fitted]
    assert list(calibration.held_out[0]) == ["input_ids", "attention_mask", "token_type_ids"]
    assert "19 samples" in calibration.summary and "4 more held out" in calibration.summary


def test_lengths_that_no_sample_has_are_added(fit: Callable[..., Calibration]) -> None:
    calibration = fit("lines.txt", lines(TEXTS))
    added = [tuple(sample["input_ids"].shape) for sample in calibration.samples[19:]]
    assert added == [(8, 1), (8, 2), (8, 4), (8, 8), (1, 30), (1, 60), (1, 120), (1, 240), (1, 480), (1, 512)]
    assert "1, 2, 4, 8, 30, 60, 120, 240, 480, 512" in calibration.summary


def test_the_three_forms_say_the_same(fit: Callable[..., Calibration], tmp_path: Path) -> None:
    from_text = fit("lines.txt", lines(TEXTS))
    from_objects = fit("lines.jsonl", lines([{"text": text} for text in TEXTS]))
    whole = [*from_text.samples[:19], *from_text.held_out]
    ids = [sample["input_ids"].flatten().tolist() for sample in whole]
    # Without the batch axis, and with it; what may be left out is filled.
    flat = fit("flat.jsonl", lines([{"input_ids": row} for row in ids]))
    nested = fit("nested.jsonl", lines([{"input_ids": [row], "attention_mask": [[1] * len(row)]} for row in ids]))
    save_file({"input_ids": torch.tensor(ids)}, tmp_path / "made.safetensors")
    tensors = fit("rows.safetensors", (tmp_path / "made.safetensors").read_bytes())
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert all(torch.equal(a[name], b[name]) for a, b in zip(from_text.samples, from_objects.samples, strict=True))
        for other in (nested, tensors):
            assert all(torch.equal(a[name], b[name]) for a, b in zip(flat.samples, other.samples, strict=True))


def test_of_very_many_evenly_spread_ones_are_taken(fit: Callable[..., Calibration]) -> None:
    calibration = fit("many.jsonl", lines([{"input_ids": [5, 6, 1000 + number]} for number in range(3 * MOST)]))
    rows = [sample["input_ids"] for sample in calibration.samples]
    marks = [int(row[0, 2]) - 1000 for row in rows if row.shape[1] == 3]
    assert len(calibration.held_out) == MOST // 5 and len(marks) == MOST - MOST // 5
    assert marks[:3] == [0, 3, 6] and marks[-1] == 3 * (MOST - 2)
    assert f"evenly spread over its {3 * MOST}" in calibration.summary


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("lines.csv", "a\n" * 20, r"ends in '\.csv'; expected \.txt"),
        ("lines", "a\n" * 20, "ends in 'nothing'"),
        ("lines.txt", "", "holds 0 samples; expected at least 10"),
        ("lines.txt", "\n \n", "holds 0 samples"),
        ("lines.txt", "a\n" * 9, "holds 9 samples; expected at least 10"),
        ("lines.txt", b"good\n" * 3 + b"b\xffd\n", r"line 4: the byte 0xff is not UTF-8"),
        ("lines.txt", lines([*TEXTS[:16], "word " * 300]), r"line 17 has 302 tokens; expected at most 256"),
        ("lines.jsonl", lines([*[{"text": "a"}] * 11, "{"]), "line 12 is not JSON"),
        ("lines.jsonl", "[" * 100000, "line 1 is not JSON"),
        ("lines.jsonl", lines([[1, 2]] * 12), r"line 1 is \[1, 2\]; expected an object"),
        ("lines.jsonl", lines([{}] * 12), r"line 1 is \{\}"),
        ("lines.jsonl", lines([{"text": 5}] * 12), 'line 1 holds .*a single string under "text"'),
        ("lines.jsonl", lines([{"text": "a", "input_ids": [1]}] * 12), "line 1 holds"),
        (
            "lines.jsonl",
            lines([*[{"input_ids": [5]}] * 11, {"ids": [5]}]),
            "line 12: unknown input 'ids'; expected",
        ),
        ("lines.jsonl", lines([{"attention_mask": [1]}] * 12), "line 1: input 'input_ids' is missing"),
        ("lines.jsonl", lines([{"input_ids": "abc"}] * 12), "line 1: 'input_ids' is not a tensor"),
        ("lines.jsonl", lines([{"input_ids": [[1], [2, 3]]}] * 12), "line 1: 'input_ids' is not a tensor"),
        ("lines.jsonl", lines([{"input_ids": [0.5]}] * 12), r"line 1: input 'input_ids' has dtype torch\.float32"),
        ("lines.jsonl", lines([{"input_ids": []}] * 12), "line 1: input 'input_ids' has 0 along its sequence axis"),
        ("lines.jsonl", lines([{"input_ids": [[[5]]]}] * 12), "line 1: input 'input_ids' has shape"),
        ("lines.jsonl", lines([{"input_ids": [99999]}] * 12), "line 1: input 'input_ids' holds 99999"),
        ("lines.jsonl", lines([{"input_ids": [5] * 513}] * 12), "line 1: input 'input_ids' has 513 along .* 1 to 512"),
        (
            "lines.jsonl",
            lines([{"input_ids": [5, 6], "attention_mask": [1]}] * 12),
            "line 1: input 'attention_mask' has 1 along its sequence axis; expected 2",
        ),
        ("rows.safetensors", b"nothing of the kind", r"rows\.safetensors: cannot read"),
    ],
)
def test_what_is_refused(fit: Callable[..., Calibration], name: str, content: str | bytes, found: str) -> None:
    with pytest.raises(CalibrationError, match=found) as caught:
        fit(name, content)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"cannot read .*missing\.txt: No such file"):
        read_calibration(tmp_path / "missing.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(CalibrationError, match="Is a directory"):
        read_calibration(tmp_path / "folder.txt")
    with pytest.raises(CalibrationError, match=r"missing\.safetensors"):
        read_calibration(tmp_path / "missing.safetensors")


def test_rows_of_different_number(tmp_path: Path) -> None:
    ids = torch.ones(12, 4, dtype=torch.long)
    save_file({"input_ids": ids, "attention_mask": ids[:11].clone()}, tmp_path / "rows.safetensors")
    with pytest.raises(CalibrationError, match=r"12 rows of input_ids.*expected the same number"):
        read_calibration(tmp_path / "rows.safetensors")


def test_texts_for_a_model_without_a_tokenizer(fit: Callable[..., Calibration]) -> None:
    with pytest.raises(CalibrationError, match=r"line 1 is a text, and the model has no tokenizer; expected inputs by"):
        fit("lines.txt", lines(TEXTS), NO_TOKENIZER)


def test_a_number_that_is_none(model: tuple[Source, TracePlan], tmp_path: Path) -> None:
    """JSON as Python writes it knows NaN."""
    _, plan = model
    pixels = TensorSpec("pixels", "float32", (Axis("batch", 1, None), Axis("width", 2, 2)))
    path = tmp_path / "lines.jsonl"
    path.write_text(lines([*[{"pixels": [1, 2]}] * 10, {"pixels": [0, float("nan")]}]))
    with pytest.raises(CalibrationError, match="line 11: 'pixels' holds NaN or infinity"):
        fit_calibration(read_calibration(path), dataclasses.replace(plan, inputs=(pixels,)), NO_TOKENIZER)
