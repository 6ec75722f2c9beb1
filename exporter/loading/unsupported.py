"""Refuse model folders that cannot be exported for a reason visible in their files, and say what helps.

These are weights that are quantised in a form that is not read, and folders that hold no model.
"""

from __future__ import annotations

from typing import Any

from exporter.loading.hub import ModelFiles
from exporter.loading.quantised_checkpoint import quantisation_of, quantisation_problem
from runtime.errors import CheckpointError
from runtime.printing import printable


def expect_configuration(files: ModelFiles) -> None:
    """Check that the folder has a config.json that names a model type, or a GGUF file in its place.

    Raises:
        CheckpointError: it has none.
    """
    if files.gguf is not None:
        return
    if files.folder is not None and not files.has("config.json"):
        if names := sorted(printable(path.name) for path in files.folder.glob("*.gguf")):
            raise CheckpointError(
                f"{files.folder} has no config.json, and {', '.join(names)}"[:300],
                "the name of the GGUF file to export",
                f"give --gguf {names[0]} and --task",
            )
        raise CheckpointError(
            f"{files.folder} has no config.json", "a model folder as transformers saves it", "check the path"
        )
    config = files.read_json("config.json")
    if isinstance(config, dict) and not {"model_type", "auto_map"} & set(config):
        # transformers 4 would take the model type from the folder's name.
        if "pretrained_cfg" in config:
            raise CheckpointError(
                f"config.json of {files.id} is of the library timm",
                "a model of transformers",
                "export a model of the same architecture that transformers has, such as microsoft/resnet-50",
            )
        raise CheckpointError(
            f"config.json of {files.id} names no model_type", "the type of the model", "copy config.json again"
        )


def expect_plain_weights(files: ModelFiles, config: Any) -> None:
    """Check that the weights are not quantised, or in a form that is read (`exporter.loading.quantised_checkpoint`).

    Raises:
        CheckpointError: config.json says that they are in another.
    """
    settings = quantisation_of(config)
    problem = None if settings is None else quantisation_problem(settings)
    if problem is None:
        return
    raise CheckpointError(
        f"the weights of {files.id} are quantised ({problem})",
        "weights in fp32, bf16 or fp16, or by GPTQ or AWQ in 4 bits",
        "export the original model, with --bf16 or --int8",
    )
