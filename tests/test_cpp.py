"""The C++ consumer: the same golden answers from a program without Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run
from test_artifact import rewrite

from runtime.ops import ipex_library


@pytest.fixture(scope="session")
def program() -> Path:
    """Compiled once, where `make cpp` puts it."""
    output = ROOT / "build/check-golden"
    sources = [ROOT / "runtime/cpp/check_golden.cpp", ROOT / "runtime/cpp/build.py"]
    if not output.exists() or output.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        done = run([sys.executable, sources[1], "--output", output])
        assert done.returncode == 0 and done.stderr == "", done.stderr
    return output


def errors_of(output: str) -> list[float]:
    """The errors in a table's rows."""
    return [float(text) for text in re.findall(r"\b\d\.\d{2}e[+-]\d{2}\b", output)]


def test_a_plain_artifact(program: Path, tiny_artifact: Path) -> None:
    done = run([program, tiny_artifact])
    assert done.returncode == 0, done.stderr
    assert errors_of(done.stdout) and max(errors_of(done.stdout)) <= 5e-5
    assert "passed: text-classification, fp32, plain backend" in done.stdout


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_ipex_artifact(program: Path, minilm: Path, exported: Callable[..., Any], precision: str) -> None:
    artifact = exported(minilm, precision=precision, backend="ipex").output
    done = run([program, artifact, "--ipex-library", ipex_library()])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert 0 < max(errors_of(done.stdout)) <= (5e-5 if precision == "fp32" else 0.04)
    # From the environment too.
    assert run([program, artifact], EXPORTED_MODEL_IPEX_LIBRARY=str(ipex_library())).returncode == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_onednn_artifact(
    program: Path, tiny_folder: Callable[..., Path], exported: Callable[..., Any], precision: str
) -> None:
    """In stock libtorch, its weights prepared by the method in the file."""
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    done = run([program, exported(folder, precision=precision, backend="onednn").output])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"passed: text-classification, {precision}, onednn backend" in done.stdout


def test_wrong_answers_are_seen(program: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    import torch

    from runtime.golden import Case, dump_cases

    ids = torch.tensor([[1, 2, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    wrong = dump_cases([Case("0", inputs, {"logits": torch.full((1, 3), 5.0)})])
    done = run([program, rewrite(tiny_artifact, tmp_path / "wrong.pt", {"golden.safetensors": wrong})])
    assert done.returncode == 1 and "OFF" in done.stdout and "FAILED" in done.stdout


def test_what_is_refused(program: Path, tiny_artifact: Path, minilm_bf16: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(tiny_artifact.read_bytes()[:100_000])
    newer = rewrite(tiny_artifact, tmp_path / "newer.pt", {"format_version": b"2"})
    bare = rewrite(tiny_artifact, tmp_path / "bare.pt", {"manifest.json": None})
    golden = rewrite(tiny_artifact, tmp_path / "golden.pt", {"golden.safetensors": b"\xff" * 20})
    for path, message in [
        (tmp_path / "nothing.pt", "No such file"),
        (cut, "central directory"),
        (newer, "format version 2; expected at most 1"),
        (bare, "holds no manifest.json"),
        (golden, "cut short"),
        (minilm_bf16, "--ipex-library"),
    ]:
        done = run([program, path])
        assert done.returncode == 1 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("check-golden: ") and message in line
    done = run([program, minilm_bf16, "--ipex-library", "/nothing.so"])
    assert done.returncode == 1 and "cannot load IPEX" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--no-such-option"], ["a.pt", "b.pt"], ["a.pt", "--ipex-library"]])
def test_usage_errors(program: Path, arguments: list[str]) -> None:
    done = run([program, *arguments])
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
