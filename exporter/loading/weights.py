"""Load a model with its weights in fp32: from safetensors, plain or quantised to 4 bits, or seeded random ones.

Pickles and missing weights are refused unless the request allows them.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Collection
from typing import Any

import torch
import transformers

from exporter.config.request import ExportRequest
from exporter.config.tasks import Task
from exporter.loading.hub import ModelFiles
from exporter.loading.quantised_checkpoint import quantisation_of, read_quantised
from exporter.loading.task_selection import encoder_alone, tasks_of_checkpoint
from exporter.loading.weight_codes import Codes
from exporter.loading.weight_files import check_weight_files
from runtime.errors import CheckpointError, NewHeadError
from runtime.host.requirements import minor

# The argument that fixes the dtype: renamed in transformers 4.56, where the default became the file's own.
_DTYPE = "dtype" if minor(transformers.__version__) >= (4, 56) else "torch_dtype"


def load_model(
    files: ModelFiles,
    config: Any,
    task: Task,
    request: ExportRequest,
    attention: str,
    supplied: Collection[str] = (),
) -> tuple[Any, tuple[str, ...], tuple[Codes, ...]]:
    """The model in fp32 and evaluation mode, the names of the checkpoint's weights that it does not use, and its codes.

    `supplied` are weights that the checkpoint may lack, because an adapter has them.

    Raises:
        CheckpointError, PickledWeightsError, NewHeadError
    """
    encoder = encoder_alone(config, task)
    auto_class = getattr(transformers, encoder or task.auto_class)
    options: dict[str, Any] = {"attn_implementation": attention, _DTYPE: torch.float32}
    if request.random_weights:
        torch.manual_seed(request.seed)
        with files.named_errors():
            if encoder:
                return auto_class._from_config(config, **options).eval(), (), ()
            options["trust_remote_code"] = request.trust_remote_code
            return auto_class.from_config(config, **options).eval(), (), ()
    if files.gguf is None:
        check_weight_files(files, request.allow_pickle)
    options |= {
        "trust_remote_code": request.trust_remote_code,
        "config": config,
        "output_loading_info": True,
        "use_safetensors": None if request.allow_pickle or files.gguf is not None else True,
    }
    codes: tuple[Codes, ...] = ()
    quantisation = None if files.gguf is not None else quantisation_of(config)
    if quantisation is not None:
        weights = read_quantised(files, quantisation)
        codes = weights.codes
        config = copy.deepcopy(config)
        # What was quantised is in fp32 now, and the tensors stand in the place of the folder.
        del config.quantization_config
        options |= {"config": config, "state_dict": weights.tensors, "use_safetensors": None}
        # The class itself: the Auto class looks for a folder.
        with files.named_errors(), torch.device("meta"):
            auto_class = type(auto_class.from_config(config, trust_remote_code=request.trust_remote_code))
        files = dataclasses.replace(files, reference=None, options={})  # type: ignore[arg-type]
    found, missing = _load_complete(files, auto_class, task, options, supplied)
    if found is None:
        if not request.allow_new_head:
            raise _incomplete(files, config, task, missing)
        torch.manual_seed(request.seed)
        found = files.load(auto_class, **options)
    model, loading = found
    if files.gguf is not None:
        # What was quantised is in fp32 now.
        del model.config.quantization_config
    return model.eval(), tuple(sorted(loading["unexpected_keys"])), codes


def _load_complete(
    files: ModelFiles, auto_class: Any, task: Task, options: dict[str, Any], supplied: Collection[str]
) -> tuple[tuple[Any, dict[str, Any]] | None, list[str]]:
    """The model and what transformers says about loading it; or None, and the weights that the checkpoint lacks."""
    without_pooler = {"add_pooling_layer": False}
    # A sentence head pools the token vectors itself; the model's own pooler would be dead weight.
    pools = task.pooled and task.auto_class == "AutoModel"
    attempts: list[dict[str, Any]] = [without_pooler, {}] if pools else [{}, without_pooler]
    first_missing: list[str] = []
    for extra in attempts:
        try:
            model, loading = files.load(auto_class, **options, **extra)
        except CheckpointError as error:
            if extra and "unexpected keyword argument 'add_pooling_layer'" in str(error):
                continue  # this architecture has no pooler to leave out
            raise
        missing = sorted(set(loading["missing_keys"]) - set(supplied))
        if not missing:
            return (model, loading), []
        first_missing = first_missing or missing
        # Checkpoints of other heads lack the pooler, which feature extraction does not need.
        if task.auto_class != "AutoModel" or not all(name.startswith("pooler.") for name in missing):
            break
    return None, first_missing


def _incomplete(files: ModelFiles, config: Any, task: Task, missing: list[str]) -> CheckpointError | NewHeadError:
    """The error for a checkpoint without some of the model's weights."""
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    trained_for = tasks_of_checkpoint(config)
    if task.name in trained_for and task.auto_class != "AutoModel":
        return CheckpointError(
            f"the checkpoint of {files.id} lacks {shown}",
            "weights for all that config.json describes",
            "copy both again",
        )
    return NewHeadError(
        f"the checkpoint of {files.id} lacks {shown}, which {task.name} needs",
        f"a checkpoint trained for it; this one has {', '.join(trained_for)}",
        "choose one of these as --task, or give --allow-new-head to ship untrained weights",
    )


def digest(model: torch.nn.Module, head: torch.nn.Module | None = None) -> str:
    """Hexadecimal SHA-256 over name, dtype, shape and bytes of every tensor of the state dict, by name.

    Weights of a sentence head count too, as `head.` and their name.
    """
    tensors = dict(model.state_dict())
    tensors |= {f"head.{name}": tensor for name, tensor in (head.state_dict() if head is not None else {}).items()}
    result = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        result.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        result.update(
            memoryview(tensor.detach().contiguous().flatten().view(torch.uint8).numpy()) if tensor.numel() else b""
        )
    return result.hexdigest()
