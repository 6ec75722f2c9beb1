"""A model type that neither this project nor transformers has ever seen exports by derivation alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from runtime import load, read_manifest
from runtime.errors import InputSizeError
from tests.conftest import BIN, run

# A text encoder whose mixing of tokens, names and sizes are nobody else's.
CONFIGURATION = """
from transformers import PretrainedConfig

class LoomConfig(PretrainedConfig):
    model_type = "loom"

    def __init__(self, vocab_size=211, width=48, strands=2, max_position_embeddings=96, type_vocab_size=3, **others):
        self.vocab_size, self.width, self.strands = vocab_size, width, strands
        self.max_position_embeddings, self.type_vocab_size = max_position_embeddings, type_vocab_size
        super().__init__(**others)
"""
TEXT = """
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput
from .configuration_loom import LoomConfig

class LoomForTokenClassification(PreTrainedModel):
    config_class = LoomConfig

    def __init__(self, config):
        super().__init__(config)
        self.token = torch.nn.Embedding(config.vocab_size, config.width)
        self.place = torch.nn.Embedding(config.max_position_embeddings, config.width)
        self.segment = torch.nn.Embedding(config.type_vocab_size, config.width)
        self.strands = torch.nn.ModuleList(torch.nn.Linear(config.width, config.width) for _ in range(config.strands))
        self.norm = torch.nn.LayerNorm(config.width)
        self.classifier = torch.nn.Linear(config.width, config.num_labels)
        self.post_init()

    def get_input_embeddings(self):
        return self.token

    def forward(self, input_ids, token_type_ids=None, attention_mask=None, labels=None):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        threads = self.token(input_ids) + self.place(places) + self.segment(token_type_ids)
        real = attention_mask.unsqueeze(-1).to(threads.dtype)
        for strand in self.strands:
            woven = (threads * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
            threads = self.norm(threads + torch.nn.functional.gelu(strand(threads - woven)))
        return TokenClassifierOutput(logits=self.classifier(threads))
"""
IMAGE = """
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from .configuration_loom import LoomConfig

class LoomForImageClassification(PreTrainedModel):
    config_class = LoomConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.patches = torch.nn.Conv2d(3, config.width, 5, stride=3)
        self.classifier = torch.nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, labels=None):
        seen = torch.relu(self.patches(pixel_values)).amax(dim=(2, 3))
        return ImageClassifierOutput(logits=self.classifier(seen))
"""


def loom(folder: Path, source: str, architecture: str, auto: str, preprocessor: object = None) -> torch.nn.Module:
    """The folder that its author would publish, and the model in it."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    folder.mkdir()
    (folder / "configuration_loom.py").write_text(CONFIGURATION)
    (folder / "modeling_loom.py").write_text(source)
    said = {
        "model_type": "loom",
        "architectures": [architecture],
        "auto_map": {"AutoConfig": "configuration_loom.LoomConfig", auto: f"modeling_loom.{architecture}"},
        "id2label": {"0": "warp", "1": "weft", "2": "selvedge"},
    }
    (folder / "config.json").write_text(json.dumps(said))
    if preprocessor is not None:
        (folder / "processor_config.json").write_text(json.dumps(preprocessor))
    kind = get_class_from_dynamic_module(f"modeling_loom.{architecture}", str(folder))
    config = kind.config_class.from_pretrained(folder)
    torch.manual_seed(11)
    model: torch.nn.Module = kind(config).eval()
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return model


def exported(folder: Path, output: Path) -> None:
    command = [BIN / "export-model", folder, "-o", output]
    refused = run(command)
    assert refused.returncode == 1 and "--trust-remote-code" in refused.stderr and not output.exists()
    done = run([*command, "--trust-remote-code"])
    assert done.returncode == 0, done.stderr


def test_a_text_encoder(tmp_path: Path) -> None:
    model = loom(tmp_path / "loom", TEXT, "LoomForTokenClassification", "AutoModelForTokenClassification")
    exported(tmp_path / "loom", tmp_path / "out.pt")
    manifest = read_manifest(tmp_path / "out.pt")
    assert (manifest.task, manifest.model.type, manifest.labels) == (
        "token-classification",
        "loom",
        ("warp", "weft", "selvedge"),
    )
    inputs = {spec.name: (spec.values.maximum, spec.axes[1].maximum) for spec in manifest.inputs if spec.values}
    assert inputs == {"input_ids": (210, 96), "token_type_ids": (2, 96), "attention_mask": (1, 96)}
    session = load(tmp_path / "out.pt")
    for batch, length in [(1, 7), (4, 31), (2, 96)]:
        ids, types = torch.randint(211, (batch, length)), torch.randint(3, (batch, length))
        mask = (torch.arange(length) < length - 3).long().expand(batch, length)
        with torch.no_grad():
            expected = model(input_ids=ids, token_type_ids=types, attention_mask=mask).logits
        found = session(input_ids=ids, token_type_ids=types, attention_mask=mask)["logits"]
        assert torch.allclose(found, expected, atol=1e-4), (batch, length)
    with pytest.raises(InputSizeError, match="97"):
        session(input_ids=torch.zeros(1, 97, dtype=torch.long))


def test_an_image_model_whose_size_only_its_processor_says(tmp_path: Path) -> None:
    processor = {"image_processor": {"size": {"height": 60, "width": 72}}, "processor_class": "LoomProcessor"}
    model = loom(
        tmp_path / "loom",
        IMAGE,
        "LoomForImageClassification",
        "AutoModelForImageClassification",
        preprocessor=processor,
    )
    exported(tmp_path / "loom", tmp_path / "out.pt")
    manifest = read_manifest(tmp_path / "out.pt")
    assert manifest.task == "image-classification"
    assert [(axis.name, axis.minimum, axis.maximum) for axis in manifest.inputs[0].axes[2:]] == [
        ("height", 30, 90),
        ("width", 36, 108),
    ]
    session = load(tmp_path / "out.pt")
    for batch, height, width in [(1, 60, 72), (3, 41, 90), (2, 77, 39)]:
        pixels = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = model(pixel_values=pixels).logits
        assert torch.allclose(session(pixel_values=pixels)["logits"], expected, atol=1e-4)
