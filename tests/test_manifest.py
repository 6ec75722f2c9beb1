"""The format: what is written is read back, and errors name the field that does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from runtime import read_manifest
from runtime.errors import ManifestDamagedError
from runtime.format import codec, manifest

TEXT = {"max_length": 3, "pad_id": 0, "pad_token": "", "pad_type_id": 0, "padding_side": "left"}
RULES: dict[str, Any] = dict.fromkeys(("unknown_id", "class_id", "mask_id", "mask_token")) | {
    "truncation_side": "left",
    "token_types": True,
    "clean_up_spaces": False,
    "prompt": "",
}
# Prompts alone may have several lines.
LINES = "Given a question:\n\t\x1b[2J\u202eQuery: "
EMBEDDING = {"prompts": {"query": LINES, "document": ""}, "normalized": True, "similarity": "dot"}


def test_round_trip(minilm_ipex: Path) -> None:
    value = read_manifest(minilm_ipex)
    assert codec.from_json(codec.to_json(value), "f") == value


def test_what_a_manifest_says(minilm_ipex: Path) -> None:
    value = read_manifest(minilm_ipex)
    assert (value.format_version, value.task, value.precision, value.backend) == (
        manifest.FORMAT_VERSION,
        "sentence-embedding",
        "fp32",
        "ipex",
    )
    assert [spec.name for spec in value.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [spec.fill for spec in value.inputs] == [None, 1, 0]
    sequence = value.inputs[0].axes[1]
    assert (sequence.minimum, sequence.maximum) == (1, 512)
    assert [(axis.name, axis.maximum) for axis in value.outputs[0].axes] == [("batch", None), ("embedding", 384)]
    assert value.requires.ipex == "2.8.0" and value.requires.torch_rule == "same-minor"
    assert value.text is not None and value.text.max_length == 256
    assert not value.model.random_weights and len(value.model.weights_sha256) == 64


def test_verified_shapes_hold_padded_and_unpadded_ones_within_tolerance(minilm_ipex: Path) -> None:
    value = read_manifest(minilm_ipex)
    assert len({tuple(point.shape.values()) for point in value.verified}) >= 3
    assert {point.padded for point in value.verified} == {True, False}
    for point in value.verified:
        assert point.calls >= 3
        assert 0 < point.max_error <= value.tolerance.max_error
        assert 0 < point.rms_error <= value.tolerance.rms_error


def test_unknown_fields_are_ignored(tiny_artifact: Path) -> None:
    value = read_manifest(tiny_artifact)
    raw = dataclasses.asdict(value) | {"of_the_future": 1}
    assert codec.from_json(json.dumps(raw), "f") == value


@pytest.mark.parametrize(
    ("path", "wrong", "place"),
    [
        (["task"], 3, "task"),
        (["precision"], "fp8", "precision"),
        (["verification"], "maybe", "verification"),
        (["inputs", 0, "dtype"], None, r"inputs\[0\].dtype"),
        (["inputs", 0, "axes", 1, "minimum"], True, r"inputs\[0\].axes\[1\].minimum"),
        (["inputs"], {"a": 1}, "inputs"),
        (["model"], [], "model"),
        (["verified", 0, "shape"], [1], r"verified\[0\].shape"),
        (["tolerance", "max_error"], float("nan"), "tolerance.max_error"),
        (["tolerance", "max_error"], "1e-3", "tolerance.max_error"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(tiny_artifact: Path, path: list[Any], wrong: Any, place: str) -> None:
    raw = dataclasses.asdict(read_manifest(tiny_artifact))
    raw = json.loads(json.dumps(raw))
    target = raw
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = wrong
    with pytest.raises(ManifestDamagedError, match=place):
        codec.from_json(json.dumps(raw), "f")


@pytest.mark.parametrize(
    ("path", "nonsense"),
    [
        (["format_version"], 3),
        (["format_version"], 1),
        (["format_version"], -1),
        (["requires", "torch"], "abc"),
        (["requires", "torch"], "9" * 4000),
        (["requires", "ipex"], "2"),
        (["tolerance", "max_error"], 10**400),
        (["tolerance", "rms_error"], -1),
        (["model", "parameters"], 10**400),
        (["model", "id"], "\ud800"),
        (["model", "id"], "\x1b[2J"),
        (["inputs"], []),
        (["outputs"], []),
        (["inputs", 1, "name"], "input_ids"),
        (["inputs", 0, "axes"], []),
        (["inputs", 0, "axes", 0, "minimum"], 0),
        (["inputs", 0, "axes", 1, "maximum"], 0),
        (["inputs", 0, "fill"], 10**30),
        (["inputs", 0, "fill"], -5),
        (["inputs", 0, "fill"], 5),
        (["inputs", 0, "values", "minimum"], 10**6),
        (["labels"], ["one"]),
        (["execution", "warmup_shapes"], [{"batch": -1}]),
        (["execution", "warmup_shapes"], [{"batch": 10**12}]),
        (["execution", "warmup_shapes"], [{"width": 2}]),
        (["execution", "warmup_calls"], 10**9),
        (["text"], {"max_length": -3, "pad_id": 0, "pad_token": "", "pad_type_id": 0, "padding_side": "left"}),
        (["text"], {"max_length": 3, "pad_id": 10**30, "pad_token": "", "pad_type_id": 0, "padding_side": "left"}),
        (["text"], TEXT | {"rules": RULES | {"mask_id": -1}}),
        (["text"], TEXT | {"rules": RULES | {"truncation_side": "top"}}),
        (["text"], TEXT | {"rules": {}}),
        (["text"], TEXT | {"rules": RULES | {"mask_token": "a\nb"}}),
        (["embedding"], EMBEDDING | {"prompts": {"query": 5}}),
        (["embedding"], EMBEDDING | {"prompts": {"query": "\ud800"}}),
        (["embedding"], EMBEDDING | {"similarity": "taste"}),
        (["embedding"], EMBEDDING | {"similarity": "dot\n"}),
        (["embedding"], {"prompts": {}}),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_artifact: Path, path: list[Any], nonsense: Any) -> None:
    raw = json.loads(codec.to_json(read_manifest(tiny_artifact)))
    target = raw
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = nonsense
    with pytest.raises(ManifestDamagedError, match="of the-file"):
        codec.from_json(json.dumps(raw), "the-file")


@pytest.mark.parametrize("multiple", [1, 3])
def test_an_axis_without_a_largest_size_may_begin_above_one(tiny_artifact: Path, multiple: int) -> None:
    raw = json.loads(codec.to_json(read_manifest(tiny_artifact)))
    raw["execution"]["warmup_shapes"] = []
    for spec in raw["inputs"]:
        spec["axes"][0] |= {"minimum": 6, "maximum": None, "multiple": multiple}
    found = codec.from_json(json.dumps(raw), "f").inputs[0].axes[0]
    assert (found.minimum, found.maximum, found.multiple) == (6, None, multiple)


def test_what_the_text_section_says_beside_the_tokenizer_may_be_left_out(tiny_artifact: Path) -> None:
    raw = json.loads(codec.to_json(read_manifest(tiny_artifact)))
    for text in (TEXT, TEXT | {"rules": None}, TEXT | {"rules": RULES}):
        found = codec.from_json(json.dumps(raw | {"text": text}), "f").text
        assert found is not None and (found.rules is None) == (text.get("rules") is None)


def test_prompts_may_hold_any_characters(tiny_artifact: Path) -> None:
    raw = json.loads(codec.to_json(read_manifest(tiny_artifact)))
    raw |= {"text": TEXT | {"rules": RULES | {"prompt": LINES}}, "embedding": EMBEDDING}
    found = codec.from_json(json.dumps(raw), "f")
    assert found.text is not None and found.text.rules is not None and found.text.rules.prompt == LINES
    assert found.embedding is not None and found.embedding.prompts == {"query": LINES, "document": ""}
    assert codec.from_json(codec.to_json(found), "f") == found
    del raw["embedding"]
    assert codec.from_json(json.dumps(raw), "f").embedding is None


@pytest.mark.parametrize("field", ["task", "inputs", "requires", "tolerance", "text"])
def test_a_missing_field_is_named(tiny_artifact: Path, field: str) -> None:
    raw = dataclasses.asdict(read_manifest(tiny_artifact))
    del raw[field]
    with pytest.raises(ManifestDamagedError, match=f"no field {field}"):
        codec.from_json(json.dumps(raw), "f")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 200_000])
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(ManifestDamagedError):
        codec.from_json(text, "f")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be", "utf-8-sig", "latin-1"])
def test_a_manifest_is_utf_8_and_nothing_else(tiny_artifact: Path, encoding: str) -> None:
    value = read_manifest(tiny_artifact)
    text = codec.to_json(dataclasses.replace(value, task="größe")).replace("gr\\u00f6\\u00dfe", "größe")
    assert codec.from_json(text.encode(), "a file").task == "größe"
    with pytest.raises(ManifestDamagedError, match=r"damaged manifest\.json of a file"):
        codec.from_json(text.encode(encoding), "a file")


def test_the_longest_text_is_the_smaller_of_two_limits() -> None:
    text = manifest.TextInfo(32768, 0, "[PAD]", 0, "right")
    assert manifest.longest_text(text, None) == manifest.longest_text(text, manifest.Axis("sequence", 1, None)) == 32768
    assert manifest.longest_text(text, manifest.Axis("sequence", 1, 2048)) == 2048
    assert manifest.longest_text(text, manifest.Axis("sequence", 8, 2047, 8)) == 2040
    assert manifest.longest_text(dataclasses.replace(text, max_length=256), manifest.Axis("sequence", 1, 2048)) == 256
