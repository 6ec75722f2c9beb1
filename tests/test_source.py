"""Loading a model: what is missing, untrusted or untrained is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from exporter import ExportRequest
from exporter.config.model_aliases import SHORT_NAMES
from exporter.loading.hub import locate
from exporter.loading.loader import Source, load_source
from exporter.loading.pooling import SentenceHead
from exporter.loading.task_selection import choose_task
from exporter.loading.weights import digest
from runtime.errors import (
    CheckpointError,
    HubUnreachableError,
    ModelNotFoundError,
    NewHeadError,
    PickledWeightsError,
    RemoteCodeError,
    TaskError,
)
from tests.conftest import tiny_model

Folder = Callable[..., Path]
Copy = Callable[[Path], Path]


def load(model: object, **options: Any) -> Source:
    return load_source(ExportRequest(str(model), "unused.pt", **options))


@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        ("bert", "fill-mask"),
        ("roberta", "text-classification"),
        ("distilbert", "token-classification"),
        ("bert", "question-answering"),
        ("bert", "feature-extraction"),
    ],
)
def test_the_task_follows_the_architecture(tiny_folder: Folder, model_type: str, task: str) -> None:
    source = load(tiny_folder(model_type, task))
    assert source.task.name == task
    assert "config.json names the architecture" in source.task_reason
    assert not source.model.training
    assert all(parameter.dtype == torch.float32 for parameter in source.model.parameters())


def test_a_sentence_transformers_folder(minilm: Path) -> None:
    source = load(minilm)
    assert source.task.name == "sentence-embedding" and "modules.json" in source.task_reason
    assert isinstance(source.sentence_head, SentenceHead)
    assert source.sentence_head.pooling.modes == ("mean",)
    assert [type(module).__name__ for module in source.sentence_head.behind] == ["Normalize"]
    assert source.tokenizer.info is not None and source.tokenizer.info.max_length == 256
    assert not any(name.startswith("pooler.") for name, _ in source.model.named_parameters())


def test_weights_saved_in_bf16_are_loaded_as_fp32(tmp_path: Path) -> None:
    model = tiny_model("bert", "text-classification").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert next(load(tmp_path).model.parameters()).dtype == torch.float32


def test_the_digest_changes_with_one_weight(tiny_folder: Folder) -> None:
    model = load(tiny_folder()).model
    before = digest(model)
    assert digest(load(tiny_folder()).model) == before
    with torch.no_grad():
        next(model.parameters()).flatten()[0].add_(1e-3)
    assert digest(model) != before


@pytest.mark.parametrize("model", ["./nothing/here", "/nothing/here", "a/b/c", "~/nothing/here", __file__])
def test_no_such_model(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match="config.json"):
        load(model)


@pytest.mark.parametrize("model", ["bert-base", "somebody/some-model"])
def test_the_hub_cannot_be_reached(model: str, tmp_path: Path) -> None:
    with pytest.raises(HubUnreachableError, match=r"give a folder instead .* --random-weights"):
        load(model, local_files_only=True, cache_dir=tmp_path)


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("model", ["nothere/", "./nothere", "my models", "a/b/c"])
def test_a_path_that_does_not_exist_is_no_hub_id(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"there is no folder {model}"):
        locate(ExportRequest(model, "m.pt"))


def test_a_folder_of_a_gguf_file_alone(tmp_path: Path) -> None:
    (tmp_path / "tiny-q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"no config\.json, and tiny-q8_0\.gguf; .*give --gguf tiny-q8_0\.gguf"):
        load(tmp_path)


def test_a_model_of_timm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet50", "pretrained_cfg": {}}')
    with pytest.raises(CheckpointError, match=r"is of the library timm; expected a model of transformers"):
        load(tmp_path)


def test_a_model_that_writes_texts(tiny_folder: Folder, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder())
    config = {"model_type": "vision-encoder-decoder", "architectures": ["VisionEncoderDecoderModel"]}
    parts = {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "trocr"}}
    (folder / "config.json").write_text(json.dumps(config | parts))
    with pytest.raises(TaskError, match=r"no task for the model type 'vision-encoder-decoder'; .*save the encoder"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "null", '{"model_type": "no-such-type"}'])
def test_a_damaged_configuration(tiny_folder: Folder, copy_of: Copy, content: str) -> None:
    folder = copy_of(tiny_folder())
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "big"),
        ("hidden_act", "foo"),
        ("id2label", ["a", "b"]),
        ("architectures", [5]),
        ("architectures", "BertForSequenceClassification"),
        ("auto_map", ["x"]),
        ("hidden_size", 128),
        ("num_hidden_layers", 3),
    ],
)
def test_a_field_that_makes_no_sense(tiny_folder: Folder, copy_of: Copy, field: str, value: Any) -> None:
    folder = copy_of(tiny_folder())
    config = json.loads((folder / "config.json").read_text()) | {field: value}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        load(folder)


def test_weights_that_find_no_place_are_named(tiny_folder: Folder, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder())
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    assert "16 weights of the checkpoint not used (bert.encoder.layer.1." in load(folder).summary


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_pickle_that_holds_no_weights(tiny_folder: Folder, copy_of: Copy, content: bytes | None) -> None:
    folder = copy_of(tiny_folder())
    (folder / "model.safetensors").unlink()
    if content is None:
        torch.save([1, 2], folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError):
        load(folder, allow_pickle=True)


@pytest.mark.parametrize("length", [-3, 2, 12.5, "abc"])
def test_a_length_that_makes_no_sense(minilm: Path, copy_of: Copy, length: Any) -> None:
    folder = copy_of(minilm)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    with pytest.raises(CheckpointError, match="max_seq_length"):
        load(folder)


def test_a_tokenizer_that_knows_more_than_the_model(tiny_folder: Folder, copy_of: Copy, minilm: Path) -> None:
    folder = copy_of(tiny_folder())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(minilm / name, folder / name)
    assert "it knows ids up to 30521, the model only 300" in load(folder).tokenizer.note


def test_a_folder_without_weights(tiny_folder: Folder, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder())
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights; expected model\.safetensors; .*--random-weights"):
        load(folder)


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_weights_cut_short(tiny_folder: Folder, copy_of: Copy, size: int) -> None:
    folder = copy_of(tiny_folder())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(CheckpointError):
        load(folder)


def test_pickled_weights_need_a_flag(tiny_folder: Folder, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder())
    expected = load(folder)
    torch.save(expected.model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(PickledWeightsError, match="--allow-pickle if you trust the file: unpickling runs the code"):
        load(folder)
    assert digest(load(folder, allow_pickle=True).model) == digest(expected.model)


def test_a_models_own_code_needs_a_flag(tiny_folder: Folder, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder())
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('ran foreign code')")
    with pytest.raises(RemoteCodeError, match="--trust-remote-code"):
        load(folder)


def nomic_config(**keys: Any) -> Any:
    """As nomic-ai/nomic-embed-text-v1.5 has it, with the sizes that are transformers' defaults."""
    published = {
        "auto_map": {
            "AutoConfig": "nomic-ai/code--configuration.NomicBertConfig",
            "AutoModel": "nomic-ai/code--m.NomicBertModel",
        },
        "architectures": ["NomicBertModel"],
        "activation_function": "swiglu",
        "n_embd": 768,
        "n_inner": 3072,
        "n_positions": 8192,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_scaling_factor": None,
    }
    return AutoConfig.for_model("nomic_bert", **published | keys)


@pytest.mark.skipif("nomic_bert" not in CONFIG_MAPPING, reason="transformers has no such class")
def test_code_that_transformers_has_taken_over_is_not_needed() -> None:
    assert choose_task(nomic_config(), "feature-extraction", None)[0].name == "feature-extraction"
    for keys, told in (
        ({"rotary_scaling_factor": 2}, "its key rotary_scaling_factor is 2, where transformers' class has None"),
        ({"n_embd": 512}, "its key n_embd is 512, where transformers' class has 768"),
        (
            {"expert_choice_router": True},
            "its key expert_choice_router says something that transformers' class does not",
        ),
    ):
        with pytest.raises(RemoteCodeError, match=f"{told}.*--trust-remote-code"):
            choose_task(nomic_config(**keys), "feature-extraction", None)


def test_a_task_that_the_type_has_no_class_for(tiny_folder: Folder) -> None:
    folder = tiny_folder("t5", "feature-extraction", d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2)
    with pytest.raises(
        TaskError, match=r"'t5' has no class for fill-mask; expected one of its tasks: .*question-answering"
    ):
        load(folder, task="fill-mask")


def test_a_head_that_the_checkpoint_lacks(tiny_folder: Folder) -> None:
    folder = tiny_folder("bert", "fill-mask")
    message = (
        r"lacks bert\.pooler\.dense\.bias.*and 1 more, which text-classification needs.*"
        r"this one has feature-extraction, fill-mask.*--allow-new-head"
    )
    with pytest.raises(NewHeadError, match=message):
        load(folder, task="text-classification")
    source = load(folder, task="text-classification", allow_new_head=True)
    assert source.task.name == "text-classification"


def test_an_untrained_pooler_is_left_out(tiny_folder: Folder) -> None:
    """A fill-mask checkpoint has no pooler: with one of random weights the answers would be noise."""
    source = load(tiny_folder("bert", "fill-mask"), task="feature-extraction")
    assert source.model.pooler is None


def test_a_trained_pooler_is_kept(tiny_folder: Folder) -> None:
    assert load(tiny_folder("bert", "feature-extraction")).model.pooler is not None


def test_no_task_follows_from_the_configuration(tiny_folder: Folder, copy_of: Copy) -> None:
    folder = copy_of(tiny_folder())
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TaskError, match="--task with one of"):
        load(folder)


def test_sentence_embedding_needs_to_know_the_pooling(tiny_folder: Folder) -> None:
    with pytest.raises(TaskError, match=r"no modules\.json"):
        load(tiny_folder("bert", "feature-extraction"), task="sentence-embedding")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "{", "cannot read"),
        ("modules.json", '[{"path": "", "type": "sentence_transformers.models.Dense"}]', "lists Dense"),
        ("modules.json", "[1]", "is damaged"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense"}]', "a module at None"),
        ("modules.json", '[{"path": "../x", "type": "sentence_transformers.models.Dense"}]', "a module at '../x'"),
        ("modules.json", "[]", "lists nothing"),
        ("modules.json", "[" * 100_000, "cannot read"),
        ("1_Pooling/config.json", '{"pooling_mode": 5}', "asks for pooling 5"),
        ("1_Pooling/config.json", '{"pooling_mode": "mean_sqrt_len"}', "asks for pooling 'mean_sqrt_len'"),
        ("1_Pooling/config.json", "null", "has no 1_Pooling/config.json"),
        ("1_Pooling/config.json", "{}", "asks for pooling"),
    ],
)
def test_a_sentence_head_that_is_not_understood(
    minilm: Path, copy_of: Copy, name: str, content: str, message: str
) -> None:
    folder = copy_of(minilm)
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_folder_without_a_tokenizer_says_so(tiny_folder: Folder) -> None:
    part = load(tiny_folder()).tokenizer
    assert (part.content, part.info) == (None, None) and "no tokenizer" in part.note


def test_a_damaged_tokenizer_is_refused(minilm: Path, copy_of: Copy) -> None:
    folder = copy_of(minilm)
    shutil.copy(minilm / "config.json", folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match="the tokenizer of copy-model cannot be loaded"):
        load(folder)


def test_a_tokenizer_without_a_vocabulary_is_refused(minilm: Path, copy_of: Copy) -> None:
    """transformers 5 makes one in which every word is unknown, without a word; 4 looks for other files and fails."""
    folder = copy_of(minilm)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match="the tokenizer of copy-model (has no vocabulary|cannot be loaded)"):
        load(folder)


def test_a_tokenizer_made_from_its_vocabulary(minilm: Path, copy_of: Copy) -> None:
    folder = copy_of(minilm)
    (folder / "tokenizer.json").unlink()
    assert load(folder).tokenizer.content is not None


@pytest.mark.parametrize(
    ("model_type", "config", "longest"),
    [
        ("bert", {"max_position_embeddings": 40}, 40),
        # RoBERTa counts positions from its padding id, 1, on: 514 rows hold 512 tokens.
        ("roberta", {"max_position_embeddings": 514}, 512),
        ("deberta-v2", {"max_position_embeddings": 0, "relative_attention": True}, None),
    ],
)
def test_the_longest_sequence(
    tiny_folder: Folder, model_type: str, config: dict[str, Any], longest: int | None
) -> None:
    assert load(tiny_folder(model_type, "text-classification", **config)).longest_sequence == longest


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({"num_labels": 3}, "softmax"),
        ({"num_labels": 1}, "sigmoid"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "sigmoid"),
        ({"num_labels": 1, "problem_type": "regression"}, "none"),
    ],
)
def test_the_activation_follows_the_problem_type(tiny_folder: Folder, config: dict[str, Any], activation: str) -> None:
    source = load(tiny_folder("bert", "text-classification", **config))
    assert source.activation == activation and len(source.labels) == config["num_labels"]


def test_random_weights_are_seeded_and_never_silent() -> None:
    one, two, three = (load("minilm", random_weights=True, task="fill-mask", seed=seed) for seed in (1, 1, 2))
    assert one.info.weights_sha256 == two.info.weights_sha256 != three.info.weights_sha256
    assert one.info.random_weights and "random weights" in one.summary


@pytest.mark.parametrize("name", sorted(SHORT_NAMES))
def test_every_short_name_has_a_configuration_that_transformers_knows(name: str) -> None:
    from transformers import AutoConfig

    from exporter.loading.task_selection import choose_task

    short = SHORT_NAMES[name]
    config = AutoConfig.for_model(short.model_type, **short.config)
    config.architectures = [short.architecture]
    task, _ = choose_task(config, "auto", None)
    assert task.name in ("fill-mask", "feature-extraction")
