"""Merge a PEFT adapter into the weights of its base, in fp32. The only module that imports peft."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import torch

from exporter.loading.adapter_files import AdapterFiles
from exporter.loading.size_limits import bounds_of, enforce_bounds
from runtime.errors import CheckpointError, ExportedModelError, ExtraMissingError

_OTHER_BASE = "give the model that it was trained for as --base-model FOLDER, or another --task"


def expect_peft(adapter: AdapterFiles) -> None:
    """Raise ExtraMissingError if the package that merges adapters is not installed."""
    if importlib.util.find_spec("peft") is None:
        raise ExtraMissingError(
            f"{adapter.named} must be merged into {adapter.base.id}, and the package peft is not installed",
            "peft",
            "pip install 'export-model[adapters]'",
        )


def merge(model: Any, adapter: AdapterFiles) -> tuple[Any, str]:
    """The model with the adapter merged into its weights, and a note. Weights that the adapter replaces are replaced.

    Raises:
        CheckpointError: the adapter is damaged, was trained for another model, or is of a kind that cannot be merged.
    """
    expect_peft(adapter)
    import peft

    with warnings.catch_warnings():
        # What peft warns about is checked below, and refused.
        warnings.simplefilter("ignore")
        try:
            if peft.PeftConfig.from_pretrained(str(adapter.folder)).is_prompt_learning:
                raise _unmergeable(adapter, "it adds to the inputs of its base, not to its weights")
            with enforce_bounds(bounds_of(adapter.files, False), adapter.files.id):
                adapted = peft.PeftModel.from_pretrained(model, str(adapter.folder))
            # Once more, for the result: the names of weights that found no place.
            loaded = adapted.load_adapter(str(adapter.folder), "default")
        except ExportedModelError:
            raise
        # peft raises whatever a damaged or strange adapter leads it to. Only its code runs inside.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise CheckpointError(
                f"{adapter.named} does not fit {adapter.base.id} as {type(model).__name__} ({reason})",
                "an adapter trained for this model",
                _OTHER_BASE,
            ) from error
        _expect_all_used(adapter, model, loaded)
        merged, layers = _merged(adapted, adapter)
    where = "the weights beside it" if adapter.beside else adapter.base.id
    return merged.eval(), f"adapter merged in fp32: {adapter.kind} in {layers} layers of {where}, by peft"


def _expect_all_used(adapter: AdapterFiles, model: Any, loaded: Any) -> None:
    """Refuse an adapter of which a part has no place in the model, or the reverse."""
    # A pooler that was left out has no influence on what is exported.
    lost = [name for name in loaded.unexpected_keys if ".pooler." not in name]
    lacking = [name for name in loaded.missing_keys if ".pooler." not in name]
    if lost or lacking:
        name, what = (lost[0], "has no place for") if lost else (lacking[0], "needs more than the adapter holds:")
        raise CheckpointError(
            f"{adapter.named} does not fit {adapter.base.id}: {type(model).__name__} {what} {name}",
            "an adapter trained for this model",
            _OTHER_BASE,
        )


def _merged(adapted: Any, adapter: AdapterFiles) -> tuple[Any, int]:
    """The base with merged weights, and the number of layers that the adapter changes."""
    layers = sum(hasattr(module, "merge") and hasattr(module, "base_layer") for module in adapted.modules())
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise _unmergeable(adapter, " ".join(str(error).split())[:200]) from error
    left = [name for name, module in merged.named_modules() if type(module).__module__.startswith("peft.")]
    if left or not all(tensor.dtype == torch.float32 for tensor in merged.parameters()):
        raise _unmergeable(adapter, f"peft leaves parts of it in {left[0] if left else 'another precision'}")
    return merged, layers


def _unmergeable(adapter: AdapterFiles, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{adapter.files.id} holds a PEFT adapter of type {adapter.kind}, which cannot be merged: {reason}",
        "an adapter that becomes part of the weights of its base, such as LORA",
        "this kind cannot be exported",
    )
