"""Kinds of models beside plain text encoders: what goes in and comes out is derived, and the gate has passed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from exporter import Report
from runtime import load
from runtime.errors import BackendError, InputSizeError, InputValueError

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 300,
}
VISION = {key: value for key, value in TEXT.items() if key != "vocab_size"} | {"image_size": 32, "patch_size": 8}
BART = {
    "d_model": 32,
    "vocab_size": 300,
    "num_labels": 3,
    **{
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))
    },
}
AUDIO = VISION | {
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 30,
    "classifier_proj_size": 16,
}
CLIP_TEXT = TEXT | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

# Class, configuration, and what follows: the task, inputs with their axes, outputs with theirs.
KINDS: dict[str, tuple[str, dict[str, Any], str, str, str]] = {
    "choices": (
        "BertForMultipleChoice",
        TEXT,
        "multiple-choice",
        "input_ids [batch choices sequence], attention_mask [batch choices sequence], "
        "token_type_ids [batch choices sequence]",
        "logits [batch choices]",
    ),
    "next sentence": (
        "BertForNextSentencePrediction",
        TEXT,
        "next-sentence-prediction",
        "input_ids [batch sequence], attention_mask [batch sequence], token_type_ids [batch sequence]",
        "logits [batch label=2]",
    ),
    "encoder-decoder classifier": (
        "BartForSequenceClassification",
        BART,
        "text-classification",
        "input_ids [batch sequence], attention_mask [batch sequence]",
        "logits [batch label=3]",
    ),
    "image of one size": (
        "ViTForImageClassification",
        VISION,
        "image-classification",
        "pixel_values [batch channels=3 height=32 width=32]",
        "logits [batch label=2]",
    ),
    "image of any size": (
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]},
        "image-classification",
        "pixel_values [batch channels=3 height width]",
        "logits [batch label=2]",
    ),
    "image vectors": (
        "ViTModel",
        VISION,
        "image-feature-extraction",
        "pixel_values [batch channels=3 height=32 width=32]",
        "last_hidden_state [batch position=17 hidden=32], pooler_output [batch hidden=32]",
    ),
    "masked image": (
        "ViTForMaskedImageModeling",
        VISION | {"encoder_stride": 8},
        "masked-image-modeling",
        "pixel_values [batch channels=3 height=32 width=32], bool_masked_pos [batch patches=16]",
        "reconstruction [batch channels=3 row=32 column=32]",
    ),
    "both towers": (
        "CLIPModel",
        {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 16},
        "zero-shot-image-classification",
        "input_ids [texts sequence], pixel_values [batch channels=3 height=32 width=32], "
        "attention_mask [texts sequence]",
        "logits_per_image [batch texts], text_embeds [texts embedding=16], image_embeds [batch embedding=16]",
    ),
    "audio without a mask": (
        "Wav2Vec2ForSequenceClassification",
        AUDIO,
        "audio-classification",
        "input_values [batch samples]",
        "logits [batch label=2]",
    ),
    "audio with a mask": (
        "Wav2Vec2ForCTC",
        AUDIO | {"feat_extract_norm": "layer"},
        "automatic-speech-recognition",
        "input_values [batch samples], attention_mask [batch samples]",
        "logits [batch step vocabulary=30]",
    ),
    "speaker vectors": (
        "Wav2Vec2ForXVector",
        AUDIO | {"tdnn_dim": [16, 16, 16, 16, 48], "xvector_output_dim": 16},
        "audio-xvector",
        "input_values [batch samples]",
        "logits [batch label=16], embeddings [batch embedding=16]",
    ),
    "spectrogram": (
        "ASTForAudioClassification",
        {key: TEXT[key] for key in TEXT if key != "vocab_size"} | {"max_length": 64, "num_mel_bins": 32},
        "audio-classification",
        "input_values [batch frames=64 features=32]",
        "logits [batch label=2]",
    ),
}


@pytest.fixture(scope="module")
def kind_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of a kind as a folder with config.json and weights."""

    def make(name: str) -> Path:
        folder: Path = tmp_path_factory.getbasetemp() / "kinds" / name.replace(" ", "-")
        if not folder.exists():
            torch.manual_seed(5)
            model = getattr(transformers, KINDS[name][0])
            model(model.config_class(**KINDS[name][1])).eval().save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def kind(kind_folder: Callable[[str], Path], exported: Callable[..., Report]) -> Callable[[str], Report]:
    """An IPEX export of such a folder, no other option given."""
    return lambda name: exported(kind_folder(name), backend="ipex")


def described(specs: Any) -> str:
    """Names and axes, fixed ones with their size."""
    words = []
    for spec in specs:
        axes = [axis.name + (f"={axis.minimum}" if axis.minimum == axis.maximum else "") for axis in spec.axes]
        words.append(f"{spec.name} [{' '.join(axes)}]")
    return ", ".join(words)


@pytest.mark.parametrize("name", KINDS)
def test_everything_is_derived(name: str, kind: Callable[[str], Report]) -> None:
    _, _, task, inputs, outputs = KINDS[name]
    report = kind(name)
    assert report.manifest.task == task
    assert described(report.manifest.inputs) == inputs
    assert described(report.manifest.outputs) == outputs
    assert not any(choice.startswith("excluded") for choice in report.choices)
    batches = {point.shape["batch"] for point in report.manifest.verified}
    assert {1, 2, 3, 5} <= batches
    load(report.output)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("name", KINDS)
def test_every_head_in_fewer_bits(
    name: str, precision: str, kind_folder: Callable[[str], Path], exported: Callable[..., Report]
) -> None:
    """The gate compares with fp32; the own operators have both precisions on every processor."""
    if (name, precision) == ("image of any size", "int8"):
        with pytest.raises(BackendError, match="no linear for int8 in the model"):
            exported(kind_folder(name), backend="native", precision=precision)
        return
    report = exported(kind_folder(name), backend="native", precision=precision)
    manifest = report.manifest
    assert (manifest.task, manifest.precision, manifest.backend) == (KINDS[name][2], precision, "native")
    assert all(point.max_error <= manifest.tolerance.max_error for point in manifest.verified)
    load(report.output)


def test_an_end_token_in_every_row(kind: Callable[[str], Report]) -> None:
    session = load(kind("encoder-decoder classifier").output)
    good = torch.tensor([[5, 6, 2], [7, 2, 1]])
    assert session(input_ids=good)["logits"].shape == (2, 3)
    for bad in ([[5, 6, 7], [7, 2, 1]], [[5, 2, 2], [7, 2, 1]]):
        with pytest.raises(InputValueError, match=r"holds the id 2 \[.*\] times in its rows; expected it in every row"):
            session(input_ids=torch.tensor(bad))


def test_an_image_of_another_size_is_refused(kind: Callable[[str], Report]) -> None:
    session = load(kind("image of one size").output)
    with pytest.raises(InputSizeError, match="'pixel_values' has 64 along its height axis; expected 32 to 32"):
        session(pixel_values=torch.zeros(1, 3, 64, 32))
