"""One tower of CLIP, SigLIP and their kin: vectors of texts, images or sounds, as the whole model computes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import runtime
from exporter import ExportRequest, Report
from exporter.loading.loader import load_source
from runtime.errors import CheckpointError, InputTextError, TaskError

TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 300}
TEXT |= {"max_position_embeddings": 24, "pad_token_id": 1}
VISION = {key: TEXT[key] for key in TEXT if key not in ("vocab_size", "max_position_embeddings", "pad_token_id")}
VISION |= {"image_size": 32, "patch_size": 8}
ENDS = {"bos_token_id": 0, "eos_token_id": 1}
# CLIP's first checkpoints say 2, and read at the largest id of a row.
OLD_ENDS = {"bos_token_id": 0, "eos_token_id": 2}
TWO = {"vision_config": VISION, "projection_dim": 16}
AUDIO = {"depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 16, "hidden_size": 32}
AUDIO |= {"window_size": 4, "projection_dim": 16, "num_classes": 5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIPModel", TWO | {"text_config": TEXT | ENDS}),
    "clip of old": ("CLIPModel", TWO | {"text_config": TEXT | OLD_ENDS}),
    "siglip": ("SiglipModel", {"text_config": TEXT | ENDS | {"projection_size": 32}, "vision_config": VISION}),
    "chinese_clip": ("ChineseCLIPModel", TWO | {"text_config": TEXT}),
    "altclip": ("AltCLIPModel", TWO | {"text_config": TEXT | {"project_dim": 16, "max_position_embeddings": 26}}),
    "clipseg": ("CLIPSegModel", TWO | {"text_config": TEXT | ENDS}),
    "metaclip_2": ("MetaClip2Model", TWO | {"text_config": TEXT | ENDS}),
    "clap": (
        "ClapModel",
        {
            "text_config": TEXT | {"projection_dim": 16, "max_position_embeddings": 26},
            "audio_config": AUDIO,
            "projection_dim": 16,
        },
    ),
}
TEXTS = ["a photo of a cat", "two dogs run over the grass", "red", "the cat and the red car on the grass"]


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Marks the beginning and the end of a text, and pads with the end."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<s>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS * 5, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **({"model_max_length": 24} | named | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """The folder of a whole model with its tokenizer, and the model."""
    made: dict[str, tuple[Path, Any]] = {}

    def make(name: str) -> tuple[Path, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
            kind = getattr(transformers, MODELS[name][0])
            torch.manual_seed(3)
            model = kind(kind.config_class(**MODELS[name][1])).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
            model.save_pretrained(folder)
            own = {"model_input_names": ["input_ids"]} if name == "siglip" else {}
            tokenizer(**own).save_pretrained(folder)
            size = {"size": {"height": 32, "width": 32}, "image_processor_type": "ViTImageProcessor"}
            if name != "clap":
                (folder / "preprocessor_config.json").write_text(json.dumps(size))
            # Loading clears the rows of padding tokens in some of these models.
            made[name] = folder, kind.from_pretrained(folder).eval()
        return made[name]

    return make


def features(model: Any, method: str, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = getattr(model, method)(**inputs)
    vectors: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return vectors


def pixels(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [name for name in MODELS if name != "clap"])
def test_both_towers_together_are_the_whole_model(
    whole: Callable[[str], tuple[Path, Any]], exported: Callable[..., Report], name: str
) -> None:
    folder, model = whole(name)
    texts = exported(folder, task="text-embedding", backend="plain")
    images = exported(folder, task="image-embedding", backend="plain")
    own = tokenizer()(TEXTS, padding="max_length" if name == "siglip" else True, return_tensors="pt")
    inputs = dict(own) if name != "siglip" else {"input_ids": own["input_ids"]}
    inputs.pop("token_type_ids", None)
    session = runtime.load(texts.output)
    vectors = torch.stack(session.text.embed(TEXTS))
    torch.testing.assert_close(vectors, features(model, "get_text_features", **inputs), rtol=1e-4, atol=1e-5)
    for number, text in enumerate(TEXTS):
        torch.testing.assert_close(session.text.embed([text])[0], vectors[number], rtol=1e-4, atol=1e-5)
    found = runtime.load(images.output)(pixel_values=pixels(3))["image_embeds"]
    torch.testing.assert_close(
        found, features(model, "get_image_features", pixel_values=pixels(3)), rtol=1e-4, atol=1e-5
    )
    info = texts.manifest.embedding
    assert info is not None and info.scale is not None and info == images.manifest.embedding
    scores = session.text.similarity(found, vectors) * info.scale + (info.bias or 0)
    with torch.no_grad():
        expected = model(pixel_values=pixels(3), **inputs).logits_per_image
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    counts = [report.manifest.model.parameters for report in (texts, images)]
    comparing = sum(one.numel() for one in model.parameters(recurse=False))
    assert sum(counts) + comparing == sum(one.numel() for one in model.parameters())


def test_siglip_reads_its_padding(whole: Callable[[str], tuple[Path, Any]], exported: Callable[..., Report]) -> None:
    """Texts have one length, without a mask, as the published tokenizers pad them."""
    report = exported(whole("siglip")[0], task="text-embedding", backend="plain")
    (spec,) = report.manifest.inputs
    assert [(axis.name, axis.minimum, axis.maximum) for axis in spec.axes] == [("batch", 1, None), ("sequence", 24, 24)]
    session = runtime.load(report.output)
    assert session.text.encode(["red"])["input_ids"].shape == (1, 24)
    many = session.text.embed([f"red {number}" for number in range(90)])
    torch.testing.assert_close(many[7], session.text.embed(["red 7"])[0], rtol=1e-4, atol=1e-5)


def test_a_tokenizer_that_gives_a_mask_has_it_read(whole: Callable[[str], tuple[Path, Any]], tmp_path: Path) -> None:
    _, model = whole("siglip")
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    source = load_source(ExportRequest(str(tmp_path), "unused.pt", task="text-embedding"))
    assert source.text_padding is not None and source.text_padding.masked and source.text_padding.length == 24


def test_claps_towers(whole: Callable[[str], tuple[Path, Any]], exported: Callable[..., Report]) -> None:
    folder, model = whole("clap")
    texts = exported(folder, task="text-embedding", backend="plain")
    sounds = exported(folder, task="audio-embedding", backend="plain")
    own = tokenizer()(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    expected = features(model, "get_text_features", **own)
    torch.testing.assert_close(torch.stack(runtime.load(texts.output).text.embed(TEXTS)), expected)
    assert texts.manifest.embedding is not None and texts.manifest.embedding.normalized
    heard = torch.randn(2, 1, 1001, 64)
    found = runtime.load(sounds.output)(input_features=heard)["audio_embeds"]
    torch.testing.assert_close(found, features(model, "get_audio_features", input_features=heard))


@pytest.mark.parametrize("layout", ["0_CLIPModel", "current", "normalised"])
def test_clip_folders_of_sentence_transformers(
    whole: Callable[[str], tuple[Path, Any]], exported: Callable[..., Report], tmp_path: Path, layout: str
) -> None:
    """Without an option the part for texts, as `encode` gives it; --task image-embedding for pictures."""
    library = pytest.importorskip("sentence_transformers")
    images = pytest.importorskip("PIL.Image")
    folder = _library_folder(whole("clip")[1], tmp_path, layout)
    encoder = library.SentenceTransformer(str(folder), device="cpu")
    texts = exported(folder, backend="plain")
    assert texts.manifest.task == "text-embedding"
    assert any("--task image-embedding is the other" in choice for choice in texts.choices)
    session = runtime.load(texts.output)
    expected = encoder.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(torch.stack(session.text.embed(TEXTS)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(session.text.similarity(expected, expected), encoder.similarity(expected, expected))
    picture = images.fromarray(torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8).numpy())
    processor = transformers.AutoImageProcessor.from_pretrained(folder / ("0_CLIPModel" if layout[0] == "0" else ""))
    made = processor(picture, return_tensors="pt")["pixel_values"]
    seen = runtime.load(exported(folder, task="image-embedding", backend="plain").output)(pixel_values=made)
    expected = encoder.encode([picture], convert_to_tensor=True)
    torch.testing.assert_close(seen["image_embeds"], expected, rtol=1e-4, atol=1e-5)


def _library_folder(model: Any, folder: Path, layout: str) -> Path:
    inside = folder / "0_CLIPModel" if layout == "0_CLIPModel" else folder
    model.save_pretrained(inside)
    tokenizer().save_pretrained(inside)
    crop = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (inside / "preprocessor_config.json").write_text(json.dumps(crop | {"image_processor_type": "CLIPImageProcessor"}))
    package = "sentence_transformers.models"
    kind = "CLIPModel" if layout == "0_CLIPModel" else "Transformer"
    listed = [{"idx": 0, "name": "0", "path": inside.relative_to(folder).as_posix(), "type": f"{package}.{kind}"}]
    listed[0]["path"] = str(listed[0]["path"]).strip(".")
    if layout == "normalised":
        listed.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{package}.Normalize"})
        (folder / "1_Normalize").mkdir()
    (folder / "modules.json").write_text(json.dumps(listed))
    if layout != "0_CLIPModel":
        ways = {
            name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"}
            for name in ("text", "image")
        }
        settings = {"transformer_task": "feature-extraction", "modality_config": ways}
        settings["module_output_name"] = "sentence_embedding"
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


def test_siglip_in_a_folder_of_sentence_transformers_is_refused(
    whole: Callable[[str], tuple[Path, Any]], tmp_path: Path
) -> None:
    folder = _library_folder(whole("siglip")[1], tmp_path, "current")
    with pytest.raises(CheckpointError, match="names a siglip model, whose texts sentence-transformers pads"):
        load_source(ExportRequest(str(folder), "unused.pt"))


def test_a_model_without_towers_is_refused(tiny_folder: Callable[..., Path]) -> None:
    with pytest.raises(TaskError, match="'bert' has no class for text-embedding; expected one of its tasks: feature"):
        load_source(ExportRequest(str(tiny_folder()), "unused.pt", task="text-embedding"))


def test_texts_for_a_tower_of_images_are_refused(
    whole: Callable[[str], tuple[Path, Any]], exported: Callable[..., Report]
) -> None:
    session = runtime.load(exported(whole("clip")[0], task="image-embedding", backend="plain").output)
    with pytest.raises(InputTextError, match="needs a tokenizer, which this artifact does not have"):
        session.text.embed(["a"])
