"""What stands in a model folder's way before anything is loaded, told by its cause.

In: where the model is, its config.json. Out: nothing. Refuses adapters that are not merged, quantised weights, and
folders that are no model, with what helps.
"""

from __future__ import annotations

from typing import Any

from exporter.loading.hub import Location, has_file, read_json
from runtime.errors import CheckpointError

_MERGE = (
    "merge it with PEFT: AutoPeftModel….from_pretrained(folder).merge_and_unload().save_pretrained(new_folder), the "
    "tokenizer beside it, and export that"
)


def expect_no_adapter(location: Location) -> None:
    """That no PEFT adapter lies in the folder.

    transformers applies it where the package peft is installed, and drops it without a word where it is not.

    Raises:
        CheckpointError: there is one.
    """
    said = read_json(location, "adapter_config.json")
    name = "adapter_config.json"
    if said is None:
        stored = sorted(location.folder.glob("adapter_model.*")) if location.folder is not None else []
        if not stored:
            return
        name, said = stored[0].name, {}
    said = said if isinstance(said, dict) else {}
    base = said.get("base_model_name_or_path")
    kind = f" of type {said['peft_type']}" if "peft_type" in said else ""
    raise CheckpointError(
        f"{location.id} holds a PEFT adapter{kind} ({name}){f' for {base}' if base else ''}"[:300],
        "weights with the adapter merged in",
        _MERGE,
    )


def expect_configuration(location: Location) -> None:
    """That the folder has a config.json that names a model type.

    Raises:
        CheckpointError: it has not.
    """
    if location.folder is not None and not has_file(location, "config.json"):
        raise CheckpointError(
            f"{location.folder} has no config.json", "a model folder as transformers saves it", "check the path"
        )
    said = read_json(location, "config.json")
    if isinstance(said, dict) and not {"model_type", "auto_map"} & set(said):
        # transformers 4 would take the model type from the folder's name.
        raise CheckpointError(
            f"config.json of {location.id} names no model_type", "the type of the model", "copy config.json again"
        )


def expect_plain_weights(location: Location, config: Any) -> None:
    """That the weights are numbers as they are, and no code of a quantisation.

    Raises:
        CheckpointError: config.json says that they are quantised.
    """
    said = getattr(config, "quantization_config", None)
    if said is None:
        return
    method = said.get("quant_method") if isinstance(said, dict) else getattr(said, "quant_method", None)
    raise CheckpointError(
        f"the weights of {location.id} are quantised ({getattr(method, 'value', method) or 'quantization_config'})",
        "weights in fp32, bf16 or fp16",
        "export the model that they were made from, with --bf16 or --int8",
    )
