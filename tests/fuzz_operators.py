"""Call every operator that files may call (operators.def) with hostile arguments, where a step out of bounds faults.

    python tests/fuzz_operators.py [--calls N] [--seed S] [--only NAME …] [--ipex] [--wild] [--report JSON]

In: the list, and the overloads that the installed torch has of each name. Out: a line per operator that faulted, with
the arguments; exit code 1 if one did that is not marked UNCHECKED in the list. A fault is a signal, a block of memory
that was written beyond its end, or an output with memory that nobody wrote.

Each overload is called in processes of its own. Arguments are random, or earlier ones that were accepted with one
thing changed, so that calls get past the first checks. Tensors lie in mapped memory that ends, or begins, at an
inaccessible page; where there is a C compiler, the memory that operators allocate does too (tests/guard.c).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

# Run as a script, whose own folder is searched for modules, and not the one above.
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from runtime.artifact.argument_check import expected_instead  # noqa: E402 (behind the path)
from runtime.artifact.operator_lists import lists  # noqa: E402
from tests.operator_recipes import RECIPES  # noqa: E402

SECONDS = 2.0
BYTES = 2 * 2**30
SLOTS, SLOT, GUARD = 24, 2**18, 2**20
UNWRITTEN = 0xE7
DTYPES = ("float32", "int64", "bfloat16", "float64", "bool", "int32", "uint8", "complex64", "float16", "int8", "int16")
COUNTS = (0, 1, 2, 3, 4, 5, 8)
HUGE = (2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), -(2**31), -(2**40))
ENUMERATIONS = tuple(lists().enumerations)
LAYOUTS = ("plain", "plain", "plain", "transposed", "steps", "expanded")
WORDS = (
    *("", "none", "add", "relu", "gelu", "tanh", "mul", "sum", "mean", "amax", "constant", "reflect", "floor", "trunc"),
    *("nuc", "fro", "x", "i,i->", "ij,jk->ik", "ij", "linear", "forward", "ortho"),
)
FILLS = ("small", "small", "index", "negative", "huge", "one huge", "zero", "special")


class Overload(NamedTuple):
    """One way to call an operator."""

    name: str
    overload: str
    arguments: tuple[tuple[str, str, bool], ...]  # name, type, whether by keyword

    @property
    def title(self) -> str:
        return f"{self.name}.{self.overload}" if self.overload else self.name


def overloads(name: str, keywords: frozenset[str]) -> list[Overload]:
    """Those that code on the list can reach: it may use no other keywords."""
    found = []
    for schema in torch._C._jit_get_schemas_for_operator(name):
        needed = [a for a in schema.arguments if not (a.kwarg_only and a.name not in keywords)]
        if any(a.kwarg_only and a.name not in keywords and not a.has_default_value() for a in schema.arguments):
            continue
        arguments = tuple((a.name, str(a.type), a.kwarg_only) for a in needed)
        found.append(Overload(name, schema.overload_name, arguments))
    return found


class Arena:
    """Mapped memory: slots with inaccessible pages before and behind each."""

    def __init__(self) -> None:
        total = SLOTS * (SLOT + GUARD) + GUARD
        self._map = mmap.mmap(-1, total, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for number in range(SLOTS + 1):
            if protect(ctypes.c_void_p(self._start + number * (SLOT + GUARD)), ctypes.c_size_t(GUARD), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    def tensor(self, slot: int, shape: tuple[int, ...], dtype: torch.dtype, at_end: bool, align: int) -> torch.Tensor:
        """Not initialised; its last byte is the slot's last one, or its first byte the slot's first.

        `align`: it begins at a multiple of so many bytes, and may end so much earlier.
        """
        count, size = 1, torch.empty([], dtype=dtype).element_size()
        for length in shape:
            count *= length
        if count == 0 or count * size > SLOT:
            return torch.zeros(shape, dtype=dtype)
        begin = slot % SLOTS * (SLOT + GUARD) + GUARD
        offset = begin + SLOT - -(-count * size // align) * align if at_end else begin
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset).reshape(shape)


def make(spec: Any, arena: Arena, slots: list[int], align: int = 1) -> Any:
    """The value that a description stands for."""
    if isinstance(spec, list):
        return [make(item, arena, slots, align) for item in spec]
    if not isinstance(spec, dict) or "shape" not in spec:
        return spec
    shape, dtype = tuple(spec["shape"]), getattr(torch, spec["dtype"])
    if spec.get("quantised"):
        return torch.quantize_per_tensor(torch.randn(shape), 0.1, 10, dtype)
    slots[0] += 1
    layout = spec["layout"]
    stored = shape[:-2] + (shape[-1], shape[-2]) if layout == "transposed" and len(shape) > 1 else shape
    stored = stored[:-1] + (stored[-1] * 2,) if layout == "steps" and shape else stored
    stored = (1,) + stored[1:] if layout == "expanded" and shape and shape[0] > 0 else stored
    tensor = arena.tensor(slots[0], stored, dtype, spec["end"], align)
    _fill(tensor, spec["fill"], random.Random(spec["seed"]))
    if spec.get("packed"):
        return torch.ops.onednn.qlinear_prepack(tensor, None)
    if layout == "transposed" and len(shape) > 1:
        tensor = tensor.transpose(-1, -2)
    if layout == "steps" and shape:
        tensor = tensor[..., ::2]
    if layout == "expanded" and shape and shape[0] > 0:
        tensor = tensor.expand(shape)
    if layout == "mkldnn" and dtype in (torch.float32, torch.bfloat16) and 0 < len(shape) < 6 and tensor.numel():
        tensor = tensor.to_mkldnn()
    return tensor


def _fill(tensor: torch.Tensor, how: str, chance: random.Random) -> None:
    if tensor.numel() == 0:
        return
    if tensor.dtype == torch.bool:
        tensor.copy_(torch.arange(tensor.numel()).remainder(chance.randint(1, 3)).reshape(tensor.shape) == 0)
        return
    integral = not tensor.is_floating_point() and not tensor.is_complex()
    highest = torch.iinfo(tensor.dtype).max if integral else 2**62
    lowest = torch.iinfo(tensor.dtype).min if integral else -(2**62)
    if how == "zero":
        tensor.zero_()
    elif how == "negative":
        tensor.fill_(-1 if lowest else highest)
    elif how == "huge":
        tensor.fill_(chance.choice([value for value in HUGE if lowest <= value <= highest] or [highest]))
    elif how == "special" and not integral:
        tensor.fill_(chance.choice([float("inf"), float("-inf"), float("nan"), 1e30, -1e30]))
    elif integral:
        top = chance.choice([1, 2, 4])
        tensor.copy_(torch.arange(tensor.numel()).remainder(top).reshape(tensor.shape))
        if how == "one huge":
            value = chance.choice([v for v in (*HUGE, 7, 100, 5000, -2, -100) if lowest <= v <= highest] or [highest])
            tensor.view(-1)[-1] = value
    else:
        tensor.copy_(torch.linspace(-2, 2, tensor.numel()).reshape(tensor.shape))


class Maker:
    """Descriptions of arguments, for one overload."""

    def __init__(self, chance: random.Random, wild: bool) -> None:
        self.chance, self.wild = chance, wild
        self.layouts = (*LAYOUTS, "mkldnn") if wild else LAYOUTS

    def tensor(self, shape: list[int] | None = None, dtype: str | None = None) -> dict[str, Any]:
        pick = self.chance.choice
        if shape is None:
            shape = [
                pick(COUNTS[1:] if self.chance.random() < 0.9 else COUNTS)
                for _ in range(pick((0, 1, 1, 2, 2, 3, 3, 4, 4, 5)))
            ]
        dtype = dtype or (pick(DTYPES) if self.chance.random() < 0.4 else pick(DTYPES[:2]))
        made = {"shape": shape, "dtype": dtype, "fill": pick(FILLS), "layout": pick(self.layouts)}
        return made | {"end": self.chance.random() < 0.7, "seed": self.chance.randrange(2**31)}

    def number(self) -> int:
        return self.chance.choice((-2, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 7, 16, 100, self.chance.choice(HUGE)))

    def value(self, kind: str, name: str, alike: list[int] | None) -> Any:
        """A random one; `alike` is the shape that tensors of this call mostly have."""
        chance, pick = self.chance, self.chance.choice
        if kind.startswith("Optional["):
            return None if chance.random() < 0.4 else self.value(kind[9:-1], name, alike)
        if kind.startswith("List["):
            inner = kind[5:-1]
            return [self.value(inner, name, alike) for _ in range(pick((0, 1, 1, 2, 2, 2, 3, 4, 6)))]
        if kind == "Tensor":
            return self.tensor(list(alike) if alike is not None and chance.random() < 0.6 else None)
        if kind == "int":
            if name.endswith("dtype"):
                return pick((None, None, *([255, -1, 99, 2**40] if self.wild else []), *range(16)))
            if name in ("layout", "memory_format"):
                return pick((None, 0, 0, *([4, 5, 99, -1] if self.wild else []), 1, 2, 3))
            return self.number()
        if kind in ("float", "number"):
            return pick(
                (
                    0.0,
                    1.0,
                    0.5,
                    -1.0,
                    2.0,
                    1e-5,
                    1e30,
                    float("inf"),
                    float("nan"),
                    *([self.number()] if kind == "number" else []),
                )
            )
        if kind == "bool":
            return chance.random() < 0.5
        if kind == "str":
            return pick(WORDS)
        if kind == "Device":
            return "cpu"
        if kind == "complex":
            return complex(self.number(), 1.0)
        if kind.startswith("Dict["):
            return {}
        if kind == "Generator":
            return None
        return pick((self.number(), 1.5, None)) if chance.random() < 0.5 else self.tensor()

    def fresh(self, overload: Overload) -> list[Any]:
        shape = self.tensor()["shape"]
        return [self.value(kind, name, shape) for name, kind, _ in overload.arguments]

    def changed(self, overload: Overload, seed: list[Any]) -> list[Any]:
        """The same arguments with one or two of them changed a little, or replaced."""
        made = [_copy(item) for item in seed]
        for _ in range(self.chance.choice((1, 1, 1, 2, 3))):
            if not made:
                break
            place = self.chance.randrange(len(made))
            name, kind, _ = overload.arguments[place]
            made[place] = (
                self._nudged(made[place], name) if self.chance.random() < 0.7 else self.value(kind, name, None)
            )
        return made

    def _nudged(self, value: Any, name: str) -> Any:
        pick = self.chance.choice
        if isinstance(value, dict) and "shape" in value:
            made = dict(value, shape=list(value["shape"]), seed=self.chance.randrange(2**31))
            what = pick(("size", "size", "size", "rank", "dtype", "fill", "fill", "layout", "end"))
            if what == "size" and made["shape"]:
                place = self.chance.randrange(len(made["shape"]))
                made["shape"][place] = max(
                    0, pick((0, 1, made["shape"][place] - 1, made["shape"][place] + 1, 2 * made["shape"][place]))
                )
            elif what == "rank":
                made["shape"] = pick((made["shape"][1:], [1, *made["shape"]], [*made["shape"], 2], made["shape"][:-1]))
            elif what == "dtype":
                made["dtype"] = pick(DTYPES)
                made.pop("quantised", None)
            elif what in ("fill", "layout"):
                made[what] = pick(FILLS if what == "fill" else self.layouts)
            else:
                made["end"] = not made.get("end")
            return made
        if isinstance(value, list) and value:
            items = list(value)
            place = self.chance.randrange(len(items))
            what = pick(("change", "change", "drop", "twice", "empty"))
            if what == "change":
                items[place] = self._nudged(items[place], name)
            elif what == "empty":
                return []
            else:
                items[place : place + 1] = [] if what == "drop" else [items[place]] * 2
            return items
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            if name in ENUMERATIONS and not self.wild:
                return self.value("int", name, None)
            return pick((value + 1, value - 1, -value, value * 2, self.number(), self.chance.choice(HUGE)))
        if isinstance(value, float):
            return pick((0.0, -value, value * 1e10, float("nan"), float("inf"), 1e-30))
        return value


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def fits(overload: Overload, specs: list[Any]) -> bool:
    """Whether a file with these arguments would be loaded; those that are no plain values may be computed."""
    given = {name: spec for (name, _, _), spec in zip(overload.arguments, specs, strict=True)}
    return not any(
        expected_instead(overload.name, name, spec, given.get)
        for name, spec in given.items()
        if not isinstance(spec, dict)
    )


def unwritten(value: Any) -> bool:
    """Whether an output holds bytes that only new memory has."""
    if isinstance(value, (list, tuple)):
        return any(unwritten(item) for item in value)
    if not isinstance(value, torch.Tensor) or value.is_mkldnn or value.layout != torch.strided or value.is_quantized:
        return False
    if value.numel() == 0 or value.numel() > 2**20 or value.dtype == torch.bool or value.element_size() < 4:
        return False
    try:
        raw = value.detach().resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8)
    except RuntimeError:
        return False
    words = raw[: raw.numel() // 4 * 4].view(-1, 4)
    return bool((words == UNWRITTEN).all(1).any())


def confine() -> None:
    """Limits of a process that calls operators."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def again(overload: Overload, specs: list[Any]) -> None:
    """One call whose tensors are aligned as PyTorch's own, in a process of its own."""
    confine()
    values = make(specs, Arena(), [0], 64)
    call = torch._C._get_operation_overload(overload.name, overload.overload)[0]
    try:
        with torch.no_grad():
            call(*_positional(overload, values), **_named(overload, values))
    finally:
        os._exit(0)


def _positional(overload: Overload, values: list[Any]) -> list[Any]:
    return [v for v, (_, _, keyword) in zip(values, overload.arguments, strict=True) if not keyword]


def _named(overload: Overload, values: list[Any]) -> dict[str, Any]:
    return {name: v for v, (name, _, keyword) in zip(values, overload.arguments, strict=True) if keyword}


def child(overload: Overload, calls: int, seed: int, told: mmap.mmap, guarded: bool, wild: bool) -> None:
    """Call until the number is reached; what is being called stands in `told` before each call."""
    confine()
    chance = random.Random(f"{overload.title} {seed}")
    maker, arena = Maker(chance, wild or overload.name.startswith(("mkldnn", "onednn"))), Arena()
    call = torch._C._get_operation_overload(overload.name, overload.overload)[0]
    seeds = [list(recipe) for recipe in RECIPES.get(overload.name, []) if len(recipe) == len(overload.arguments)]
    recipes, accepted = len(seeds), 0
    for number in range(calls):
        if number < recipes:
            specs = seeds[number]
        else:
            specs = (
                maker.changed(overload, chance.choice(seeds))
                if seeds and chance.random() < 0.75
                else maker.fresh(overload)
            )
        if not wild and not fits(overload, specs):
            continue
        text = f"{number} {accepted} {json.dumps(specs, default=str)}".encode()[: len(told) - 9]
        told[: len(text) + 1] = text + b"\0"
        try:
            values = make(specs, arena, [chance.randrange(SLOTS)])
        except (RuntimeError, ValueError, TypeError, MemoryError, OverflowError):
            continue
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with torch.no_grad():
                output = call(*_positional(overload, values), **_named(overload, values))
            found = guarded and unwritten(output)
            del output
        except (Exception, SystemError) as error:  # noqa: BLE001 (whatever an operator refuses with)
            if number < recipes:
                told[len(told) - 1 :] = b"r"
            del error
            continue
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        accepted += 1
        if found:
            os._exit(99)
        if len(seeds) < 60:
            seeds.append(specs)
        elif chance.random() < 0.1:
            seeds[chance.randrange(recipes, 60)] = specs
    text = f"{calls} {accepted} ".encode()
    told[: len(text) + 1] = text + b"\0"
    os._exit(0)


def fuzz(overload: Overload, calls: int, seed: int, guarded: bool, wild: bool = False) -> dict[str, Any]:
    """What happened: calls, how many were accepted, faults with their arguments."""
    row: dict[str, Any] = {"overload": overload.title, "calls": 0, "accepted": 0, "faults": [], "slow": 0}
    for attempt in range(40):
        if row["calls"] >= calls or len(row["faults"]) >= 3 or row.get("vector", 0) > 12 or row["slow"] >= 3:
            break
        told = mmap.mmap(-1, 65536)
        pid = os.fork()
        if pid == 0:
            try:
                child(overload, calls - row["calls"], seed * 1000 + attempt, told, guarded, wild)
            finally:
                os._exit(98)
        _, status = os.waitpid(pid, 0)
        number, accepted, arguments = (told[:].split(b"\0", 1)[0].decode(errors="replace") + "  ").split(" ", 2)
        row["calls"] += int(number or 0)
        row["accepted"] += int(accepted or 0)
        if told[-1:] == b"r":
            row["recipe"] = "refused"
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGPROF:
            row["slow"] += 1
        elif code:
            what = {99: "memory that nobody wrote", 98: "the fuzzer failed"}.get(code) or signal.Signals(-code).name
            if code == -signal.SIGSEGV and _only_a_vector(overload, arguments):
                row["vector"] = row.get("vector", 0) + 1
            else:
                row["faults"].append({"what": what, "arguments": arguments.strip()[:2000]})
        told.close()
    return row


def _only_a_vector(overload: Overload, arguments: str) -> bool:
    """Whether nothing happens where tensors end as PyTorch lays them out: whole vectors are read, and then masked."""
    pid = os.fork()
    if pid == 0:
        try:
            again(overload, json.loads(arguments))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# clean start: a compiler, and this very program once more, which begins with the folder of its file
def start_guarded() -> None:
    """Start this program anew with its allocations guarded, where there is a C compiler; the second time, go on."""
    if "OPERATOR_GUARD" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="guard.")
    library = Path(folder) / "guard.so"
    source = str(ROOT / "tests" / "guard.c")
    try:
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
        environment = {"OPERATOR_GUARD": "yes", "LD_PRELOAD": str(library)}
    except (OSError, subprocess.CalledProcessError):
        print("no C compiler: what operators allocate is not guarded", flush=True)
        environment = {"OPERATOR_GUARD": "no"}
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000, help="per overload")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these operators, such as aten::add")
    parser.add_argument(
        "--ipex", action="store_true", help="with IPEX's library loaded, which replaces some of PyTorch's"
    )
    parser.add_argument(
        "--wild",
        action="store_true",
        help="with arguments that are refused when a file is loaded, and tensors in oneDNN's own layout",
    )
    parser.add_argument("--report", type=Path, help="all rows, as JSON")
    options = parser.parse_args()
    start_guarded()
    guarded = os.environ["OPERATOR_GUARD"] == "yes"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.ipex:
        from runtime.host.ipex_library import register_ipex

        register_ipex()
    known = lists()
    rows, start, bad = [], time.monotonic(), 0
    for name in options.only or sorted(known.operators):
        for overload in overloads(name, known.keywords):
            row = fuzz(overload, options.calls, options.seed, guarded, options.wild)
            rows.append(row)
            for fault in row["faults"]:
                listed = name in known.unchecked
                bad += not listed
                print(f"{'known ' if listed else ''}{fault['what']} {row['overload']} {fault['arguments']}", flush=True)
    if options.report:
        options.report.write_text(json.dumps(rows, indent=0))
    never = [row["overload"] for row in rows if not row["accepted"]]
    total = sum(row["calls"] for row in rows)
    print(f"{len(rows)} overloads, {total} calls, {sum(row['accepted'] for row in rows)} accepted, {bad} faults, "
          f"{sum(row['slow'] for row in rows)} took {SECONDS:g} s, {time.monotonic() - start:.0f} s")  # fmt: skip
    print(f"never accepted: {', '.join(never) or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
