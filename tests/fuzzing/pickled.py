"""Change a pickle by its opcodes: numbers, names, texts, memo entries, the order and the number of steps."""

from __future__ import annotations

import pickletools
import random
import struct

from tests.hostile.assemble import number

INTEGERS = [
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    65535,
    2**24,
    2**31 - 1,
    -1,
    -2,
    -(2**31),
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
]
NAMES = [
    *("torch FloatStorage", "torch DoubleStorage", "torch ByteStorage", "torch BoolStorage", "torch QInt8Storage"),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_qtensor", "torch per_channel_affine"),
    *("torch per_tensor_affine", "torch.jit._pickle build_tensorlist", "torch.jit._pickle build_intlist"),
    *("torch.jit._pickle restore_type_tag", "collections OrderedDict", "__torch__ A", "builtins complex"),
    *("__torch__.torch.classes.ipex_prepack LinearOpContext", "torch device", "torch._utils _rebuild_sparse_tensor"),
]
STEPS = [
    b"(",
    b")",
    b"]",
    b"}",
    b"e",
    b"u",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"N",
    b"\x88",
    b"\x89",
    b"R",
    b"b",
    b"\x81",
    b"Q",
    b"0",
    b"s",
    b"a",
]


def steps(data: bytes) -> list[bytes]:
    """The pickle, cut into its opcodes with their arguments."""
    places = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    return [data[begin:end] for begin, end in zip(places, places[1:], strict=False)]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """The same pickle with one to four steps changed."""
    found = steps(data)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        place = dice.randrange(1, len(found)) if len(found) > 1 else 0
        choice = dice.random()
        if choice < 0.5:
            kind = dice.choice([b"KMJ\x8a", b"KMJ\x8a", b"c", b"X", b"qrhj", b"N\x88\x89)"])
            places = [i for i, step in enumerate(found) if step[:1] in kind]
            place = dice.choice(places) if places else place
            found[place] = _other(found[place], found, dice)
        elif choice < 0.6:
            del found[place]
        elif choice < 0.7:
            found.insert(place, dice.choice(found))
        elif choice < 0.8:
            found.insert(place, dice.choice(STEPS))
        elif choice < 0.9:
            other = dice.randrange(len(found))
            found[place], found[other] = found[other], found[place]
        else:
            begin, count = dice.randrange(len(found)), dice.choice([2, 10, 40])
            found[place:place] = found[begin : begin + count]
    return b"".join(found)


def _other(step: bytes, found: list[bytes], dice: random.Random) -> bytes:
    """Another step of the same kind."""
    code = step[:1]
    if code in b"KMJ\x8a":
        return number(dice.choice([*INTEGERS, dice.getrandbits(16), dice.getrandbits(40)]))
    if code == b"c":
        module, name = dice.choice(NAMES).split()
        return f"c{module}\n{name}\n".encode()
    if code in b"hq":
        return code + bytes([dice.choice([0, 1, 2, dice.randrange(256)])])
    if code in b"rj":
        return code + struct.pack("<L", dice.choice([0, 1, 300, 2**16, 2**31, 2**32 - 1]))
    if code == b"X":
        texts = [one for one in found if one[:1] == b"X"]
        return dice.choice([*texts, b"X\0\0\0\0", b"X\1\0\0\0" + b"7", b"X\4\0\0\0" + b"meta", b"X\xff\xff\xff\x7f"])
    return dice.choice([b"N", b"\x88", b"\x89", b")", b"K\1", b"]"])
