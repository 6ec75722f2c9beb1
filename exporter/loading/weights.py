"""Load the weights: from safetensors, or seeded random ones.

In: location, configuration, task, request. Out: a model in fp32 and evaluation mode, with the digest of its
weights. Refuses pickles and missing weights unless the request allows them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import transformers

from exporter.config.request import ExportRequest
from exporter.config.tasks import Task
from exporter.loading.hub import Location, translated
from exporter.loading.task_selection import encoder_alone, tasks_of_checkpoint
from exporter.loading.weight_files import check_weight_files
from runtime.errors import CheckpointError, NewHeadError
from runtime.host.requirements import minor

# The argument that fixes the dtype: renamed in transformers 4.56, where the default became the file's own.
_DTYPE = "dtype" if minor(transformers.__version__) >= (4, 56) else "torch_dtype"


def load_model(
    location: Location, config: Any, task: Task, request: ExportRequest, attention: str
) -> tuple[Any, tuple[str, ...]]:
    """The model, and the checkpoint's weights that it has no place for.

    The model is in fp32 and evaluation mode. `attention` is `eager`, written out, or `sdpa`, PyTorch's operator.

    Raises:
        CheckpointError, PickledWeightsError, NewHeadError
    """
    alone = encoder_alone(config, task)
    auto = getattr(transformers, alone or task.auto_class)
    common = {"attn_implementation": attention, "trust_remote_code": request.trust_remote_code, _DTYPE: torch.float32}
    if request.random_weights:
        torch.manual_seed(request.seed)
        with translated(location):
            if alone:
                return auto._from_config(config, attn_implementation=attention, **{_DTYPE: torch.float32}).eval(), ()
            return auto.from_config(config, **common).eval(), ()
    check_weight_files(location, request.allow_pickle)
    common |= {"config": config, "output_loading_info": True, "use_safetensors": None if request.allow_pickle else True}
    # A sentence head pools the token vectors itself; the model's own pooler would be dead weight.
    attempts: list[dict[str, Any]] = (
        [{"add_pooling_layer": False}, {}] if task.pooled else [{}, {"add_pooling_layer": False}]
    )
    missing: list[str] = []
    for extra in attempts:
        try:
            with translated(location):
                model, loading = auto.from_pretrained(location.reference, **location.options, **common, **extra)
        except CheckpointError as error:
            if extra and "unexpected keyword argument 'add_pooling_layer'" in str(error):
                continue  # this architecture has no pooler to leave out
            raise
        now_missing = sorted(loading["missing_keys"])
        if not now_missing:
            return model.eval(), tuple(sorted(loading["unexpected_keys"]))
        missing = missing or now_missing
        # Checkpoints of other heads lack the pooler, which feature extraction can do without.
        if task.auto_class != "AutoModel" or not all(name.startswith("pooler.") for name in now_missing):
            break
    if not request.allow_new_head:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        has = tasks_of_checkpoint(config)
        if task.name in has and task.auto_class != "AutoModel":
            raise CheckpointError(
                f"the checkpoint of {location.id} lacks {shown}",
                "weights for all that config.json describes",
                "copy both again",
            )
        raise NewHeadError(
            f"the checkpoint of {location.id} lacks {shown}, which {task.name} needs",
            f"a checkpoint trained for it; this one has {', '.join(has)}",
            "choose one of these as --task, or give --allow-new-head to ship untrained weights",
        )
    torch.manual_seed(request.seed)
    with translated(location):
        model, loading = auto.from_pretrained(location.reference, **location.options, **common)
    return model.eval(), tuple(sorted(loading["unexpected_keys"]))


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
