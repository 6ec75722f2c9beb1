"""Choosing a backend, and what IPEX fuses."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.backends.candidates import choose_backend
from exporter.backends.ipex.backend import IpexBackend
from runtime import read_manifest
from runtime.errors import BackendError, IpexMissingError, IpexVersionError, TorchVersionError
from runtime.format.manifest import Fusion
from runtime.host import requirements
from runtime.host.requirements import Environment

WITH_IPEX = Environment("2.8.0", "2.8.0", None)


def test_auto_takes_ipex_where_it_fits() -> None:
    backend, reason = choose_backend("auto", WITH_IPEX)
    assert backend.name == "ipex" and "2.8.0 is installed" in reason


@pytest.mark.parametrize("here", [Environment("2.13.0", None, None), Environment("2.13.0", "2.8.0", None)])
def test_auto_says_why_it_goes_without(here: Environment) -> None:
    backend, reason = choose_backend("auto", here)
    assert backend.name == "onednn" and "without IPEX" in reason and "torch 2.13.0" in reason


def test_an_old_torch_has_no_onednn_operators() -> None:
    here = Environment("1.13.1", None, None)
    assert choose_backend("auto", here)[0].name == "plain"
    with pytest.raises(TorchVersionError, match=r"expected torch 2\.8 or newer"):
        choose_backend("onednn", here)


def test_an_explicit_choice_fails_instead() -> None:
    with pytest.raises(IpexMissingError, match=r"torch 2\.8"):
        choose_backend("ipex", dataclasses.replace(WITH_IPEX, ipex=None))
    with pytest.raises(IpexVersionError, match=r"expected torch 2\.8"):
        choose_backend("ipex", dataclasses.replace(WITH_IPEX, torch="2.13.0"))
    assert choose_backend("plain", WITH_IPEX)[0].name == "plain"


def kinds(artifact: Path) -> dict[str, int]:
    counted: dict[str, int] = {}
    for fusion in read_manifest(artifact).fusions:
        counted[fusion.kind] = counted.get(fusion.kind, 0) + fusion.count
    return counted


def test_the_fusions_of_bf16(minilm_bf16: Path) -> None:
    """MiniLM is a BERT of 6 layers: one attention, one joined linear, two residual additions a layer."""
    found = kinds(minilm_bf16)
    assert found["attention scores"] == 6
    assert found["joined query-key-value linear"] == 6
    assert found["linear+add"] == 12
    assert found["linear+gelu"] == 6
    assert "other" not in found


def test_the_fusions_of_fp32(minilm: Path, exported: Callable[..., Any]) -> None:
    found = kinds(Path(exported(minilm, backend="ipex").output))
    # Two a layer, and the embeddings' own.
    assert found["add+layer norm"] == 13
    assert found["attention scores"] == 6


def test_a_plain_artifact_needs_no_ipex(tiny_artifact: Path) -> None:
    manifest = read_manifest(tiny_artifact)
    assert manifest.requires.ipex is None and manifest.fusions == ()


def test_versions_of_an_operator_are_one_kind() -> None:
    assert IpexBackend().fusions({"ipex::mha_scores_calc_v2": 3, "aten::add": 9, "ipex::new_one": 1}) == (
        Fusion("attention scores", "ipex::mha_scores_calc_v2", 3),
        Fusion("other", "ipex::new_one", 1),
    )


def test_what_ipex_refuses_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import intel_extension_for_pytorch as ipex

    def refuse(*_args: Any, **_options: Any) -> None:
        raise AssertionError("BF16 weight prepack needs the cpu support")

    # No processor here makes IPEX refuse, so the fault is simulated.
    monkeypatch.setattr(ipex, "optimize", refuse)
    with pytest.raises(BackendError, match="weight prepack"):
        IpexBackend().optimise(torch.nn.Linear(2, 2).eval(), "bf16")


def test_a_transformers_that_ipex_does_not_know_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next backend is tried then; a newer transformers lacks modules that IPEX imports."""
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", None)
    with pytest.raises(BackendError, match=r"beside transformers .*; pip install 'transformers<"):
        IpexBackend().optimise(torch.nn.Linear(2, 2).eval(), "fp32")


def test_bf16_needs_its_instructions(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from exporter import ExportRequest, export
    from runtime.errors import CpuFeatureError

    monkeypatch.setattr(requirements, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags : fpu avx2\n")
    for backend in ("plain", "ipex"):
        with pytest.raises(CpuFeatureError, match="lacks avx512bw"):
            export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", precision="bf16", backend=backend))
