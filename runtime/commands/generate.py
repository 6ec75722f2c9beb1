"""`run-model generate`: write prompts or conversations on.

One prompt is written to a terminal as it comes; a file of them gives one JSON object per line, in order. If a line
fails, its object holds the error and the others go on; at the end InputTextError says how many failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from runtime.artifact import artifact_file
from runtime.commands.text_file import Line, json_prompt, read_lines
from runtime.errors import ExportedModelError, InputTaskError, InputTextError
from runtime.printing import printable

if TYPE_CHECKING:
    from runtime.text import Generated

# Lines that are written together.
CHUNK_LINES = 16
# Option → the argument of `session.text.generate` of that name.
_OPTIONS = (
    *("max_new_tokens", "temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "seed", "stop", "num_beams", "logprobs"),
)


def generate(options: argparse.Namespace) -> int:
    """Run the command."""
    manifest = artifact_file.read_manifest(options.file)
    if manifest.generation is None:
        raise InputTaskError(f"generate on an artifact for {manifest.task}", "one for text-generation")
    if options.chat is not None and manifest.generation.chat is None:
        raise InputTaskError(
            "--chat on an artifact without a chat template", "--prompt", "export a folder with chat_template.jinja"
        )
    if options.system is not None and options.chat is None:
        raise InputTextError("--system without --chat", "a message of the user", "give --chat, or leave --system out")
    # The first line is read before the model is loaded, so that a missing file is reported at once.
    lines = None if options.jsonl is None else _chunks(options.jsonl)
    first = None if lines is None else next(lines)
    from runtime.session import load

    session = load(
        options.file, threads=options.threads, verify_key=options.verify_key, allow_operators=options.allow_operator
    )
    text = session.text
    arguments = {name: value for name in _OPTIONS if (value := getattr(options, name)) not in (None, [], False)}
    if lines is not None and first is not None:
        return _print_lines(text, first, lines, arguments, options.verbose)
    system = [] if options.system is None else [{"role": "system", "content": options.system}]
    prompt = [*system, {"role": "user", "content": options.chat}] if options.chat is not None else options.prompt
    # The best of several beams is known at the end.
    beams = options.num_beams or manifest.generation.defaults.beams.count
    if options.json or options.logprobs or beams > 1:
        begun = time.perf_counter()
        found = text.generate(prompt, **arguments)
        shown = options.json or options.logprobs
        print(json.dumps(_fields(found)) if shown else "".join(map(_visible, found.text)))
        _tell(options.verbose, len(found.ids), time.perf_counter() - begun)
        return 0
    return _stream(text, prompt, arguments, options.verbose)


def _stream(text: Any, prompt: Any, arguments: dict[str, Any], verbose: bool) -> int:
    """Write the text as it comes."""
    begun = time.perf_counter()
    first = 0.0
    stream = text.generate(prompt, stream=True, **arguments)
    for piece in stream:
        first = first or time.perf_counter() - begun
        sys.stdout.write("".join(map(_visible, piece)))
        sys.stdout.flush()
    print()
    if verbose:
        print(f"first piece after {first:.2f} s", file=sys.stderr)
    _tell(verbose, len(stream.result.ids), time.perf_counter() - begun)
    return 0


def _visible(character: str) -> str:
    """A model may write characters that steer a terminal; these are shown as escapes."""
    return character if character in "\n\t" else printable(character)


def _tell(verbose: bool, tokens: int, seconds: float) -> None:
    if verbose:
        print(f"{tokens} tokens in {seconds:.2f} s, {tokens / max(seconds, 1e-9):.1f} per second", file=sys.stderr)


def _chunks(path: str) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    for line in read_lines(path, json_prompt):
        chunk.append(line)
        if len(chunk) == CHUNK_LINES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _print_lines(
    text: Any, first: list[Line], rest: Iterator[list[Line]], arguments: dict[str, Any], verbose: bool
) -> int:
    count, failed, tokens, problem = 0, 0, 0, ""
    begun = time.perf_counter()
    chunk: list[Line] | None = first
    while chunk is not None:
        good = [line.item for line in chunk if not isinstance(line.item, InputTextError)]
        results = iter(text.generate(good, errors="return", **arguments) if good else [])
        for line in chunk:
            count += 1
            result = line.item if isinstance(line.item, InputTextError) else next(results)
            row: dict[str, Any] = {"id": line.id} if line.id is not None else {}
            if isinstance(result, ExportedModelError):
                failed += 1
                problem = problem or f"line {line.number}: {result}"
                row |= {"line": line.number, "error": str(result)}
            else:
                tokens += len(result.ids)
                row |= _fields(result)
            print(json.dumps(row))
        sys.stdout.flush()
        chunk = next(rest, None)
    _tell(verbose, tokens, time.perf_counter() - begun)
    if failed:
        raise InputTextError(f"{failed} of {count} lines failed; {problem}")
    return 0


def _fields(found: Generated) -> dict[str, Any]:
    row: dict[str, Any] = {"text": found.text, "finish": found.finish}
    row |= {"prompt_tokens": found.prompt_tokens, "new_tokens": len(found.ids)}
    return row if found.logprobs is None else row | {"ids": list(found.ids), "logprobs": list(found.logprobs)}
