"""Folders as their authors publish them, with tokenizer or processor files: exported with no option at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from exporter import Report
from runtime import load
from tests.test_kinds import AUDIO, CLIP_TEXT, TEXT, VISION

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", "a", "b", "c", "##a", "##b", "the", "word"]
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "c", "ab", "\u0120a", "\u0120b"]
LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5, "B": 6}
IMAGES = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_size": {"height": 32, "width": 32},
}
SOUND = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "return_attention_mask": True}
WORD_PIECES = {"vocab.txt": "\n".join(WORDS)}
BYTE_PAIRS = {
    "vocab.json": json.dumps({piece: number for number, piece in enumerate(PIECES)}),
    "merges.txt": "#version: 0.2\na b\n",
}


NARROW_IN_4 = transformers.__version__.startswith("4.")


def said(**content: Any) -> str:
    return json.dumps(content)


# Class, configuration, the files beside config.json and the weights, whether text goes in as text, and the inputs.
FOLDERS: dict[str, tuple[str, dict[str, Any], dict[str, str], bool, str]] = {
    "word pieces": (
        "ElectraForSequenceClassification",
        TEXT | {"embedding_size": 32},
        WORD_PIECES | {"tokenizer_config.json": said(tokenizer_class="ElectraTokenizer", model_max_length=64)},
        True,
        "input_ids attention_mask token_type_ids",
    ),
    "byte pairs": (
        "RobertaForSequenceClassification",
        TEXT | {"max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1},
        BYTE_PAIRS | {"tokenizer_config.json": said(tokenizer_class="RobertaTokenizer", model_max_length=64)},
        True,
        "input_ids attention_mask",
    ),
    # Tokenizers in Python, which have no form that a worker could read: tensors go in.
    "characters": (
        "CanineForSequenceClassification",
        {key: value for key, value in TEXT.items() if key != "vocab_size"},
        {"tokenizer_config.json": said(tokenizer_class="CanineTokenizer", model_max_length=2048)},
        False,
        "input_ids attention_mask token_type_ids",
    ),
    "tables": (
        "TapasForSequenceClassification",
        TEXT | {"num_aggregation_labels": 0},
        WORD_PIECES | {"tokenizer_config.json": said(tokenizer_class="TapasTokenizer", model_max_length=64)},
        False,
        "input_ids attention_mask token_type_ids",
    ),
    "an image processor": (
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]},
        {"preprocessor_config.json": json.dumps(IMAGES)},
        False,
        "pixel_values",
    ),
    "a tokenizer and an image processor": (
        "CLIPModel",
        {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 16},
        {"processor_config.json": said(image_processor=IMAGES, processor_class="CLIPProcessor")},
        False,
        "input_ids pixel_values attention_mask",
    ),
    "a feature extractor": (
        "Wav2Vec2ForCTC",
        AUDIO,
        {
            "preprocessor_config.json": json.dumps(SOUND),
            "vocab.json": json.dumps(LETTERS),
            "tokenizer_config.json": said(tokenizer_class="Wav2Vec2CTCTokenizer"),
        },
        False,
        "input_values attention_mask",
    ),
    "a joint processor": (
        "Wav2Vec2ForCTC",
        AUDIO,
        {"processor_config.json": said(feature_extractor=SOUND, processor_class="Wav2Vec2Processor")},
        False,
        "input_values attention_mask",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_exports_without_an_option(name: str, tmp_path: Path, exported: Callable[..., Report]) -> None:
    text, inputs = _published(name, tmp_path)
    report = exported(tmp_path)
    assert report.manifest.backend == "ipex"
    # CANINE and TAPAS of transformers 4 keep sizes in their traces: the session refuses the others.
    narrow = NARROW_IN_4 and name in ("characters", "tables")
    assert narrow or not any(choice.startswith("excluded") for choice in report.choices)
    assert " ".join(spec.name for spec in report.manifest.inputs) == inputs
    session = load(report.output)
    assert (report.manifest.text is not None) == text
    if text:
        assert session(**session.text.encode(["a ab", "b"]))["logits"].shape == (2, 2)


def test_the_size_of_images_is_the_processors(tmp_path: Path, exported: Callable[..., Report]) -> None:
    """Where the configuration has none: what it crops to, and not the usual 224."""
    _published("an image processor", tmp_path)
    verified = exported(tmp_path).manifest.verified
    assert {point.shape["height"] for point in verified} >= {32} and max(p.shape["height"] for p in verified) <= 48


def _published(name: str, folder: Path) -> tuple[bool, str]:
    """Write the folder; whether text goes in as text, and the inputs."""
    architecture, config, files, text, inputs = FOLDERS[name]
    torch.manual_seed(5)
    model = getattr(transformers, architecture)
    model(model.config_class(**config)).eval().save_pretrained(folder)
    for file, content in files.items():
        (folder / file).write_text(content)
    return text, inputs
