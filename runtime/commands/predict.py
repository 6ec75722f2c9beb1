"""`run-model predict`: read texts, sounds or tensors, print one JSON object per row, in the order of the input.

Options that the artifact's task does not have are refused before anything is loaded. If a row fails, its line holds the
error and the other rows are computed; at the end InputTextError says how many failed.

Texts are processed in chunks of lines: the texts of a chunk are batched by length, and only one chunk is in memory.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from runtime.artifact import artifact_file
from runtime.commands.predict_images import predict_images
from runtime.commands.predict_sounds import predict_sounds
from runtime.commands.progress import progress
from runtime.commands.text_file import Line, Query, json_query, json_question, json_text, read_lines, size_of
from runtime.errors import (
    ArtifactFailedError,
    ExportedModelError,
    InputError,
    InputNameError,
    InputTaskError,
    InputTextError,
)
from runtime.format.manifest import Manifest

if TYPE_CHECKING:
    from runtime.text import Ranked, Text

# A chunk ends with whichever comes first.
CHUNK_LINES = 256
CHUNK_BYTES = 2**20

# Option → the tasks whose method has an argument of this name.
_OPTIONS = {
    "top_k": ("text-classification", "reranking", "fill-mask", "sparse-embedding"),
    "aggregation": ("token-classification",),
    "stride": ("token-classification", "question-answering"),
    "prompt_name": ("sentence-embedding", "sparse-embedding", "text-embedding", "token-embedding"),
    "dimensions": ("sentence-embedding", "text-embedding"),
}
# Task → the parser of its JSON lines; `json_text` for all others.
_PARSERS = {"question-answering": json_question, "reranking": json_query}


def predict(options: argparse.Namespace) -> int:
    """Run the command."""
    manifest = artifact_file.read_manifest(options.file)
    if options.timestamps is not None and options.audio is None:
        raise InputTaskError("--timestamps without --audio", "a sound", "leave --timestamps out")
    if options.inputs is not None:
        return _tensors(options, manifest)
    if options.audio is not None:
        return predict_sounds(options, manifest, _loading(options))
    if options.image is not None:
        return predict_images(options, manifest, _loading(options))
    if manifest.text is None:
        option = next(name for name in ("text", "texts", "jsonl") if getattr(options, name) is not None)
        raise InputNameError(f"--{option} needs a tokenizer, which {options.file} does not have", "", "give --inputs")
    arguments = _arguments(options, manifest.task)
    # The first chunk is read before the model is loaded, so that a missing file is reported at once.
    rest = _chunks(_lines(options, manifest.task))
    chunks = itertools.chain([next(rest)], rest)
    method = _method(options, manifest.task, arguments)
    if options.text is not None:
        return _print_results(chunks, method, manifest, True, lambda _: None)
    with progress(size_of(options.texts or options.jsonl)) as done:
        return _print_results(chunks, method, manifest, False, done)


def _tensors(options: argparse.Namespace, manifest: Manifest) -> int:
    from runtime.commands.json_output import rows
    from runtime.commands.tensor_file import read_inputs
    from runtime.session import load

    _arguments(options, None)
    session = load(options.file, **_loading(options))
    for row in rows(manifest, session(**read_inputs(options.inputs, manifest.inputs))):
        print(json.dumps(row))
    return 0


def _loading(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `runtime.load`."""
    names = {"threads": options.threads, "verify_key": options.verify_key}
    return names | {"allow_operators": options.allow_operator}


def _arguments(options: argparse.Namespace, task: str | None) -> dict[str, Any]:
    """The arguments for the task's method from the options; `task` is None for tensors, which take no options.

    Raises:
        InputTaskError: an option that the task's method does not have.
    """
    used_with = f"an artifact for {task}" if task is not None else "--inputs"
    found = {}
    for option, tasks in _OPTIONS.items():
        if (value := getattr(options, option)) is not None:
            if task not in tasks:
                flag = f"--{option.replace('_', '-')}"
                raise InputTaskError(f"{flag} with {used_with}", f"text for {' or '.join(tasks)}", f"leave {flag} out")
            found[option] = value
    for option, flag in (("threshold", "--threshold"), ("points", "--point"), ("box", "--box")):
        if getattr(options, option) is not None:
            raise InputTaskError(f"{flag} with {used_with}", "--image", f"leave {flag} out")
    if options.truncate:
        if task in (None, "question-answering", "text-generation"):
            raise InputTaskError(f"--truncate with {used_with}", "text that can be cut", "leave --truncate out")
        found["truncate"] = True
    return found


def _lines(options: argparse.Namespace, task: str) -> Iterable[Line]:
    if options.jsonl is not None:
        return read_lines(options.jsonl, _PARSERS.get(task, json_text))
    if task == "question-answering":
        raise InputTaskError(
            "plain text for an artifact for question-answering", "questions with contexts", "give --jsonl"
        )
    if options.texts is not None:
        return read_lines(options.texts)
    return [Line(number, text, 0) for number, text in enumerate(options.text, 1)]


def _chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += line.size
        if len(chunk) == CHUNK_LINES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _method(options: argparse.Namespace, task: str, arguments: dict[str, Any]) -> Callable[[Sequence[Any]], list[Any]]:
    from runtime.session import load
    from runtime.text.task_methods import METHODS

    text = load(options.file, **_loading(options)).text
    if task == "reranking":
        return functools.partial(_rank_or_classify, text, arguments)
    name = {"answer": "answers"}.get(METHODS.get(task, "numbers"), METHODS.get(task, "numbers"))
    return functools.partial(getattr(text, name), errors="return", **arguments)


def _rank_or_classify(text: Text, arguments: dict[str, Any], items: Sequence[Any]) -> list[Any]:
    """The ranking of each query's documents, and the class of each text or pair; or an error in its place."""
    others = [item for item in items if not isinstance(item, Query)]
    classes = iter(text.classify(others, errors="return", **arguments) if others else ())
    return [_ranking(text, arguments, item) if isinstance(item, Query) else next(classes) for item in items]


def _ranking(text: Text, arguments: dict[str, Any], item: Query) -> list[Ranked] | ExportedModelError:
    try:
        return text.rerank(item.query, item.documents, **arguments)
    except (InputError, ArtifactFailedError) as error:
        return error


def _print_results(
    chunks: Iterable[list[Line]],
    method: Callable[[Sequence[Any]], list[Any]],
    manifest: Manifest,
    echo: bool,
    done: Callable[[int], object],
) -> int:
    from runtime.commands.json_output import fields

    count, failed, first = 0, 0, ""
    for chunk in chunks:
        good = [line.item for line in chunk if not isinstance(line.item, InputTextError)]
        results = iter(method(good) if good else [])
        for line in chunk:
            count += 1
            result = line.item if isinstance(line.item, InputTextError) else next(results)
            row: dict[str, Any] = {"text": line.item} if echo else {}
            row |= {"id": line.id} if line.id is not None else {}
            if isinstance(result, ExportedModelError):
                failed += 1
                first = first or f"{'text' if echo else 'line'} {line.number}: {result}"
                row |= {"error": str(result)} if echo else {"line": line.number, "error": str(result)}
            else:
                row |= fields(manifest, result)
            print(json.dumps(row))
        sys.stdout.flush()
        done(sum(line.size for line in chunk))
    if failed:
        raise InputTextError(f"{failed} of {count} {'texts' if echo else 'lines'} failed; {first}")
    return 0
