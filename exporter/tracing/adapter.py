"""Give a model a fixed signature, with a tuple of float32 tensors as its output.

Inputs are the plan's, in order and by name; outputs are the task's. If a task exports whatever the model returns,
nested outputs are flattened, and each tensor is named by its path: `vision_model_output_pooler_output`,
`hidden_states_1`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from exporter.loading.loader import Source
from exporter.loading.model_errors import named_model_errors
from exporter.loading.pooling import Head
from exporter.shapes import architecture_overrides
from exporter.shapes.example_inputs import ExampleInputs
from exporter.shapes.trace_plan import TracePlan
from runtime.errors import TaskError

# The path to a tensor in a nested output: names of fields and numbers of entries.
OutputPath = tuple[str | int, ...]


class Adapter(torch.nn.Module):
    """Calls the model by keyword, and takes named fields of its output as float32.

    Instances come from `adapt`, which gives each its own `forward` signature.
    """

    def __init__(self, model: torch.nn.Module, inputs: tuple[str, ...], outputs: Mapping[str, OutputPath]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.paths = dict(outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(self.paths)

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The named outputs for tensors given in order, by name, or both."""
        output = self.model(**cloned_floats(dict(zip(self.inputs, args, strict=False)) | kwargs))
        return tuple(_at(output, path).float() for path in self.paths.values())


class HeadAdapter(Adapter):
    """Applies what follows the model in a sentence-transformers folder, in float32."""

    head: Head

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of the head."""
        inputs = cloned_floats(dict(zip(self.inputs, args, strict=False)) | kwargs)
        pooled = inputs.pop("pooling_mask", None)
        vectors = self.model(**inputs)[self.head.reads]
        mask = inputs["attention_mask"]
        outputs: tuple[torch.Tensor, ...] = self.head(vectors, mask, mask if pooled is None else mask * pooled)
        return outputs


def adapt(source: Source, plan: TracePlan, example: ExampleInputs) -> Adapter:
    """Wrap the source's model. The wrapper is in evaluation mode, which IPEX reads from the outermost module.

    Raises:
        TaskError: the model lacks a required output, or the mask that pooling needs.
    """
    names = tuple(spec.name for spec in plan.inputs)
    base: type[Adapter] = Adapter
    if source.sentence_head is not None:
        if "attention_mask" not in names:
            raise TaskError(
                f"{type(source.model).__name__} takes no attention_mask",
                "attention_mask, to pool over real tokens only",
            )
        base = HeadAdapter
    kind = type(base.__name__, (base,), {"forward": with_signature(base.forward, names)})
    further = source.sentence_head.further if source.sentence_head is not None else ()
    wanted = [output.name for output in plan.task.outputs if not output.optional or output.name in further]
    adapter: Adapter = kind(source.model, names, {name: (name,) for name in wanted})
    if isinstance(adapter, HeadAdapter):
        assert source.sentence_head is not None
        adapter.head = source.sentence_head
    else:
        adapter.paths = _find_outputs(adapter.model, plan, example, architecture_overrides.output_aliases(source))
    return adapter.eval()


def cloned_floats(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of the floating-point inputs; the rest as they are.

    IPEX accumulates `linear(x) + r` into `r`: if `r` is an input, that is the caller's tensor. Integers are never
    accumulated into.
    """
    copies = {name: tensor.clone() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    # The format has no booleans, and models index with this input.
    return copies | {name: copies[name].bool() for name in copies if name == "bool_masked_pos"}


def with_signature(forward: Any, names: tuple[str, ...]) -> Any:
    """A copy of `forward` whose signature names its parameters, for torch.jit.trace."""

    def named(self: Any, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    # Type checkers do not know this attribute of functions (PEP 362).
    named.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *names)])  # type: ignore[attr-defined]
    return named


def _find_outputs(
    model: torch.nn.Module, plan: TracePlan, example: ExampleInputs, aliases: Mapping[str, str]
) -> dict[str, OutputPath]:
    """The paths to the task's outputs in the model's output, found by calling it once."""
    with named_model_errors(plan.example_sizes), torch.no_grad():
        output = model(**cloned_floats(example.as_dict()))
    found = {"_".join(map(str, path)): path for path in _paths(output)}
    found |= {
        name: found[alias]
        for name, alias in aliases.items()
        if alias in found and any(output.name == name for output in plan.task.outputs)
    }
    available = {output.name: found[output.name] for output in plan.task.outputs if output.name in found}
    missing = [output.name for output in plan.task.outputs if output.name not in found and not output.optional]
    if not missing:
        return available
    if plan.task.whole and found:
        return found
    raise TaskError(
        f"{type(model).__name__} gives {', '.join(found) or 'no tensor of floating-point numbers'}",
        f"{missing[0]} for {plan.task.name}",
        "choose another --task",
    )


def _paths(output: Any, so_far: OutputPath = ()) -> Iterator[OutputPath]:
    """The paths to all floating-point tensors of a nested output; caches and other objects are left out."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point() and so_far:
            yield so_far
    elif isinstance(output, (tuple, list)):
        for index, part in enumerate(output):
            yield from _paths(part, (*so_far, index))
    elif isinstance(output, Mapping):
        for name, part in output.items():
            yield from _paths(part, (*so_far, name))


def _at(output: Any, path: OutputPath) -> torch.Tensor:
    for step in path:
        output = output[step]
    tensor: torch.Tensor = output
    return tensor
