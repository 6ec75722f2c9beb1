"""What an artifact's pickles may hold: tensors and the file's own classes.

In: a pickle's bytes. Out: what is wrong with it, in words. Uses no pickle machinery: it only reads opcodes.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator

_GLOBALS = re.compile(
    r"__torch__(?!\.torch\.classes)[\w.]* \w+|__torch__\.torch\.classes\.ipex_prepack \w+OpContext|"
    r"torch (?:Float|Double|BFloat16|Half|Long|Int|Short|Char|Byte|Bool)Storage|torch\._utils _rebuild_tensor_v2|"
    # Weights in int8, with a scale a row.
    r"torch Q(?:U)?Int8Storage|torch\._utils _rebuild_qtensor|torch per_(?:channel|tensor)_affine|"
    r"torch\.jit\._pickle \w+|collections OrderedDict",
    re.ASCII,
)
_OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "BINPERSID", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "BINPUT", "LONG_BINPUT", "BINGET"),
    *("LONG_BINGET", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
}


def pickle_problems(data: bytes) -> Iterator[str]:
    """What is wrong with a pickle, in words; nothing where all is well."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                yield f"the pickle opcode {opcode.name}"
            if opcode.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
                yield f"the pickled name {argument}"
    except (ValueError, OverflowError, IndexError) as error:
        yield f"a pickle that cannot be read ({error})"
