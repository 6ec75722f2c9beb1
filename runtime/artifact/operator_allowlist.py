"""What an artifact's code may call: read from the archive before torch does.

Code that names anything but what is on the lists of `operators.def` is refused, and so are records of no known use. The
pickles are checked by `runtime.artifact.pickles`.

TorchScript has no Python in it, but its operators reach outside: `aten::save` writes files, `aten::from_file` maps
them, custom classes load libraries, and many operators trust their arguments and read or write wherever these point.
Names count wherever they stand, called or not: TorchScript lets code give a function another name.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterator

from runtime.artifact.code_reader import Kind, Use, read_source
from runtime.artifact.division_check import division_problems
from runtime.artifact.operator_lists import lists
from runtime.artifact.zip_reader import MAX_CODE_BYTES, Archive
from runtime.errors import OperatorNotAllowedError

_RECORDS = re.compile(
    r"code/.+\.py|data\.pkl|constants\.pkl|(?:data|constants|extra|\.data)/[^/]+|"
    r"version|byteorder"
)


_LEAVE = "do not run this file unless you know who wrote it; export the model again"


def check_code(archive: Archive, allow: Collection[str] = ()) -> dict[str, ast.Module]:
    """Read all code, and the names of all records.

    Args:
        archive: open.
        allow: names of operators that may be called too, as `aten::name`.

    Returns:
        The records under `code/`, parsed, by name.

    Raises:
        OperatorNotAllowedError: at the first thing that is not on the lists.
        NotAnArtifactError, UnsafeArchiveError: a record cannot be read.
    """
    code = _code(archive)
    sources: dict[str, ast.Module] = {}
    for name in archive.records:
        if not _RECORDS.fullmatch(name):
            raise _refusal(archive, name, f"the record {name}")
        if name in code:
            text = archive.read(name, MAX_CODE_BYTES)
            for problem in _source_problems(text, allow):
                raise _refusal(archive, name, problem)
            sources[name] = _parsed(archive, name, text)
    return sources


def _parsed(archive: Archive, name: str, text: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            # About odd escapes or comparisons in the text: of no interest here.
            warnings.simplefilter("ignore")
            return ast.parse(text.decode("utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        problem = f"source that cannot be parsed ({type(error).__name__})"
    raise _refusal(archive, name, problem)


def _refusal(archive: Archive, name: str, problem: str) -> OperatorNotAllowedError:
    return OperatorNotAllowedError(
        f"{archive.origin}: {name} has {problem[:200]}", "what exports of transformers contain", _LEAVE
    )


def uses_of(archive: Archive) -> frozenset[Use]:
    """Everything that the code of an archive names, by kind.

    Raises:
        NotAnArtifactError, UnsafeArchiveError: a record cannot be read.
    """
    texts = (archive.read(name, MAX_CODE_BYTES) for name in _code(archive))
    return frozenset(use for text in texts for use in read_source(text))


def _code(archive: Archive) -> list[str]:
    code = [name for name in archive.records if name.startswith("code/")]
    total = sum(archive.records[name].size for name in code)
    if total > MAX_CODE_BYTES:
        archive.refuse(f"{total} bytes of code", f"at most {MAX_CODE_BYTES}")
    return code


def _source_problems(text: bytes, allow: Collection[str]) -> Iterator[str]:
    known = lists()
    allowed: dict[Kind, Collection[str]] = {
        "operator": known.operators | frozenset(allow),
        "function": known.functions,
        "method": known.methods,
        "keyword": known.keywords,
        "class": known.classes,
    }
    for kind, name in read_source(text):
        if kind == "problem":
            yield name
        elif kind == "binding":
            if name in known.functions:
                yield f"another meaning for {name}"
        elif name not in allowed[kind]:
            yield f"the {kind} {name}"
    yield from division_problems(text.decode("ascii"), allow)
