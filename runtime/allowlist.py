"""What an artifact's code may call: read from the archive before torch does.

In: an open `Archive`. Out: nothing. Refuses (OperatorNotAllowedError) code that names anything but what is on the lists
of `operators.def`; pickles that name anything but tensors and the file's own classes; records of no known use.

TorchScript has no Python in it, but its operators reach outside: `aten::save` writes files, `aten::from_file` maps
them, custom classes load libraries, and many operators trust their arguments and read or write wherever these point.
Names count wherever they stand, called or not: TorchScript lets code give a function another name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from runtime.archive import MAX_CODE_BYTES, Archive
from runtime.errors import OperatorNotAllowedError
from runtime.operators import lists
from runtime.pickles import pickle_problems
from runtime.source import Kind, read_source

_RECORDS = re.compile(
    r"code/.+\.py|data\.pkl|constants\.pkl|(?:data|constants|extra|\.data)/[^/]+|"
    r"version|byteorder|traced_inputs\.pkl|traced_inputs/[^/]+"
)


_LEAVE = "do not run this file unless you know who wrote it; export the model again"


def check_code(archive: Archive, allow: Collection[str] = ()) -> None:
    """Read all code and all pickles.

    Args:
        archive: open.
        allow: names of operators that may be called too, as `aten::name`.

    Raises:
        OperatorNotAllowedError: at the first thing that is not on the lists.
        NotAnArtifactError, UnsafeArchiveError: a record cannot be read.
    """
    code = _code(archive)
    for name in archive.records:
        if not _RECORDS.fullmatch(name):
            problems: Iterator[str] = iter([f"the record {name}"])
        elif name in code:
            problems = _source_problems(archive.read(name, MAX_CODE_BYTES), allow)
        elif name.endswith(".pkl"):
            problems = pickle_problems(archive.read(name, MAX_CODE_BYTES))
        else:
            continue
        for problem in problems:
            raise OperatorNotAllowedError(
                f"{archive.origin}: {name} has {problem[:200]}", "what exports of transformers contain", _LEAVE
            )


def operators_of(archive: Archive) -> frozenset[str]:
    """The names of all operators that the code of an archive names.

    Raises:
        NotAnArtifactError, UnsafeArchiveError: a record cannot be read.
    """
    texts = (archive.read(name, MAX_CODE_BYTES) for name in _code(archive))
    return frozenset(name for text in texts for kind, name in read_source(text) if kind == "operator")


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
