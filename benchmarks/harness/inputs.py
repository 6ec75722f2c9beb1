"""Inputs and calibration data by the model's name, the same for every contender.

Text for the trained model is English: first lines of the standard library's docstrings, some for calibration and the
rest for the measurement. Models with random weights get seeded random tokens and pixels. All masks are full: a dense
batch.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from benchmarks.harness.places import folder_of
from benchmarks.harness.rows import MODELS

# As many as nncf takes by default would be 300; the trained model's error is flat from a hundred on.
CALIBRATION_CASES = 128
_LONGEST_LINE = 64


def docstring_lines() -> list[str]:
    """Sentences of the standard library's docstrings, of six words or more, shuffled with a fixed seed."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    lines: dict[str, None] = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                first = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                if len(first.split()) >= 6 and first.isascii():
                    lines[first] = None
    found = list(lines)
    random.Random(0).shuffle(found)
    return found


def row_inputs(model: str, sizes: tuple[int, ...], lines: list[str]) -> Iterator[dict[str, Any]]:
    """The cases of one row, each with the row's sizes. `lines` are for the trained model."""
    generator = numpy.random.default_rng([7, *sizes])
    tokens = _token_stream(model, lines) if model == "minilm" else None
    for _ in range(MODELS[model].cases):
        if model == "vit-base":
            yield {"pixel_values": generator.standard_normal((sizes[0], 3, 224, 224), dtype=numpy.float32)}
            continue
        batch, length = sizes
        if tokens is None:
            ids = generator.integers(1000, 30000, (batch, length - 2))
        else:
            # A start at random: texts of two cases are other ones.
            starts = generator.integers(0, len(tokens) - length, batch)
            ids = numpy.stack([tokens[start : start + length - 2] for start in starts])
        yield text_inputs(ids)


def text_inputs(ids: Any) -> dict[str, Any]:
    """Token ids between BERT's first and last special token, all attended to."""
    ends: Any = numpy.ones((len(ids), 1), dtype=numpy.int64)
    ids = numpy.concatenate([101 * ends, ids.astype(numpy.int64), 102 * ends], axis=1)
    return {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}


def calibration(model: str, lines: list[str]) -> list[dict[str, Any]]:
    """The calibration cases, each a batch of one; the trained model's are the first lines, at their own lengths."""
    generator = numpy.random.default_rng(11)
    if model == "vit-base":
        # Fewer, because an image is large.
        return [
            {"pixel_values": generator.standard_normal((1, 3, 224, 224), dtype=numpy.float32)}
            for _ in range(CALIBRATION_CASES // 4)
        ]
    if model == "minilm":
        tokenizer = _tokenizer(model)
        return [text_inputs(numpy.array([_ids(tokenizer, line)])) for line in lines[:CALIBRATION_CASES]]
    return [text_inputs(generator.integers(1000, 30000, (1, 126))) for _ in range(CALIBRATION_CASES)]


def _token_stream(model: str, lines: list[str]) -> Any:
    """The lines that calibration leaves, one after the other, without special tokens."""
    tokenizer = _tokenizer(model)
    return numpy.concatenate([numpy.array(_ids(tokenizer, line)) for line in lines[CALIBRATION_CASES:]])


def _tokenizer(model: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder_of(model) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _ids(tokenizer: Any, line: str) -> list[int]:
    ids: list[int] = tokenizer.encode(line, add_special_tokens=False).ids[:_LONGEST_LINE]
    return ids
