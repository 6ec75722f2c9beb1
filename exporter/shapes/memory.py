"""Estimate the memory of the longest call before it is made, and refuse a length that this machine cannot verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.loading.loader import Source
from exporter.loading.size_limits import free_memory
from exporter.shapes.test_shapes import LONG, Dimension
from runtime.errors import RequestError

# Samples of sound per position of an encoder of Wav2Vec2's kind: 20 ms.
_SAMPLES_PER_POSITION = 320
# Tensors of a layer that live at once: hidden states of a few steps, query, key, value, two of the intermediate size.
_HIDDEN, _INTERMEDIATE = 8, 2
# The scores of explicit attention, before and after the softmax, and the mask added to them; in PyTorch's own operator
# the mask alone.
_SCORES = 3


def check(source: Source, dimensions: Mapping[str, Dimension]) -> list[str]:
    """Notes on sizes that are verified once.

    Raises:
        RequestError: the machine has not enough free memory for them.
    """
    notes = []
    for name in LONG:
        if name not in dimensions or not dimensions[name].beyond:
            continue
        size = dimensions[name].at("limit")
        needed, free = estimate(source, name, size), free_memory()
        told = f"{name} {size} is verified once, which needs about {needed / 1e9:.1f} GB of memory"
        if free is not None and needed > free:
            raise RequestError(
                told,
                f"no more than the {free / 1e9:.1f} GB that are free",
                "give a smaller --max-length or --max-audio-seconds, or use a machine with more memory",
            )
        notes.append(told)
    return notes


def estimate(source: Source, name: str, size: int) -> int:
    """The bytes that one call of one row of this size needs in fp32, beside the weights."""
    config = source.config.get_text_config() if name == "sequence" else source.config
    positions = size // _SAMPLES_PER_POSITION if name == "samples" else size
    hidden, heads = _number(config, "hidden_size", 768), _number(config, "num_attention_heads", 12)
    intermediate = _number(config, "intermediate_size", 4 * hidden)
    scores = _SCORES * positions**2 * (heads if source.attention == "eager" else 1)
    states = positions * (_HIDDEN * hidden + _INTERMEDIATE * intermediate)
    outputs = positions * (source.vocabulary if any("vocabulary" in one.axes for one in source.task.outputs) else 0)
    # The first convolution of an encoder of sounds has a vector for each fifth sample.
    sounds = 3 * (size // 5) * max(getattr(config, "conv_dim", None) or [0]) if name == "samples" else 0
    return 4 * (scores + states + outputs + sounds)


def _number(config: Any, name: str, usual: int) -> int:
    value = getattr(config, name, usual)
    return value if isinstance(value, int) else usual
