"""Check an artifact's pickles against its records and its code, before torch reads them.

Refused are tensors that reach beyond their records, objects with other attributes than the code declares, and every
form of pickle that exports do not have (`rules`).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from runtime.artifact.pickles.classes import Class, declared_classes
from runtime.artifact.pickles.handles import check_handles
from runtime.artifact.pickles.interpreter import Interpreter
from runtime.artifact.pickles.rules import BYTE_ORDER, HANDLES, PACKED, VERSION, VERSION_RECORDS
from runtime.artifact.pickles.tensors import Records
from runtime.artifact.pickles.types import kind_of
from runtime.artifact.pickles.values import InvalidPickle, Object, Tuple, Value
from runtime.artifact.zip_reader import MAX_CODE_BYTES, Archive
from runtime.errors import OperatorNotAllowedError

# The maximum size of a record that holds one word.
_SHORT = 32
_WHAT_EXPORTS_CONTAIN = "what exports of transformers contain"


def check_pickles(archive: Archive, sources: Mapping[str, ast.Module]) -> None:
    """Read `constants.pkl` and `data.pkl` as TorchScript's unpickler will.

    Args:
        archive: the archive that holds the pickles.
        sources: the records under `code/`, parsed, by name.

    Raises:
        UnsafeArchiveError: a pickle contradicts a record or a class, or has another form than exports.
        OperatorNotAllowedError: a pickle names a function or a class that exports do not contain.
        NotAnArtifactError: a record cannot be read.
    """
    where = "its version"
    try:
        _check_version(archive)
        where = "its code"
        classes = declared_classes(sources)
        where = "constants.pkl"
        constants = _check_constants(archive)
        if any(kind_of(constant) in PACKED for constant in constants) or _uses_handles(archive, sources):
            where = "its code"
            check_handles(sources, constants)
        where = "data.pkl"
        _check_model(archive, classes)
    except InvalidPickle as problem:
        if not problem.named:
            archive.refuse(f"{where} has {problem}", _WHAT_EXPORTS_CONTAIN)
        raise OperatorNotAllowedError(
            f"{archive.origin}: {where} has {problem}",
            _WHAT_EXPORTS_CONTAIN,
            "do not run this file unless you know who wrote it; export the model again",
        ) from None


def _check_version(archive: Archive) -> None:
    """Check that there is one version, of at least 3 (since then lists have types), and little-endian numbers."""
    named = [name for name in VERSION_RECORDS if name in archive.records]
    texts = [archive.read(name, _SHORT) for name in named]
    if len(texts) != 1 or not VERSION.fullmatch(texts[0]):
        raise InvalidPickle(f"{texts[:2]} in records of that name")
    if "byteorder" in archive.records and archive.read("byteorder", _SHORT) != BYTE_ORDER:
        raise InvalidPickle("numbers in another order of bytes")


def _uses_handles(archive: Archive, sources: Mapping[str, ast.Module]) -> bool:
    """Whether the code contains a name that `check_handles` looks for: few files do, and walking the trees is slow."""
    texts = (archive.read(name, MAX_CODE_BYTES) for name in sources)
    return any(name in text for text in texts for name in (b"get_data_handle", *map(str.encode, HANDLES)))


def _check_constants(archive: Archive) -> tuple[Value, ...]:
    """The constants: a tuple of tensors, packed weights and strings, which code reads as `CONSTANTS.c0` and so on."""
    found = _interpret(archive, "constants", {})
    items = found.items if isinstance(found, Tuple) else (found,)
    if not isinstance(found, Tuple) or any(kind_of(item) not in ("Tensor", "str", *PACKED) for item in items):
        raise InvalidPickle("a constant that is no tensor")
    return items


def _check_model(archive: Archive, classes: Mapping[str, Class]) -> None:
    """Check that the pickle is an object whose class has a method `forward`."""
    found = _interpret(archive, "data", classes)
    declared = classes.get(found.name) if isinstance(found, Object) else None
    if declared is None or "forward" not in declared.methods:
        raise InvalidPickle("no object with a method forward")


def _interpret(archive: Archive, folder: str, classes: Mapping[str, Class]) -> object:
    if f"{folder}.pkl" not in archive.records:
        raise InvalidPickle("no bytes: it is not there")
    records = Records(archive, folder)
    found = Interpreter(archive.read(f"{folder}.pkl", MAX_CODE_BYTES), records, classes).run()
    records.check_contents()
    return found
