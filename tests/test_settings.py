"""Model folders are read whole: each setting is kept to, as the library's own code does, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from exporter import ExportRequest, Report
from exporter.loading import known_settings
from exporter.loading.loader import Source, load_source
from exporter.loading.pooling import SentenceHead
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import make_plan
from exporter.tracing.adapter import adapt
from runtime import load
from runtime.errors import CheckpointError, PickledWeightsError, RemoteCodeError, RequestError, TaskError
from runtime.text import TextEncoder
from runtime.text.classification import SCORES
from tests.conftest import BIN, ROOT, byte_level, run, tiny_model

TEXTS = [
    "Permission is hereby granted",
    "The SOFTWARE is provided AS IS, Москва — naïve? 東京 🙂",
    "x",
    " two  spaces and a [MASK] <mask> </s> ",
    "of any person obtaining a copy of this software and associated documentation files " * 12,
]
SIZES = {
    "vocab_size": 400,
    "max_position_embeddings": 258,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "initializer_range": 0.3,
}
LIBRARY = "sentence_transformers.models."
ARCHIVE = "config_sentence_transformers.json"
TANH = "torch.nn.modules.activation.Tanh"


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))


def modules(*kinds: str, path: str = "") -> list[dict[str, Any]]:
    """modules.json: the transformer, then a module of each kind, or of a full name, in `<number>_<Kind>`."""
    return [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind.rpartition('.')[2]}" if i else path,
            "type": kind if "." in kind else LIBRARY + kind,
        }
        for i, kind in enumerate(kinds)
    ]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tokenizer that tells cases apart; texts of 256 tokens at most."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model("roberta", "feature-extraction", **SIZES).save_pretrained(folder)
    byte_level(folder)
    return folder


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """The base model as a sentence-transformers folder with the files given; `inside` is the transformer's folder."""

    def make(files: dict[str, Any], *kinds: str, inside: str = "", pooling: bool = True) -> Path:
        (tmp_path / inside).mkdir(exist_ok=True)
        for file in base.iterdir():
            (tmp_path / inside / file.name).symlink_to(file)
        usual = {"modules.json": modules("Transformer", "Pooling", *kinds, path=inside)}
        usual |= {"1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode": "mean"}} if pooling else {}  # type: ignore[dict-item]
        # A pooling that is given replaces the usual one.
        write(tmp_path, usual | files)
        for i, kind in enumerate(kinds, 2):
            weights(tmp_path / f"{i}_{kind}", kind)
        return tmp_path

    return make


def weights(place: Path, kind: str) -> None:
    """Seeded weights of a module behind the pooling, where its configuration says so."""
    said = json.loads((place / "config.json").read_text()) if (place / "config.json").exists() else {}
    generator = torch.Generator().manual_seed(3)
    made = {}
    if kind == "Dense":
        made["linear.weight"] = torch.randn(said["out_features"], said["in_features"], generator=generator) * 0.3
        if said.get("bias", True):
            made["linear.bias"] = torch.randn(said["out_features"], generator=generator)
    if kind == "LayerNorm":
        made = {"norm.weight": torch.randn(32, generator=generator), "norm.bias": torch.randn(32, generator=generator)}
    if made:
        save_file(made, place / "model.safetensors")


def source_of(folder: Path, **options: Any) -> Source:
    return load_source(ExportRequest(str(folder), "unused.pt", **options))


def outputs(source: Source, texts: list[Any]) -> torch.Tensor:
    """The first output for texts in one batch, tokens made by what a file carries, before any backend."""
    plan = make_plan(source, ExportRequest("unused", "unused.pt"))
    adapter = adapt(source, plan, make_inputs(plan, plan.example))
    assert source.tokenizer.content is not None and source.tokenizer.info is not None
    encoder = TextEncoder(source.tokenizer.content, source.tokenizer.info, adapter.inputs)
    made: list[Any] = encoder.tokens(texts, truncate=True)
    with torch.no_grad():
        found: torch.Tensor = adapter(**encoder.tensors(made))[0]
    return found


def dense(**more: Any) -> dict[str, Any]:
    return {"2_Dense/config.json": {"in_features": 32, "out_features": 8, "activation_function": TANH} | more}


def legacy(*modes: str) -> dict[str, Any]:
    return {"1_Pooling/config.json": {"word_embedding_dimension": 32} | {f"pooling_mode_{m}": True for m in modes}}


# Files of the folder, and the modules behind the pooling.
FOLDERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    **{
        f"settings named after {kind}": ({f"sentence_{kind}_config.json": {"max_seq_length": 21} | case}, ())
        for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
        for case in ({"do_lower_case": kind != "albert"},)
    },
    "an empty settings file before a full one": (
        {"sentence_bert_config.json": {}, "sentence_xlnet_config.json": {"max_seq_length": 30}},
        (),
    ),
    "two settings files": (
        {"sentence_bert_config.json": {"max_seq_length": 50}, "sentence_roberta_config.json": {"max_seq_length": 30}},
        (),
    ),
    "no length": ({"sentence_bert_config.json": {"max_seq_length": None, "do_lower_case": False}}, ()),
    "a length for the tokenizer": (
        {"sentence_bert_config.json": {"max_seq_length": 80, "tokenizer_args": {"model_max_length": 40}}},
        (),
    ),
    "arguments that change nothing": (
        {"sentence_bert_config.json": {"model_args": {"torch_dtype": "float16"}, "config_args": {}, "backend": "onnx"}},
        (),
    ),
    "a settings file of today": (
        {
            "sentence_bert_config.json": {
                "transformer_task": "feature-extraction",
                "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
                "module_output_name": "token_embeddings",
            }
        },
        (),
    ),
    "joined poolings in the library's order": (
        legacy("mean_tokens", "cls_token", "lasttoken", "max_tokens", "weightedmean_tokens"),
        (),
    ),
    "poolings joined by name": (
        {"1_Pooling/config.json": {"embedding_dimension": 32, "pooling_mode": ["mean_sqrt_len_tokens", "cls"]}},
        (),
    ),
    "no pooling chosen": ({"1_Pooling/config.json": {"embedding_dimension": 5, "pooling_mode_max_tokens": False}}, ()),
    "a linear layer": (dense(), ("Dense",)),
    "a linear layer without bias": (dense(bias=False, activation_function="torch.nn.ReLU"), ("Dense",)),
    "a norm, a linear layer, a length": (
        {"2_LayerNorm/config.json": {"dimension": 32}, "4_Dense/config.json": dense()["2_Dense/config.json"]},
        ("LayerNorm", "Normalize", "Dense", "Dropout"),
    ),
    "fewer numbers": ({ARCHIVE: {"truncate_dim": 7}}, ("Normalize",)),
    "a prompt": ({ARCHIVE: {"prompts": {"q": "As is: "}, "default_prompt_name": "q", "similarity_fn_name": "dot"}}, ()),
    "a prompt of two lines": ({ARCHIVE: {"prompts": {"x": "As is:\n\tquery"}, "default_prompt_name": "x"}}, ()),
    "a prompt that the library knows": ({ARCHIVE: {"prompts": {}, "default_prompt_name": "query"}}, ()),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_are_those_of_sentence_transformers(folder: Callable[..., Path], name: str) -> None:
    files, behind = FOLDERS[name]
    place = folder(files, *behind)
    source = source_of(place)
    assert source.tokenizer.info is not None and source.tokenizer.info.rules is not None
    prompt = source.tokenizer.info.rules.prompt
    expected = SentenceTransformer(str(place), device="cpu", model_kwargs={"dtype": torch.float32}).encode(TEXTS)
    found = outputs(source, [prompt + text for text in TEXTS])
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("inside", ["0_Transformer", "."])
def test_a_transformer_in_a_folder_of_its_own(folder: Callable[..., Path], inside: str) -> None:
    """The oldest layout; its config.json in the root is none of transformers."""
    path = "" if inside == "." else inside
    files = {f"{path}/sentence_bert_config.json".lstrip("/"): {"max_seq_length": 12, "do_lower_case": True}}
    place = folder(files | ({"config.json": {"__version__": "0.2.0"}} if path else {}), inside=inside)
    expected = torch.as_tensor(SentenceTransformer(str(place), device="cpu").encode(TEXTS))
    torch.testing.assert_close(outputs(source_of(place), TEXTS), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("tokenizers", "length"), [(40, 100), (256, 100), (40, None), (10**30, None), (40, 5000)])
def test_which_length_counts(folder: Callable[..., Path], tokenizers: int, length: int | None) -> None:
    """The folder's own before the tokenizer's, be it more or less; the model's positions bound both."""
    place = folder({"sentence_bert_config.json": {"max_seq_length": length}})
    said = json.loads((place / "tokenizer_config.json").read_text()) | {"model_max_length": tokenizers}
    (place / "tokenizer_config.json").unlink()
    write(place, {"tokenizer_config.json": said})
    info = source_of(place).tokenizer.info
    library = SentenceTransformer(str(place), device="cpu").max_seq_length
    assert info is not None and library is not None and info.max_length == min(library, 256)


def test_a_pooling_without_the_prompt(folder: Callable[..., Path], exported: Callable[..., Report]) -> None:
    """Whatever the prompt, its tokens are left out; one longer than the model admits leaves nothing but the end."""
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False}
    said = {"prompts": {"q": "Provided that: ", "s": "Of any person:\n\tcopy "}, "default_prompt_name": "q"}
    place = folder(
        {"1_Pooling/config.json": pooling, ARCHIVE: said, "sentence_bert_config.json": {"max_seq_length": 64}}
    )
    text = load(exported(place, backend="plain", verify="off").output).text
    library = SentenceTransformer(str(place), device="cpu")
    for prompt in (None, "", "Represent the SOFTWARE for a search: ", "</s>", "of any person " * 40):
        expected = torch.as_tensor(library.encode(TEXTS, prompt=prompt))
        found = torch.stack(text.embed(TEXTS, prompt=prompt, truncate=True))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    for name in ("s", "query"):
        expected = torch.as_tensor(library.encode(TEXTS, prompt_name=name))
        found = torch.stack(text.embed(TEXTS, prompt_name=name, truncate=True))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    shown = text.embed(TEXTS[:1]), text.embed(TEXTS[:1], prompt="Another: ")
    assert not torch.allclose(shown[0][0], shown[1][0])


# Files of the folder, and what the refusal says.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key of a pooling": (
        {"1_Pooling/config.json": {"pooling_mode": "mean", "pooling_mode_median": True}},
        r"1_Pooling/config\.json of .* sets pooling_mode_median to True: .* --ignore-setting pooling_mode_median",
    ),
    "an unknown key of the texts": (
        {"sentence_xlnet_config.json": {"max_seq_length": 21, "strip_accents": True}},
        r"sentence_xlnet_config\.json .* strip_accents",
    ),
    "an unknown key of the whole": ({ARCHIVE: {"whitening": [1]}}, "whitening"),
    "a chat template": (
        {"sentence_bert_config.json": {"modality_config": {"message": {}, "text": {}}}},
        "modality_config .* chat template",
    ),
    "another head": (
        {"sentence_bert_config.json": {"transformer_task": "fill-mask"}},
        "a SentenceTransformer is one of feature-extraction",
    ),
    "arguments of the tokenizer": (
        {"sentence_bert_config.json": {"tokenizer_args": {"add_special_tokens": False}}},
        "tokenizer_args of .* sets add_special_tokens",
    ),
    "arguments of the model": (
        {"sentence_bert_config.json": {"config_args": {"is_decoder": True}}},
        "config_args of .* sets is_decoder",
    ),
    "how texts are processed": (
        {"sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 5}}}},
        "it changes how texts are tokenised",
    ),
    "another model's tokenizer": (
        {"sentence_bert_config.json": {"tokenizer_name_or_path": "other/model"}},
        "the tokenizer is that of another model",
    ),
    "a prompt that is not there": (
        {ARCHIVE: {"prompts": {"s": "a"}, "default_prompt_name": "x"}},
        "default_prompt_name is 'x'; expected one of its prompts: query, document, s; .*--ignore-setting default_pro",
    ),
    "half of a character for a prompt": ({ARCHIVE: {"prompts": {"x": "\ud800"}}}, r"prompts is .*; expected texts by"),
    "a similarity that no vectors have": (
        {ARCHIVE: {"similarity_fn_name": "maxsim"}},
        "sets similarity_fn_name to 'maxsim': .*cosine, dot, euclidean, manhattan",
    ),
    "no numbers": ({ARCHIVE: {"truncate_dim": 0}}, "truncate_dim of .* is 0"),
    "modules of one name": (
        {"modules.json": [modules("Transformer")[0], modules("Pooling")[0]]},
        "gives two modules the same name",
    ),
    "words that are weighed": (
        {"modules.json": modules("Transformer", "WordWeights", "Pooling")},
        "lists Transformer, Wo",
    ),
    "a module that the library has no more": (
        {"modules.json": modules("Transformer", "sentence_transformers.other.Pooling")},
        "names sentence_transformers.other.Pooling, a module of sentence-transformers that",
    ),
    "a table of words": (
        {"modules.json": modules("WordEmbeddings", "Pooling")},
        "lists WordEmbeddings, Pooling: vectors of words from a table, and no transformer",
    ),
    "two ways": ({"modules.json": modules("Router", "Pooling")}, "lists Router, Pooling"),
    "a reranker that is no classifier": (
        {"modules.json": modules("Transformer", "Pooling", "Dense"), ARCHIVE: {"model_type": "CrossEncoder"}},
        "a cross encoder of Transformer, Pooling, Dense.*not supported yet",
    ),
    "a reranker of other parts": (
        {"modules.json": modules("Transformer", "Dense", "LogitScore"), ARCHIVE: {"model_type": "CrossEncoder"}},
        "a cross encoder of Transformer, Dense, LogitScore; expected one of a Transformer alone.*or of .* LogitScore",
    ),
    "a prompt for pairs": (
        {
            "modules.json": modules("Transformer"),
            ARCHIVE: {"model_type": "CrossEncoder", "prompts": {"x": "y"}, "default_prompt_name": "x"},
        },
        "a prompt before a pair of texts is not supported",
    ),
    "a PEFT adapter": (
        {"adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "a/b"}},
        "holds no weights; expected adapter_model.safetensors",
    ),
    "a PEFT adapter's weights alone": ({"adapter_model.safetensors": {}}, r"a PEFT adapter's weights \(adapter_model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_an_answer_is_refused_by_name(folder: Callable[..., Path], name: str) -> None:
    files, words = REFUSED[name]
    with pytest.raises(CheckpointError, match=words):
        source_of(folder(files))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"activation_function": "my.package.Swish"}, "activation_function to 'my.package.Swish'"),
        ({"use_residual": True}, "use_residual to True: it adds the layer's input"),
        ({"module_input_name": "token_embeddings"}, "it works on other vectors than the sentence's"),
        ({"in_features": 16}, r"takes vectors of 16 numbers; expected 32"),
        ({"gate": 1}, "gate to 1: this exporter does not know the setting"),
    ],
)
def test_a_linear_layer_that_is_not_the_usual_one(
    folder: Callable[..., Path], config: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        source_of(folder(dense(**config), "Dense"))


def test_weights_of_a_linear_layer(folder: Callable[..., Path]) -> None:
    """Of another size, pickled, missing: each by name; pickled ones are read where that is allowed."""
    place = folder(dense(), "Dense")
    expected = outputs(source_of(place), TEXTS)
    stored = place / "2_Dense" / "model.safetensors"
    weight = source_of(place).sentence_head
    assert isinstance(weight, SentenceHead)
    tensors = {f"linear.{name}": tensor for name, tensor in weight.behind[0].state_dict().items()}
    stored.unlink()
    with pytest.raises(CheckpointError, match="2_Dense of .* holds no weights"):
        source_of(place)
    torch.save(tensors, place / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(PickledWeightsError, match="2_Dense of .*--allow-pickle"):
        source_of(place)
    assert torch.equal(outputs(source_of(place, allow_pickle=True), TEXTS), expected)
    save_file(tensors | {"linear.bias": torch.zeros(3)}, stored)
    with pytest.raises(CheckpointError, match=r"the weights in 2_Dense .*'linear.bias': \(3,\)"):
        source_of(place)


@pytest.mark.parametrize("name", ["custom.Transformer", "models.Pooling", "Pooling"])
def test_own_code_does_not_pass_for_the_librarys(folder: Callable[..., Path], name: str) -> None:
    listed = modules("Transformer", "Pooling")
    listed[1]["type"] = name
    place = folder({"modules.json": listed})
    with pytest.raises(RemoteCodeError, match=rf"names {name}: the model's own code.*--trust-remote-code"):
        source_of(place)
    assert source_of(place, task="feature-extraction").sentence_head is None


@pytest.mark.parametrize(
    "prefix",
    [
        "sentence_transformers.models.Pooling.",
        "sentence_transformers.sentence_transformer.modules.",
        "sentence_transformers.sentence_transformer.modules.pooling.",
    ],
)
def test_names_of_the_librarys_modules_in_all_its_releases(folder: Callable[..., Path], prefix: str) -> None:
    listed = modules("Transformer", "Pooling")
    listed[1]["type"] = f"{prefix}Pooling"
    place = folder({"modules.json": listed})
    SentenceTransformer(str(place), device="cpu")  # or it would not be the library's name
    assert source_of(place).task.name == "sentence-embedding"


def test_a_setting_is_ignored_where_that_is_asked_for(folder: Callable[..., Path]) -> None:
    place = folder({ARCHIVE: {"whitening": [1]}, "1_Pooling/config.json": {"pooling_mode": "max", "extra": 1}})
    source = source_of(place, ignore_settings=("whitening", "extra"))
    assert source.info.ignored_settings == (f"{ARCHIVE}: whitening", "1_Pooling/config.json: extra")
    assert [note for note in source.notes if "extra" in note] == [
        "setting ignored, as requested: 1_Pooling/config.json: extra"
    ]
    with pytest.raises(RequestError, match="ignore_setting names 'other'"):
        source_of(place, ignore_settings=("whitening", "extra", "other"))
    with pytest.raises(RequestError, match="ignore_settings is 'x'"):
        ExportRequest("a", "b", ignore_settings="x")  # type: ignore[arg-type]


def test_an_ignored_setting_is_told_by_the_command(folder: Callable[..., Path], tmp_path: Path) -> None:
    place = folder({ARCHIVE: {"whitening": [1]}})
    options = ["--backend", "plain", "--tune", "off", "--verify", "off", "--ignore-setting", "whitening", "--explain"]
    done = run([BIN / "export-model", place, "-o", tmp_path / "out.pt", *options])
    assert done.returncode == 0, done.stderr
    assert f"setting ignored, as requested: {ARCHIVE}: whitening" in done.stdout
    assert f"ignored   {ARCHIVE}: whitening" in run([BIN / "run-model", "inspect", tmp_path / "out.pt"]).stdout


IDENTITY = "torch.nn.modules.linear.Identity"
NEW = {"model_type": "CrossEncoder"}
ALONE = {"sentence_bert_config.json": {"transformer_task": "sequence-classification"}}


@pytest.mark.parametrize(
    ("labels", "config", "model", "activation"),
    [
        (1, {}, None, "sigmoid"),
        (1, {"sbert_ce_default_activation_function": IDENTITY}, None, "none"),
        (3, {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, None, "sigmoid"),
        (1, {"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.1.0"}}, None, "none"),
        (1, {"sentence_transformers": {"activation_fn": TANH}, "problem_type": "regression"}, None, "tanh"),
        (3, {"sentence_transformers": {"version": "4.1.0"}}, None, "none"),
        (1, {}, NEW, "sigmoid"),
        (3, {}, NEW, "none"),
        (1, {"sentence_transformers": {"activation_fn": TANH}}, NEW | {"activation_fn": IDENTITY}, "none"),
        (2, {"sbert_ce_default_activation_function": TANH}, NEW | {"activation_fn": None}, "tanh"),
    ],
)
def test_scores_are_those_of_the_cross_encoder(
    base: Path, tmp_path: Path, labels: int, config: dict[str, Any], model: dict[str, Any] | None, activation: str
) -> None:
    tiny_model("roberta", "text-classification", num_labels=labels, **SIZES).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(base / name)
    said = json.loads((tmp_path / "config.json").read_text()) | config
    write(tmp_path, {"config.json": said})
    if model is not None:
        write(tmp_path, {"modules.json": modules("Transformer"), ARCHIVE: model} | ALONE)
    pairs = [(text, TEXTS[1]) for text in TEXTS]
    source = source_of(tmp_path)
    assert (source.task.name, source.activation) == (
        "reranking" if labels == 1 else "text-classification",
        activation,
    )
    found = SCORES[source.activation](outputs(source, pairs))
    library = CrossEncoder(str(tmp_path), device="cpu", model_kwargs={"dtype": torch.float32})
    expected = torch.as_tensor(library.predict(pairs)).reshape(len(pairs), labels)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "files", "task"),
    [
        ({"num_labels": 1}, {}, "reranking"),
        ({"num_labels": 1, "problem_type": "regression"}, {}, "text-classification"),
        (
            {"num_labels": 1, "problem_type": "regression", "sbert_ce_default_activation_function": IDENTITY},
            {},
            "reranking",
        ),
        ({"num_labels": 1, "problem_type": "regression"}, {"modules.json": modules("Transformer")}, "reranking"),
        ({"num_labels": 2}, {"modules.json": modules("Transformer")}, "text-classification"),
    ],
)
def test_which_classifiers_rerank(
    tiny_folder: Callable[..., Path],
    copy_of: Callable[[Path], Path],
    config: dict[str, Any],
    files: dict[str, Any],
    task: str,
) -> None:
    """Those of one label, but for a regression that does not say that it is a cross encoder."""
    place = copy_of(tiny_folder(**config))
    write(place, files | ({ARCHIVE: NEW} | ALONE if files else {}))
    source = source_of(place)
    assert source.task.name == task
    if task == "text-classification" and config["num_labels"] == 1:
        asked = source_of(place, task="reranking")
        assert (source.activation, asked.activation) == ("none", "sigmoid")
    assert source_of(place, task="text-classification").task.name == "text-classification"


def test_reranking_needs_a_single_label(tiny_folder: Callable[..., Path]) -> None:
    with pytest.raises(TaskError, match="the model has 3 labels; expected one label, .* --task text-classification"):
        source_of(tiny_folder("bert", "text-classification", num_labels=3), task="reranking")


def test_an_activation_that_no_file_can_name(tiny_folder: Callable[..., Path], copy_of: Callable[[Path], Path]) -> None:
    place = copy_of(tiny_folder())
    said = json.loads((place / "config.json").read_text())
    write(place, {"config.json": said | {"sentence_transformers": {"activation_fn": "my.Gate"}}})
    with pytest.raises(
        CheckpointError, match=r"names the activation 'my\.Gate'; expected one of Identity, Sigmoid, Tanh"
    ):
        source_of(place)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label numbers its labels 0, 2; expected 0 to 1"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "are quantised .*gptq"),
    ],
)
def test_a_configuration_that_is_more_than_the_model(
    tiny_folder: Callable[..., Path], copy_of: Callable[[Path], Path], change: dict[str, Any], words: str
) -> None:
    place = copy_of(tiny_folder())
    write(place, {"config.json": json.loads((place / "config.json").read_text()) | change})
    with pytest.raises(CheckpointError, match=words):
        source_of(place)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../outside.safetensors"}}, r"names '\.\./outside\.safetensors'; .* inside the model's"),
        ({"weight_map": {"a": "/tmp/x.safetensors"}}, "names '/tmp/x.safetensors'"),
        (
            {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
            "model-00001-of-00002.safetensors, which is not there",
        ),
        ({"weight_map": []}, "is damaged"),
    ],
)
def test_an_index_of_weights_that_misleads(
    tiny_folder: Callable[..., Path], copy_of: Callable[[Path], Path], index: Any, words: str
) -> None:
    place = copy_of(tiny_folder())
    (place / "model.safetensors").unlink()
    write(place, {"model.safetensors.index.json": index})
    with pytest.raises(CheckpointError, match=words):
        source_of(place)


def test_a_tokenizer_whose_settings_tokenizer_json_does_not_hold(folder: Callable[..., Path]) -> None:
    place = folder({})
    said = json.loads((place / "tokenizer_config.json").read_text()) | {"split_special_tokens": True}
    (place / "tokenizer_config.json").unlink()
    write(place, {"tokenizer_config.json": said})
    with pytest.raises(CheckpointError, match=r"makes other tokens than its tokenizer\.json for 'a <unk></s>"):
        source_of(place)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_classifies_in_a_batch_as_alone(base: Path, tmp_path: Path, side: str) -> None:
    """The id that fills up shorter texts comes from the tokenizer; without one the cause is named."""
    sizes = SIZES | {"pad_token_id": None, "num_key_value_heads": 2, "intermediate_size": 64}
    tiny_model("llama", "text-classification", num_labels=2, **sizes).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").symlink_to(base / "tokenizer.json")
    said = json.loads((base / "tokenizer_config.json").read_text())
    write(tmp_path, {"tokenizer_config.json": said | {"padding_side": side}})
    source = source_of(tmp_path)
    assert "pad_token_id 1 is the tokenizer's: config.json has none" in source.notes
    together = outputs(source, TEXTS)
    # Without the id, as transformers itself answers: one text at a time.
    model = load_source(ExportRequest(str(tmp_path), "unused.pt")).model
    model.config.pad_token_id = None
    with torch.no_grad():
        alone = [
            model(**source.tokenizer.fast(text, return_tensors="pt", truncation=True, max_length=256)).logits
            for text in TEXTS
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)
    write(tmp_path, {"tokenizer_config.json": said | {"pad_token": "</s>"}})
    with pytest.raises(CheckpointError, match="pads with </s>, which also occurs in every text"):
        source_of(tmp_path)


def test_the_page_of_settings_names_each_of_them() -> None:
    page = (ROOT / "docs" / "folders.md").read_text()
    tables = [value for value in vars(known_settings).values() if isinstance(value, dict)]
    keys = {key for table in tables for key, row in table.items() if isinstance(row, known_settings.Key)}
    assert len(keys) > 40 and sorted(key for key in keys if f"`{key}`" not in page) == []
