"""TracePlan: what goes in, in which order, at which sizes, resolved and explained.

In: a Source and an ExportRequest. Out: a frozen `TracePlan`. Refuses a model none of whose inputs it knows,
and example sizes that the model does not admit.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from exporter.request import MIN_EXAMPLE_SIZE, ExportRequest
from exporter.source import Source
from exporter.tasks import Task
from runtime.errors import RequestError, TaskError
from runtime.manifest import Axis, TensorSpec, ValueRange

# Long enough to be typical, short enough to trace quickly.
DEFAULT_SEQUENCE = 128
# The longest sequence that is verified, and so declared: the reference is computed in eager fp32, whose
# attention takes memory with the square of the length.
LONGEST_VERIFIED = 2048


@dataclass(frozen=True)
class TracePlan:
    """Everything that the stages behind need to make inputs and to describe the artifact.

    `inputs` are in the order of the model's forward parameters. `batch` and `sequence` are the example's
    sizes. `pad_id` fills padded positions, `avoided_ids` are special tokens that examples leave out,
    `padding_side` is where padding goes. `choices` says, in words, what was decided and why.
    """

    task: Task
    inputs: tuple[TensorSpec, ...]
    batch: int
    sequence: int
    longest: int
    pad_id: int
    avoided_ids: frozenset[int]
    padding_side: str
    choices: tuple[str, ...]


def make_plan(source: Source, request: ExportRequest) -> TracePlan:
    """Resolve the plan.

    Raises:
        RequestError: `sequence_length` is longer than the model admits.
        TaskError: no input of the model is known.
    """
    longest = min(source.longest_sequence or LONGEST_VERIFIED, LONGEST_VERIFIED)
    sequence = request.sequence_length or min(DEFAULT_SEQUENCE, longest)
    if sequence > longest:
        raise RequestError(
            f"sequence_length is {sequence}", f"at most {longest}, the longest this model and exporter admit"
        )
    if longest < MIN_EXAMPLE_SIZE:
        raise TaskError(f"the model admits sequences of {longest}", f"at least {MIN_EXAMPLE_SIZE}")
    inputs, dropped = _inputs(source, longest)
    choices = [f"task {source.task.name}: {source.task_reason}"]
    kept = ", ".join(spec.name for spec in inputs)
    choices.append(f"inputs {kept}: the text inputs of its forward, whose other parameters keep their defaults")
    choices += [f"input {name} dropped: {reason}" for name, reason in dropped.items()]
    if source.longest_sequence is None or source.longest_sequence > longest:
        limit = source.longest_sequence or "no limit"
        choices.append(f"sequences up to {longest} of the model's {limit}: longer ones are not verified")
    else:
        choices.append(f"sequences up to {longest}: the longest that the model admits")
    text = source.tokenizer.info
    pad_id = text.pad_id if text else (getattr(source.config, "pad_token_id", None) or 0)
    return TracePlan(
        task=source.task,
        inputs=inputs,
        batch=request.batch_size,
        sequence=sequence,
        longest=longest,
        pad_id=pad_id,
        avoided_ids=frozenset((pad_id, *source.tokenizer.special_ids)),
        padding_side=text.padding_side if text else "right",
        choices=tuple(choices),
    )


def _inputs(source: Source, longest: int) -> tuple[tuple[TensorSpec, ...], dict[str, str]]:
    axes = (Axis("batch", 1, None), Axis("sequence", 1, longest))
    vocabulary = source.model.get_input_embeddings().num_embeddings
    types = _type_count(source.model, source.config)
    specs, dropped = [], {}
    for name in inspect.signature(source.model.forward).parameters:
        if name == "input_ids":
            specs.append(TensorSpec(name, "int64", axes, ValueRange(0, vocabulary - 1)))
        elif name == "attention_mask":
            specs.append(TensorSpec(name, "int64", axes, ValueRange(0, 1), fill=1))
        elif name == "token_type_ids":
            if types < 2:
                dropped[name] = f"the model has {types} token types, so it can only hold zeros"
            else:
                specs.append(TensorSpec(name, "int64", axes, ValueRange(0, types - 1), fill=0))
    if not any(spec.name == "input_ids" for spec in specs):
        raise TaskError(
            f"{type(source.model).__name__} takes no input_ids",
            "a text model",
            "other kinds of models are not supported yet",
        )
    return tuple(specs), dropped


def _type_count(model: Any, config: Any) -> int:
    """Rows of the token type table: the table itself where it has its usual name, else the configuration."""
    for name, module in model.named_modules():
        if name.endswith("token_type_embeddings") and hasattr(module, "num_embeddings"):
            return int(module.num_embeddings)
    return int(getattr(config, "type_vocab_size", 0) or 0)
