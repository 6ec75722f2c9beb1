"""Bounds on what a configuration may describe, checked before and while the model is built.

In: the JSON of `config.json`; the folder's weight files. Out: nothing. Refuses (CheckpointError) sizes that are no
whole numbers or beyond every model, and a model that is far larger than the weights beside its configuration. Without
these bounds a damaged or malicious number keeps an export busy for hours, or takes all memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtime.errors import CheckpointError

# Keys that count or measure, in all model types alike; their lists hold one for each stage.
_COUNTS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks)|(encoder|decoder)_layers|depths?")
_SIZES = re.compile(
    r"(\w+_)?(hidden_size|intermediate_size|vocab_size|embedding_size)|(num|n)_(\w+_)?(heads?|channels|positions)"
    r"|d_model|d_ff|d_kv|dim|(\w+_)?(hidden_dim|ffn_dim)|head_dim|n_embd|max_position_embeddings"
)
# ALBERT runs one layer as often as its configuration says: no weights bound it. The deepest published models have some
# hundred layers.
MOST_LAYERS = 1000
MOST = 2**31 - 1
# Beside what the weight files hold: heads that a checkpoint lacks, tables that are computed.
_SPARE_PARAMETERS, _SPARE_TENSORS = 50_000_000, 10_000
_REMEDY = "copy config.json again"


def check_sizes(said: Any, origin: str) -> None:
    """Raise CheckpointError for a size in `config.json`, or in a part of it, that no model has."""
    for place, value, limit in _numbers(said, ""):
        table = place.endswith("max_position_embeddings")
        # -1: the model has no table of positions. 1200.0: a library's own default.
        whole = isinstance(value, int) or (table and isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not -table <= value <= limit:
            shown = json.dumps(value)
            raise CheckpointError(
                f"config.json of {origin} says {place} {shown if len(shown) < 40 else shown[:40] + '…'}",
                f"a whole number from 0 to {limit}",
                _REMEDY,
            )


def _numbers(said: Any, place: str) -> Iterator[tuple[str, Any, int]]:
    """Places, values and limits of all that counts or measures; what is no number or text has another meaning."""
    if not isinstance(said, Mapping):
        return
    for key, value in said.items():
        limit = MOST_LAYERS if _COUNTS.fullmatch(key) else MOST if _SIZES.fullmatch(key) else None
        name = f"{place}.{key}" if place else str(key)
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif limit is not None:
            # Lists of names, and of lists, say what kind the layers are of.
            several = isinstance(value, list) and not any(isinstance(one, (str, list, Mapping)) for one in value)
            yield from ((name, one, limit) for one in (value if several else [value]) if _measures(one))


def _measures(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))


@dataclass(frozen=True)
class Bounds:
    """How much a model may hold, and why."""

    parameters: int
    tensors: int
    reason: str


def bounds_of(folder: Path | None, random_weights: bool) -> Bounds | None:
    """By the weight files of a folder, or by the memory for random weights; None where neither is known.

    A weight file of a pickle or of a damaged header counts by its bytes.
    """
    if random_weights:
        memory = _memory()
        return None if memory is None else Bounds(memory // 4, MOST, f"as fit into {memory / 1e9:.1f} GB of memory")
    if folder is None:
        return None
    files = [path for ending in ("*.safetensors", "*.bin") for path in folder.glob(ending)]
    size = sum(path.stat().st_size for path in files)
    # Two numbers of 4 bits to a byte; the header of a tensor takes more than 32 bytes.
    tensors = sum(_header_bytes(path) for path in files) // 32
    reason = f"as belong to weight files of {size / 1e6:.1f} MB"
    return Bounds(2 * size + _SPARE_PARAMETERS, tensors + _SPARE_TENSORS, reason)


def _header_bytes(path: Path) -> int:
    """Of a safetensors file: a length of eight bytes stands before its header."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size
    with path.open("rb") as file:
        return min(size, int.from_bytes(file.read(8), "little"))


def _memory() -> int | None:
    """Bytes that this machine could still give; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


@contextmanager
def within(bounds: Bounds | None, origin: str) -> Iterator[None]:
    """While a model is built, raise CheckpointError as soon as it holds more than the bounds allow.

    Counted where a module takes a parameter, which every module does by the same method: that holds for all
    architectures, and before any memory was written to.
    """
    if bounds is None:
        yield
        return
    seen: set[tuple[int, str]] = set()
    parameters = 0
    register = torch.nn.Module.register_parameter

    def counting(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal parameters
        # Loading puts another one in the place of each.
        if parameter is not None and (id(module), name) not in seen:
            seen.add((id(module), name))
            parameters += parameter.numel()
            if parameters > bounds.parameters or len(seen) > bounds.tensors:
                raise CheckpointError(
                    f"config.json of {origin} describes a model with at least {parameters} parameters in {len(seen)} "
                    f"tensors, {type(module).__name__}.{name} {list(parameter.shape)} being one",
                    f"at most {bounds.parameters} in {bounds.tensors}, {bounds.reason}",
                    "copy config.json and weights of the same model",
                )
        register(module, name, parameter)

    torch.nn.Module.register_parameter = counting  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
