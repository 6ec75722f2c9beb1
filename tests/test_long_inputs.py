"""Texts and sounds beyond the usual sizes: verified once, declared, and right; or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, HubertConfig, HubertForCTC, MistralConfig, MistralModel

from exporter import ExportRequest, Report
from exporter.loading.loader import load_source
from exporter.shapes import memory
from exporter.shapes.test_shapes import shapes_to_verify
from exporter.shapes.trace_plan import TracePlan, make_plan
from runtime import Session, load
from runtime.errors import InputSizeError, RequestError

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that sees the last 1,000 tokens, and has positions for 5,000."""
    folder = tmp_path_factory.mktemp("windowed")
    torch.manual_seed(2)
    config = MistralConfig(**SMALL, num_key_value_heads=1, sliding_window=1000, max_position_embeddings=5000)
    MistralModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(2)
    config = HubertConfig(
        **SMALL | {"vocab_size": 32},
        conv_dim=[8] * 7,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    HubertForCTC(config).save_pretrained(folder)
    return folder


def plan_of(folder: Path, **options: Any) -> TracePlan:
    request = ExportRequest(str(folder), "unused.pt", **options)
    return make_plan(load_source(request), request)


def test_more_than_2048_tokens_with_a_sliding_window(windowed: Path, exported: Callable[..., Report]) -> None:
    report = exported(windowed, backend="plain", max_length=5000)
    assert report.manifest.inputs[0].axes[1].maximum == 5000
    assert any(note.startswith("sequence 5000 is verified once, which needs about ") for note in report.choices)
    once = [case for case in report.manifest.verified if case.shape["sequence"] == 5000]
    assert once and {case.calls for case in once} == {1}
    ids = torch.randint(3, 300, (1, 4501), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = AutoModel.from_pretrained(windowed, attn_implementation="eager")(ids).last_hidden_state
    torch.testing.assert_close(load(report.output)(input_ids=ids)["last_hidden_state"], expected, rtol=1e-3, atol=1e-4)


def test_without_the_option_texts_have_2048_tokens(windowed: Path) -> None:
    plan = plan_of(windowed)
    assert plan.dimensions["sequence"].axis.maximum == 2048
    assert not any(shape.once for shape in shapes_to_verify(plan.dimensions, plan.padded_axis, "full"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [(5001, "max_length is 5001; expected at most 5000, the longest that the model admits"), (2**21, "from 2 to ")],
)
def test_more_than_the_model_admits(windowed: Path, asked: int, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        plan_of(windowed, max_length=asked)


def test_fewer_than_usual(windowed: Path) -> None:
    assert plan_of(windowed, max_length=300).dimensions["sequence"].axis.maximum == 300


def test_a_machine_with_too_little_memory(windowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 10**8)
    with pytest.raises(RequestError, match=r"sequence 5000 .* about 0\.\d GB of memory; .* 0\.1 GB .*--max-length"):
        plan_of(windowed, max_length=5000)


def test_half_a_minute_of_sound_by_default(hubert: Path, exported: Callable[..., Report]) -> None:
    report = exported(hubert, backend="plain")
    assert report.manifest.inputs[0].axes[1].maximum == 480_000
    session, model = load(report.output), HubertForCTC.from_pretrained(hubert).eval()
    for rows, lengths in ((1, (480_000,)), (2, (160_000, 70_000))):
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        sound = torch.randn(rows, max(lengths), generator=torch.Generator().manual_seed(4)) * mask
        with torch.no_grad():
            expected = model(sound, attention_mask=mask.long()).logits
        mine = session(input_values=sound, attention_mask=mask.long())["logits"]
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-4)
    _refused(session, 480_001)


def _refused(session: Session, samples: int) -> None:
    with pytest.raises(InputSizeError, match="480001"):
        session(input_values=torch.zeros(1, samples))


def test_seconds_of_sound(hubert: Path, windowed: Path) -> None:
    assert plan_of(hubert, max_audio_seconds=12.5).dimensions["samples"].axis.maximum == 200_000
    with pytest.raises(RequestError, match="takes no sound"):
        plan_of(windowed, max_audio_seconds=10)
    with pytest.raises(RequestError, match="takes no texts"):
        plan_of(hubert, max_length=100)
