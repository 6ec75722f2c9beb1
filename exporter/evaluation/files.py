"""Read files of labelled examples: CSV, JSON lines, CoNLL, JSON in SQuAD's form.

Each row is a dict whose `place` says where it is in the file. Errors name the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import EvaluationError


def read_table(path: str | Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a `.csv` with a header, or of a `.jsonl` with one object per line, that have these columns.

    Raises:
        EvaluationError
    """
    text = _text(path)
    rows: list[dict[str, Any]] = []
    if Path(path).suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        try:
            rows = [row | {"place": f"{path}:{reader.line_num}"} for row in reader]
        except csv.Error as error:
            raise EvaluationError(f"{path}:{reader.line_num}: {error}", "CSV with a header") from error
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                rows.append(_object(line, f"{path}:{number}") | {"place": f"{path}:{number}"})
    return _with_columns(rows, columns, path)


def read_conll(path: str | Path) -> list[dict[str, Any]]:
    """Sentences of a CoNLL file: one word per line, its label in the last column, blank lines between sentences.

    Raises:
        EvaluationError
    """
    sentences: list[dict[str, Any]] = []
    words: list[str] = []
    labels: list[str] = []
    lines = [*_text(path).splitlines(), ""]
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            if len(columns) < 2:
                raise EvaluationError(f"{path}:{number} holds {line.strip()!r}", "a word and its label")
            words.append(columns[0])
            labels.append(columns[-1])
        elif words:
            sentences.append({"words": words, "labels": labels, "place": f"{path}:{number - len(words)}"})
            words, labels = [], []
    return _with_columns(sentences, ("words", "labels"), path)


def read_squad(path: str | Path) -> list[dict[str, Any]]:
    """Questions of a JSON file in SQuAD's form (`data`, `paragraphs`, `qas`), each with its context.

    Raises:
        EvaluationError
    """
    rows: list[dict[str, Any]] = []
    content = _object(_text(path), str(path))
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    rows.append(
                        {
                            "id": str(question["id"]),
                            "question": question["question"],
                            "context": paragraph["context"],
                            "answers": [(one["text"], int(one["answer_start"])) for one in question["answers"]],
                            "place": f"{path}, question {question['id']}",
                        }
                    )
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path} is not in SQuAD's form: {error!r}", "data, paragraphs, qas, answers") from error
    return _with_columns(rows, ("question", "context"), path)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EvaluationError(f"cannot read {path}: {reason}", "a file of labelled examples, in UTF-8") from error


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{place} is not JSON: {error}", "an object") from error
    if not isinstance(value, dict):
        raise EvaluationError(f"{place} holds {type(value).__name__}", "an object")
    return value


def _with_columns(rows: list[dict[str, Any]], columns: Sequence[str], path: str | Path) -> list[dict[str, Any]]:
    if not rows:
        raise EvaluationError(f"{path} holds no example", "at least one")
    for row in rows:
        missing = [name for name in columns if row.get(name) is None]
        if missing:
            raise EvaluationError(f"{row['place']} has no {missing[0]}", f"{', '.join(columns)} in every row")
    return rows
