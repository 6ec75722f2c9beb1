"""Limits on what a configuration may describe, checked before and while the model is built.

Refused are sizes that are not whole numbers or larger than any model's, and a model much larger than the weight files
beside its configuration. Without these limits a damaged or malicious number keeps an export busy for hours, or takes
all memory.
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

from exporter.loading.hub import ModelFiles
from runtime.errors import CheckpointError

# Keys that are counts or sizes in all model types; a list holds one number for each stage of the model.
_COUNTS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks)|(encoder|decoder)_layers|depths?")
_SIZES = re.compile(
    r"(\w+_)?(hidden_size|intermediate_size|vocab_size|embedding_size)|(num|n)_(\w+_)?(heads?|channels|positions)"
    r"|d_model|d_ff|d_kv|dim|(\w+_)?(hidden_dim|ffn_dim)|head_dim|n_embd|max_position_embeddings"
)
# ALBERT runs one layer as often as its configuration says, so its weights do not bound that number. The deepest
# published models have some hundred layers.
MOST_LAYERS = 1000
MOST = 2**31 - 1
# Allowed in addition to what the weight files hold: heads that a checkpoint lacks, tables that are computed.
_SPARE_PARAMETERS, _SPARE_TENSORS = 50_000_000, 10_000
_REMEDY = "copy config.json again"


def check_sizes(config: Any, origin: str) -> None:
    """Raise CheckpointError if a size in `config.json`, at any depth, is not one that a model can have."""
    for place, value, limit in _numbers(config, ""):
        table = place.endswith("max_position_embeddings")
        # -1: the model has no position table. 1200.0: the default of one model type is a float.
        whole = isinstance(value, int) or (table and isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not -table <= value <= limit:
            shown = json.dumps(value)
            raise CheckpointError(
                f"config.json of {origin} says {place} {shown if len(shown) < 40 else shown[:40] + '…'}",
                f"a whole number from 0 to {limit}",
                _REMEDY,
            )


def _numbers(config: Any, place: str) -> Iterator[tuple[str, Any, int]]:
    """Place, value and limit of every count or size."""
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        limit = MOST_LAYERS if _COUNTS.fullmatch(key) else MOST if _SIZES.fullmatch(key) else None
        name = f"{place}.{key}" if place else str(key)
        if isinstance(value, Mapping):
            yield from _numbers(value, name)
        elif limit is not None:
            # Lists of names, and of lists, describe the kinds of the layers.
            several = isinstance(value, list) and not any(isinstance(one, (str, list, Mapping)) for one in value)
            yield from ((name, one, limit) for one in (value if several else [value]) if _is_scalar(one))


def _is_scalar(value: Any) -> bool:
    """Objects under these keys have another meaning."""
    return isinstance(value, (bool, int, float, str))


@dataclass(frozen=True)
class Bounds:
    """The most that a model may hold, and why."""

    parameters: int
    tensors: int
    reason: str


def bounds_of(files: ModelFiles, random_weights: bool) -> Bounds | None:
    """From the weight files of a folder, or for random weights from the free memory; None if neither is known."""
    if random_weights:
        memory = free_memory()
        return None if memory is None else Bounds(memory // 4, MOST, f"as fit into {memory / 1e9:.1f} GB of memory")
    if files.folder is None:
        return None
    stored = [path for pattern in ("*.safetensors", "*.bin") for path in files.in_folder(pattern)]
    size = sum(path.stat().st_size for path in stored)
    # A byte holds at most two numbers, of 4 bits; the header of a tensor takes more than 32 bytes.
    tensors = sum(_header_bytes(path) for path in stored) // 32
    # GGUF packs up to five numbers into a byte.
    packed = sum(path.stat().st_size for path in files.in_folder("*.gguf"))
    reason = f"as belong to weight files of {(size + packed) / 1e6:.1f} MB"
    return Bounds(2 * size + 5 * packed + _SPARE_PARAMETERS, tensors + _SPARE_TENSORS, reason)


def _header_bytes(path: Path) -> int:
    """The size of a safetensors file's header, which its first eight bytes hold; for a pickle the size of the file."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size
    with path.open("rb") as file:
        return min(size, int.from_bytes(file.read(8), "little"))


def free_memory() -> int | None:
    """Free memory in bytes; None if the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


@contextmanager
def enforce_bounds(bounds: Bounds | None, origin: str) -> Iterator[None]:
    """While a model is built, raise CheckpointError as soon as it holds more than the bounds allow.

    Counted in the method with which every module registers a parameter: this works for all architectures, and before
    any memory was written to.
    """
    if bounds is None:
        yield
        return
    seen: set[tuple[int, str]] = set()
    parameters = 0
    register = torch.nn.Module.register_parameter

    def counting(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal parameters
        # Loading replaces each parameter once more.
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
