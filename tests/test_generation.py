"""Files that generate text: tokens are those of transformers' `generate`, in any batch; what cannot is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from exporter import Report, export
from exporter.config.request import ExportRequest
from exporter.loading.decoder_cache import InPlaceCache, attention_function, masks_by_position
from exporter.loading.generation_settings import cache_sizes, read_sampling
from exporter.loading.loader import load_source
from exporter.tracing.cached_attention import Sight, Unsuited, sight_of
from exporter.tracing.decoder import Decoding
from runtime import Session, load
from runtime.commands.main import main
from runtime.errors import (
    CheckpointError,
    InputError,
    InputTaskError,
    InputTextError,
    RequestError,
    TaskError,
    VerificationError,
)
from runtime.format.golden import Case
from runtime.generation.cache import Caches
from runtime.verification.generation import BEAMS as BEAM_CASE
from runtime.verification.generation import check_generation
from tests.conftest import ROOT, run_python

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TEXTS = ["Permission is hereby granted", "x", "the Software, 東京 🙂 without restriction, including the rights to use"]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
# Model type → its sizes. Windows are shorter than the rows that are verified.
KINDS: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL | {"head_dim": 8},
    "mistral": SMALL | {"sliding_window": 8},
    "gemma": SMALL | {"head_dim": 8},
    "gemma2": SMALL | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": SMALL | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8, "num_hidden_layers": 6},
    "phi": SMALL | {"num_key_value_heads": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": SMALL | {"rotary_pct": 0.25},
    "opt": SMALL | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": SMALL | {"alibi": True, "new_decoder_architecture": False},
}


def made(folder: Path, kind: str, **config: Any) -> Path:
    """A decoder with random weights that are far enough apart, and a tokenizer of its own."""
    torch.manual_seed(3)
    settings = AutoConfig.for_model(
        kind,
        **(
            {"vocab_size": 400, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "initializer_range": 0.2}
            | KINDS[kind]
            | config
        ),
    )
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=390, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([(ROOT / "LICENSE").read_text()], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        bos_token="<|start|>",
        model_max_length=128,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def report(folder: Path, exported: Callable[..., Report]) -> Report:
    return exported(folder)


@pytest.fixture(scope="module")
def session(report: Report) -> Session:
    return load(report.output)


@pytest.fixture(scope="module")
def original(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def greedy(original: Any, folder: Path, text: str, count: int, **options: Any) -> list[int]:
    """The ids that transformers writes behind a text."""
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        written = original.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, **options
        )
    found: list[int] = written[0, ids.shape[1] :].tolist()
    return found


# Export


@pytest.mark.usefixtures("native_operators")
def test_a_decoder_generates_by_itself(report: Report) -> None:
    manifest = report.manifest
    assert (manifest.task, manifest.backend) == ("text-generation", "native")
    assert [spec.name for spec in manifest.inputs] == ["input_ids"]
    generation = manifest.generation
    assert generation is not None and generation.max_error is not None
    assert [(one.heads, one.width, one.dtype) for one in generation.caches] == [(2, 8, "float32")] * 4
    assert (generation.longest, generation.stop_ids) == (128, (1,))
    assert generation.max_error < 1e-5
    assert [(one.tokens, one.equal, one.margin) for one in generation.greedy] == [(64, 64, None)] * 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "llama"])
def test_architectures_by_derivation(kind: str, tmp_path: Path, exported: Callable[..., Report]) -> None:
    """The gate of the export compares logits in pieces and batches, and greedy tokens; here the text of a batch."""
    folder = made(tmp_path / kind, kind)
    made_of = exported(folder, max_length=128)
    generation = made_of.manifest.generation
    assert generation is not None
    assert all(one.equal == one.tokens >= 60 for one in generation.greedy)
    # As the export's reference: transformers' own two forms of Falcon's alibi differ by more than rounding.
    original = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    found = load(made_of.output).text.generate(TEXTS, max_new_tokens=12)
    for text, one in zip(TEXTS, found, strict=True):
        assert list(one.ids) == greedy(original, folder, text, 12), text


def own_calls(report: Report) -> Counter[str]:
    """How often a file calls each of the project's operators, as its manifest tells."""
    found: Counter[str] = Counter()
    for fusion in report.manifest.fusions:
        found[fusion.operator.removeprefix("em_native::")] += fusion.count
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("kind", "norms", "attention"),
    [
        ("llama", {"rms_norm": 5}, {"attend_joined": 2}),
        # Of its four norms per layer two follow linears, and two stand before an addition, which the next one takes.
        ("gemma2", {"rms_norm": 5, "add_rms_norm": 4}, {}),
        ("gpt2", {"add_layer_norm": 5}, {"attend_joined": 2}),
        # Two norms stand between the joined linear and the rotations.
        ("qwen3", {"rms_norm": 9}, {"attend_cached": 2, "rotate": 4}),
        # A part of each head is rotated.
        ("gpt_neox", {"add_layer_norm": 3}, {"attend_cached": 2, "rotate": 4}),
    ],
)
def test_norms_and_rotations_are_the_projects_own(
    kind: str,
    norms: dict[str, int],
    attention: dict[str, int],
    precision: str,
    tmp_path: Path,
    exported: Callable[..., Report],
) -> None:
    """Gemma's weights are shifted, in float32. Its attention is the model's own, and so are its rotations."""
    made_of = exported(made(tmp_path / kind, kind), max_length=64, backend="native", precision=precision)
    found = own_calls(made_of)
    assert {name: count for name, count in found.items() if "norm" in name} == norms
    names = ("attend_joined", "attend_cached", "rotate")
    assert {name: found[name] for name in names if found[name]} == attention
    assert found["gated"] == (0 if kind in ("gpt2", "gpt_neox") else 2)


@pytest.mark.usefixtures("native_operators")
def test_a_layer_of_llama_is_eight_operators(report: Report) -> None:
    """Two norms, four linears, what stands between them; no conversion, and no view."""
    with zipfile.ZipFile(report.output) as archive:
        (code,) = (
            text[text.index("def forward") : text.index("def em_")]
            for name in archive.namelist()
            if name.endswith(".py") and "def em_native_linear" in (text := archive.read(name).decode())
        )
    lines = code.splitlines()
    assert sum("em_native_linear" in line for line in lines) == 2 * 4 + 1
    assert sum("attend_joined" in line for line in lines) == sum("gated" in line for line in lines) == 2
    assert not re.search(r"torch\.(reshape|view|transpose|contiguous|to\(\w+, 6\))", code.split("attend_joined")[1])


_LOGITS = """
import sys, torch
from runtime import load
ids = torch.arange(3, 43)[None]
torch.save(load(sys.argv[1])(input_ids=ids)["logits"], sys.argv[2])
"""


def _attention_of_rounded(
    _: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """Of whole rows, whose queries, keys, values and results are numbers of bf16."""
    query, key, value = (each.bfloat16().float() for each in (query, key, value))
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=options.get("scaling"), enable_gqa=True
    )
    return found.transpose(1, 2).bfloat16().float().contiguous(), None


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_bf16_by_the_projects_operators_rounds_weights_and_attention(
    kind: str, tmp_path: Path, exported: Callable[..., Report]
) -> None:
    """GPT-2 has its weights the other way round. On AVX2 linears multiply numbers of fp32."""
    folder = made(tmp_path / kind, kind)
    made_of = exported(folder, max_length=64, backend="native", precision="bf16")
    assert made_of.manifest.generation is not None
    assert {one.dtype for one in made_of.manifest.generation.caches} == {"bfloat16"}
    original = AutoModelForCausalLM.from_pretrained(folder).eval()
    inner = original.transformer if kind == "gpt2" else original.model
    tables = [original.get_input_embeddings(), original.get_output_embeddings()]
    with torch.no_grad():
        for part in [*tables, *(part for part in inner.modules() if type(part).__name__ in ("Linear", "Conv1D"))]:
            part.weight.copy_(part.weight.bfloat16())
        with attention_function(_attention_of_rounded):
            expected = original(torch.arange(3, 43)[None]).logits
    done = run_python(_LOGITS, made_of.output, tmp_path / "logits.pt", EXPORTED_MODEL_KERNELS="avx2")
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "logits.pt")
    # A number that is nearly between two of bf16 may become the other one.
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("kind", "config", "note", "count"),
    [
        ("llama", {}, "2 attentions over the cache;", 2),
        ("mistral", {}, "2 attentions over the cache, 2 with a window;", 2),
        ("mistral", {"sliding_window": 127}, "2 attentions over the cache, 2 with a window;", 2),
        ("mistral", {"sliding_window": 128}, "2 attentions over the cache;", 2),
        ("gemma3_text", {}, "6 attentions over the cache, 5 with a window;", 6),
        ("falcon", {}, "attention by PyTorch's operators: the model fails with new keys alone", 0),
    ],
)
def test_whose_attention_is_the_projects_own(
    kind: str, config: dict[str, Any], note: str, count: int, tmp_path: Path, exported: Callable[..., Report]
) -> None:
    made_of = exported(made(tmp_path / kind, kind, **config), max_length=128, backend="native")
    # Falcon's first file is refused: transformers' own two forms of its alibi differ.
    traced = next(stage.detail for stage in made_of.stages if stage.name == "trace" and "caches" in stage.detail)
    assert note in traced + ";"
    found = own_calls(made_of)
    assert found["attend_cached"] + found["attend_joined"] == count


def shown(name: str, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    answers: dict[str, torch.Tensor] = {
        "all before": k <= q,
        "window": (k <= q) & (k > q - 5),
        "chunks": (k <= q) & (k // 7 == q // 7),
        "not the first": (k <= q) & (k > 0),
        "one hole": (k <= q) & ~((q == 50) & (k == 31)),
        "prefix": (k <= q) | (k < 3),
    }
    return answers[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all before", Sight()),
        ("window", Sight(window=5)),
        ("chunks", Sight(masked=True)),
        ("not the first", Sight(masked=True)),
        ("one hole", Sight(masked=True)),
        ("prefix", None),
    ],
)
@pytest.mark.parametrize("longest", [64, 5000])
def test_what_a_mask_shows(name: str, expected: Sight | None, longest: int) -> None:
    def function(*indices: torch.Tensor) -> torch.Tensor:
        return shown(name, *indices[2:])

    if expected is not None:
        assert sight_of(function, longest) == expected
        return
    with pytest.raises(Unsuited, match="sees those behind it"):
        sight_of(function, longest)


@pytest.mark.parametrize("backend", ["native", "onednn", "plain"])
def test_one_pass_gives_the_logits_of_all_tokens(
    backend: str, folder: Path, original: Any, exported: Callable[..., Report]
) -> None:
    session = load(exported(folder, backend=backend).output)
    ids = torch.randint(3, 390, (3, 21), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(session(input_ids=ids)["logits"], original(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_stored_file_is_checked_on_this_machine(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", report.output]) == 0
    assert main(["inspect", report.output]) == 0
    assert "greedy tokens behind 5: 64 of 64 as transformers'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "model type 'mamba' keeps a state from token to token"),
        ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2}, "model type 'rwkv' keeps a state from token to token"),
        ("openai-gpt", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "takes no past_key_values"),
    ],
)
def test_what_keeps_no_keys_and_values_is_refused(
    kind: str, config: dict[str, Any], reason: str, tmp_path: Path, exported: Callable[..., Report]
) -> None:
    settings = AutoConfig.for_model(kind, vocab_size=300, **config)
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    with pytest.raises(TaskError, match=f"{reason}.*--task text-generation-scoring"):
        exported(tmp_path, task="text-generation")


def test_a_model_with_one_place_for_all_rows_is_refused(tmp_path: Path, exported: Callable[..., Report]) -> None:
    """GPT-Neo takes its local windows from a table by the number of keys, and not by a row's positions."""
    config: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "eos_token_id": 1, "bos_token_id": 2}
    config |= {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128}
    settings = AutoConfig.for_model("gpt_neo", vocab_size=300, window_size=8, initializer_range=0.2, **config)
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    with pytest.raises(VerificationError, match="decode is wrong in .* with others"):
        exported(tmp_path, backend="plain")


def test_an_encoder_is_no_decoder(tmp_path: Path, exported: Callable[..., Report]) -> None:
    AutoModelForCausalLM.from_config(AutoConfig.for_model("bert", vocab_size=300, **SMALL)).save_pretrained(tmp_path)
    with pytest.raises(TaskError, match="model type 'bert' lets a token see those behind it"):
        exported(tmp_path, task="text-generation")


def test_settings_that_are_not_followed_are_refused(
    folder: Path, tmp_path: Path, exported: Callable[..., Report]
) -> None:
    made(tmp_path, "llama")
    for settings, problem in (
        ({"guidance_scale": 1.5}, "guidance_scale to 1.5.*remove guidance_scale"),
        ({"eos_token_id": 400}, "eos_token_id of .* is 400; expected ids below 400"),
        ({"suppress_tokens": [3, 400]}, r"suppress_tokens to \[3, 400\]; expected ids below 400"),
        ({"bad_words_ids": [[3], [400]]}, "bad_words_ids to .*; expected ids below 400"),
        ({"num_beams": 4, "do_sample": True}, "sets do_sample and 4 beams; expected one of the two"),
        ({"num_beams": 4000}, "num_beams to 4000; expected at most 256"),
    ):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1} | settings))
        with pytest.raises(CheckpointError, match=problem):
            exported(tmp_path)
    with pytest.raises(RequestError, match="--backend ipex does not generate text yet; expected native, onednn, plain"):
        exported(folder, backend="ipex")


def test_a_wrong_cache_is_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate, against a cache that writes each row's tokens one place too far."""
    whole = InPlaceCache.__init__

    def off(self: Any, positions: torch.Tensor, pairs: Any) -> None:
        whole(self, positions, pairs)
        self._positions = (positions - 1).clamp(min=0)

    monkeypatch.setattr(InPlaceCache, "__init__", off)
    with pytest.raises(VerificationError, match="wrong"):
        export(ExportRequest(model=str(folder), output=tmp_path / "model.pt", backend="plain"))


def test_masks_that_forget_a_row_are_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate, against masks that go by the first row's positions, as transformers' own do."""
    monkeypatch.setattr(
        "exporter.tracing.decoder.masks_by_position",
        lambda positions, watch: masks_by_position(positions[:1].expand_as(positions), watch),
    )
    with pytest.raises(VerificationError, match="decode is wrong in .* with others"):
        export(ExportRequest(model=str(folder), output=tmp_path / "model.pt", backend="plain"))


def test_rows_that_keep_their_places_are_found(
    session: Session, original: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate, against a cache whose rows are copied, but do not change their order as beams do."""
    ids = torch.randint(3, 390, (3, 16), generator=torch.Generator().manual_seed(1))
    ids[:, :9] = ids[:1, :9].clone()
    with torch.no_grad():
        logits = original(ids).logits
    row = Case("row-9", {"input_ids": ids[:1, :9]}, {"logits": logits[:1, :9]})
    cases = [row, Case(BEAM_CASE, {"input_ids": ids}, {"logits": logits})]

    def error() -> float:
        (found,) = (one for one in check_generation(session, cases)["comparisons"] if "beams" in one["case"])
        return float(found["max_error"])

    assert error() < 1e-5
    keep = Caches.keep_rows
    monkeypatch.setattr(
        Caches, "keep_rows", lambda self, rows: keep(self, rows if rows == [0, 0, 0] else range(len(rows)))
    )
    assert error() > 1e-2


def test_bf16_keeps_tables_and_uses_its_cache(folder: Path, original: Any) -> None:
    """Without a file, since few processors have bf16: the module that would be traced."""
    source = load_source(ExportRequest(model=str(folder), output="unused.pt"))
    decoding = Decoding(tuple(cache_sizes(source.model)), "bf16", 128)
    with decoding.kept_in_fp32(source.model):
        module = decoding.module(source.model).to(torch.bfloat16)
    assert source.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert source.model.lm_head.weight.dtype == torch.bfloat16
    ids = torch.randint(3, 390, (2, 40), generator=torch.Generator().manual_seed(1))
    places = torch.arange(40).expand(2, 40)
    caches = [torch.zeros([2, one.heads, 40, one.width], dtype=torch.bfloat16) for one in decoding.caches]
    with torch.no_grad():
        (logits,) = module(ids, places, places, *caches)
        expected = original(ids).logits
    assert logits.dtype == torch.float32 and caches[0].abs().sum() > 0
    assert float((logits - expected).abs().max() / expected.abs().max()) < 0.08


# Generating


def test_greedy_tokens_are_those_of_transformers(session: Session, original: Any, folder: Path) -> None:
    for text in TEXTS:
        found = session.text.generate(text, max_new_tokens=40)
        expected = greedy(original, folder, text, 40)
        assert list(found.ids) == expected
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert found.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert found.finish == ("stop_token" if expected[-1] == 1 else "length")
        assert found.prompt_tokens == len(tokenizer(text)["input_ids"])
    penalised = session.text.generate(TEXTS[0], max_new_tokens=30, repetition_penalty=1.3)
    assert list(penalised.ids) == greedy(original, folder, TEXTS[0], 30, repetition_penalty=1.3)
    assert penalised.ids != session.text.generate(TEXTS[0], max_new_tokens=30).ids


def test_stop_tokens_end_their_row_alone(
    folder: Path, session: Session, original: Any, tmp_path: Path, exported: Callable[..., Report]
) -> None:
    free = [session.text.generate(text, max_new_tokens=20).ids for text in TEXTS]
    # A token that one row writes early and another does not.
    stop = next(token for token in free[0][2:8] if token not in free[1][:12] or token not in free[2][:12])
    made(tmp_path, "llama")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, stop]}))
    found = load(exported(tmp_path).output).text.generate(TEXTS, max_new_tokens=20)
    for text, one in zip(TEXTS, found, strict=True):
        expected = greedy(original, folder, text, 20, eos_token_id=[1, stop])
        assert list(one.ids) == expected
        assert (one.finish == "stop_token") == (expected[-1] in (1, stop))
    assert len({one.finish for one in found}) == 2


BEAMS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 4, "length_penalty": 0.0, "early_stopping": True},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": "never"},
    {"num_beams": 5, "length_penalty": -1.0, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "min_new_tokens": 9, "early_stopping": True},
]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "bloom"])
def test_beams_are_those_of_transformers(kind: str, tmp_path: Path, exported: Callable[..., Report]) -> None:
    """Texts that end within, and texts that do not; by settings of `generation_config.json`, which both read."""
    folder = made(tmp_path / kind, kind)
    original = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    session = load(exported(folder, max_length=128).output)
    free = session.text.generate(TEXTS[0], max_new_tokens=12, num_beams=3)
    assert list(free.ids) == greedy(original, folder, TEXTS[0], 12, num_beams=3)
    # Tokens that the best beams come to.
    ends = [1, free.ids[5], free.ids[8]]
    ended = set()
    for options in BEAMS:
        follow(session, {"eos_token_id": ends} | options)
        found = session.text.generate(TEXTS, max_new_tokens=14, logprobs=True)
        for text, one in zip(TEXTS, found, strict=True):
            assert list(one.ids) == greedy(original, folder, text, 14, eos_token_id=ends, **options), (options, text)
            assert (one.finish == "stop_token") == (one.ids[-1] in ends)
            assert one.logprobs is not None and len(one.logprobs) == len(one.ids)
            ended.add(one.finish)
    assert ended == {"stop_token", "length"}


def follow(session: Session, settings: dict[str, Any]) -> None:
    """Let a session do what its file would say, had its folder had this `generation_config.json`."""
    generation = session.manifest.generation
    assert generation is not None
    defaults = read_sampling(GenerationConfig(**settings), "model", 400)
    generation = dataclasses.replace(generation, defaults=defaults, stop_ids=tuple(settings["eos_token_id"]))
    session.manifest = dataclasses.replace(session.manifest, generation=generation)


def test_beams_of_the_folder(session: Session, tmp_path: Path, exported: Callable[..., Report]) -> None:
    made(tmp_path, "llama")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "num_beams": 3}))
    beams = load(exported(tmp_path).output)
    found = beams.text.generate(TEXTS, max_new_tokens=12)
    assert found == session.text.generate(TEXTS, max_new_tokens=12, num_beams=3)
    plain = session.text.generate(TEXTS, max_new_tokens=12)
    assert beams.text.generate(TEXTS, max_new_tokens=12, num_beams=1) == plain != found
    with pytest.raises(InputTextError, match="num_beams is 3, with stream; expected 1.*give num_beams=1"):
        beams.text.generate(TEXTS[0], stream=True)


def test_rules_of_the_folder_hold(session: Session, tmp_path: Path, exported: Callable[..., Report]) -> None:
    """Greedy texts with all of them, as transformers writes them; and what is drawn keeps to them."""
    folder = made(tmp_path, "llama")
    plain = session.text.generate(TEXTS, max_new_tokens=20)
    first, words = plain[0].ids, plain[2].ids
    rules: dict[str, Any] = {
        "eos_token_id": [1, first[3]],
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[words[1]], list(words[3:5])],
        "min_new_tokens": 6,
        "suppress_tokens": [first[5]],
        "begin_suppress_tokens": [first[0]],
        "forced_eos_token_id": 1,
        "exponential_decay_length_penalty": [8, 1.1],
    }
    (folder / "generation_config.json").write_text(json.dumps(rules))
    ruled = load(exported(folder).output)
    original = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = ruled.text.generate(TEXTS, max_new_tokens=20)
    for text, one in zip(TEXTS, found, strict=True):
        assert list(one.ids) == greedy(original, folder, text, 20)
    assert [one.ids for one in found] != [one.ids for one in plain]
    for one in ruled.text.generate([TEXTS[0]] * 20, max_new_tokens=20, temperature=2.0, top_k=0, seed=1):
        assert first[5] not in one.ids and one.ids[0] != first[0] and len(one.ids) >= 6
        pairs = list(zip(one.ids, one.ids[1:], strict=False))
        assert len(set(pairs)) == len(pairs)


def test_texts_of_a_batch_are_those_alone(session: Session) -> None:
    alone = [session.text.generate(text, max_new_tokens=25) for text in TEXTS]
    assert session.text.generate([*TEXTS, *TEXTS[:1]] * 5, max_new_tokens=25) == [*alone, alone[0]] * 5


def test_sampled_texts_depend_on_their_seed_alone(session: Session) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.5, "top_k": 0}
    first = session.text.generate([TEXTS[0]] * 3, seed=7, **options)
    assert len({one.ids for one in first}) == 3
    assert first == [session.text.generate(TEXTS[0], seed=7 + number, **options) for number in range(3)]


def test_draws_have_transformers_distribution(session: Session, original: Any, folder: Path) -> None:
    """The first token of 4,000 texts, against the probabilities behind transformers' own steps."""
    options: dict[str, Any] = {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "repetition_penalty": 1.2}
    count = 4000
    found = session.text.generate([TEXTS[1]] * count, max_new_tokens=1, seed=3, **options)
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        written = original.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            max_new_tokens=1,
            output_scores=True,
            return_dict_in_generate=True,
            **options,
        )
    shares = written.scores[0][0].softmax(-1)
    drawn = torch.bincount(torch.tensor([one.ids[0] for one in found]), minlength=len(shares))
    assert ((drawn - count * shares).abs() <= 5 * (count * shares * (1 - shares)).sqrt()).all()
    assert int((drawn > 0).sum()) > 2


def test_logprobs_are_those_of_the_models_own_logits(session: Session, original: Any, folder: Path) -> None:
    found = session.text.generate(TEXTS[0], max_new_tokens=6, logprobs=True, temperature=2.0, seed=1)
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    with torch.no_grad():
        logits = original(torch.tensor([[*ids, *found.ids]])).logits[0, len(ids) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(found.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(found.logprobs), expected, rtol=1e-4, atol=1e-4)
    assert session.text.generate(TEXTS[0], max_new_tokens=2).logprobs is None


def test_a_stream_gives_the_text(session: Session) -> None:
    stream = session.text.generate(TEXTS[2], max_new_tokens=30, stream=True)
    pieces = list(stream)
    whole = session.text.generate(TEXTS[2], max_new_tokens=30)
    assert "".join(pieces) == whole.text and len(pieces) > 5 and stream.result == whole
    stop = whole.text[10:13]
    cut = session.text.generate(TEXTS[2], max_new_tokens=30, stop=[stop])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == "stop_string"
    assert "".join(session.text.generate(TEXTS[2], max_new_tokens=30, stop=stop, stream=True)) == cut.text


def test_messages_go_through_the_template(session: Session, original: Any, folder: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who may copy?"}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        written = original.generate(**ids, do_sample=False, max_new_tokens=15)
    found = session.text.generate(messages, max_new_tokens=15)
    assert list(found.ids) == written[0, ids["input_ids"].shape[1] :].tolist()
    assert session.text.generate([messages, messages], max_new_tokens=15) == [found, found]


# What is refused


def test_bad_prompts_are_one_line_each(session: Session) -> None:
    long = "Permission is hereby granted, free of charge, " * 12
    with pytest.raises(InputTextError, match="the prompt has .* tokens; expected at most 127"):
        session.text.generate(long * 2)
    with pytest.raises(InputTextError, match="the prompt has .* tokens, behind which there is room for"):
        session.text.generate(TEXTS[2], max_new_tokens=120)
    for prompt in ("", [], [3], 3, None, ["good", "\ud800"]):
        with pytest.raises(InputTextError):
            session.text.generate(prompt)
    with pytest.raises(InputTextError, match="the conversation cannot be used: message 1 has the role 'narrator'"):
        session.text.generate([{"role": "narrator", "content": "x"}])
    with pytest.raises(InputTextError, match="no tools"):
        session.text.generate([{"role": "tool", "content": "x"}])
    with pytest.raises(InputTextError, match="num_beams is 4, with stream; expected 1"):
        session.text.generate("x", num_beams=4, stream=True)
    with pytest.raises(InputTextError, match="num_beams is 4, and the text is to be sampled"):
        session.text.generate("x", num_beams=4, temperature=0.5)
    with pytest.raises(InputTextError, match="num_beams is 4, with stop strings"):
        session.text.generate("x", num_beams=4, stop="e")
    with pytest.raises(InputTextError, match="stream with a list of prompts"):
        session.text.generate(["x", "y"], stream=True)


def test_the_others_of_a_batch_go_on(session: Session) -> None:
    good = session.text.generate(TEXTS[0], max_new_tokens=5)
    prompts = ["", TEXTS[0], 3, [{"role": "tool", "content": "x"}], TEXTS[0], "word " * 300]
    found = session.text.generate(prompts, max_new_tokens=5, errors="return")
    assert [isinstance(one, InputTextError) for one in found] == [True, False, True, True, False, True]
    assert found[1] == found[4] == good
    with pytest.raises(InputTextError, match="prompt 1 is empty"):
        session.text.generate(prompts, max_new_tokens=5)


def test_a_full_row_ends(session: Session) -> None:
    """The longest row that the manifest admits is written to its last place."""
    prompt = TEXTS[0]
    tokens = len(session.text.encode([prompt])["input_ids"][0])
    found = session.text.generate(prompt, max_new_tokens=128 - tokens)
    assert found.finish == "stop_token" or tokens + len(found.ids) == 128


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"input_ids": torch.tensor([[400]])}, "input_ids holds 400"),
        ({"positions": torch.tensor([[64]])}, "positions holds 64"),
        ({"positions": torch.tensor([[-1]])}, "positions holds -1"),
        ({"kept": torch.tensor([[1]])}, "kept holds 1"),
        ({"input_ids": torch.tensor([[1.0]])}, "input_ids is no int64 tensor"),
        ({"positions": torch.tensor([0])}, "positions has shape"),
        ({"caches": []}, "0 caches"),
        ({"caches": [torch.zeros([1, 2, 64, 8])] * 3 + [torch.zeros([2, 2, 64, 8])]}, "cache 3 is another tensor"),
        ({"caches": [torch.zeros([1, 2, 64, 8], dtype=torch.float64)] * 4}, "cache 0 is another tensor"),
    ],
)
def test_calls_of_decode_are_checked(session: Session, change: dict[str, Any], problem: str) -> None:
    arguments: dict[str, Any] = {
        "input_ids": torch.tensor([[5]]),
        "positions": torch.tensor([[0]]),
        "kept": torch.tensor([[0]]),
        "caches": [torch.zeros([1, 2, 64, 8]) for _ in range(4)],
    }
    assert session.decode(**arguments).shape == (1, 1, 400)
    assert float(arguments["caches"][0][0, :, 0].abs().sum()) > 0
    assert float(arguments["caches"][0][0, :, 1:].abs().sum()) == 0
    with pytest.raises(InputError, match=problem):
        session.decode(**(arguments | change))


def test_other_files_do_not_generate(tiny_session: Session, minilm_ipex: Path) -> None:
    with pytest.raises(InputTaskError, match="decode on an artifact for text-classification"):
        tiny_session.decode(torch.tensor([[5]]), torch.tensor([[0]]), torch.tensor([[0]]), [])
    with pytest.raises(InputTaskError, match="generate on an artifact for sentence-embedding"):
        load(minilm_ipex, warmup=False).text.generate("x")


# The command


def visible(text: str) -> str:
    """As the command prints it."""
    return "".join(one if one in "\n\t" or one.isprintable() else ascii(one)[1:-1] for one in text) + "\n"


def test_the_command_writes_a_text(
    session: Session, report: Report, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    expected = session.text.generate(TEXTS[0], max_new_tokens=9)
    assert main(["generate", report.output, "--prompt", TEXTS[0], "--max-new-tokens", "9", "-v"]) == 0
    printed = capsys.readouterr()
    assert printed.out == visible(expected.text)
    assert "tokens in" in printed.err and "per second" in printed.err
    assert main(["generate", report.output, "--chat", "Who?", "--max-new-tokens", "4", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    answer = session.text.generate([{"role": "user", "content": "Who?"}], max_new_tokens=4)
    assert row == {"text": answer.text, "finish": answer.finish, "prompt_tokens": answer.prompt_tokens, "new_tokens": 4}
    beams = session.text.generate(TEXTS[0], max_new_tokens=9, num_beams=3)
    assert main(["generate", report.output, "--prompt", TEXTS[0], "--max-new-tokens", "9", "--num-beams", "3"]) == 0
    assert capsys.readouterr().out == visible(beams.text)
    lines = [
        {"prompt": TEXTS[0], "id": "a"},
        {"messages": [{"role": "user", "content": "Who?"}]},
        {"text": "x"},
        {"prompt": ""},
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert main(["generate", report.output, "--jsonl", str(file), "--max-new-tokens", "9"]) == 1
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert rows[0]["id"] == "a" and rows[0]["text"] == expected.text
    assert rows[1]["text"] == session.text.generate([{"role": "user", "content": "Who?"}], max_new_tokens=9).text
    assert rows[2]["line"] == 3 and '"prompt"' in rows[2]["error"] and "is empty" in rows[3]["error"]
    assert "2 of 4 lines failed" in printed.err


def test_the_command_refuses(report: Report, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, problem in (
        ([str(tiny_artifact), "--prompt", "x"], "generate on an artifact for text-classification"),
        ([report.output, "--prompt", "x", "--system", "y"], "--system without --chat"),
        ([report.output, "--prompt", "x", "--temperature", "-1"], "temperature is -1.0"),
        ([report.output, "--prompt", "x", "--stop", ""], "stop is"),
        ([report.output, "--jsonl", "/nowhere"], "cannot read /nowhere"),
    ):
        assert main(["generate", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("run-model: ") and problem in error and error.count("\n") == 1
