"""Missing requirements are named, with the command that installs them, before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from exporter.backends.plain import BF16_FLAGS
from runtime import read_manifest
from runtime.errors import CpuFeatureError, IpexMissingError, IpexVersionError, RequirementError, TorchVersionError
from runtime.host import requirements
from runtime.host.requirements import Environment, check, ipex_problem
from tests.conftest import run_python

FULL = frozenset({"avx2", "avx512bw", "avx512vl", "avx512dq"})
GOOD = Environment("2.8.0+cpu", "2.8.0", FULL)


def with_torch(version: str | None) -> Environment:
    return dataclasses.replace(GOOD, torch=version)


def test_the_environment_that_fits(minilm_ipex: Path) -> None:
    check(read_manifest(minilm_ipex), GOOD)
    check(read_manifest(minilm_ipex), dataclasses.replace(GOOD, cpu_flags=None))


@pytest.mark.parametrize("version", ["2.7.1", "2.9.0", "2.13.0", None])
def test_an_ipex_artifact_needs_its_torch(minilm_ipex: Path, version: str | None) -> None:
    with pytest.raises(TorchVersionError, match=r"expected torch 2\.8, .*; pip install torch==2\.8\.0"):
        check(read_manifest(minilm_ipex), with_torch(version))


@pytest.mark.parametrize(
    ("version", "fits"), [("2.8.1", True), ("2.10.0", True), ("3.0", True), ("2.7.1", False), ("1.13.1", False)]
)
def test_a_plain_artifact_takes_newer_torch(tiny_artifact: Path, version: str, fits: bool) -> None:
    manifest = read_manifest(tiny_artifact)
    if fits:
        check(manifest, with_torch(version))
    else:
        with pytest.raises(TorchVersionError, match=r"2\.8 or newer"):
            check(manifest, with_torch(version))


def test_ipex_missing(minilm_ipex: Path) -> None:
    with pytest.raises(
        IpexMissingError, match=r"pip install intel-extension-for-pytorch==2\.8\.0, or .*--backend plain"
    ):
        check(read_manifest(minilm_ipex), dataclasses.replace(GOOD, ipex=None))


def test_ipex_of_another_release(minilm_ipex: Path) -> None:
    with pytest.raises(IpexVersionError, match=r"2\.7\.0 is installed"):
        check(read_manifest(minilm_ipex), dataclasses.replace(GOOD, ipex="2.7.0"))


def test_a_processor_without_the_instructions(minilm_ipex: Path) -> None:
    """The flags of bf16, independent of the processor that runs the tests."""
    manifest = read_manifest(minilm_ipex)
    bf16 = dataclasses.replace(manifest, requires=dataclasses.replace(manifest.requires, cpu_flags=BF16_FLAGS))
    check(bf16, GOOD)
    with pytest.raises(CpuFeatureError, match="lacks avx512bw, avx512vl, avx512dq"):
        check(bf16, dataclasses.replace(GOOD, cpu_flags=frozenset({"avx2"})))


def test_a_plain_artifact_runs_without_ipex_on_any_processor(tiny_artifact: Path) -> None:
    check(read_manifest(tiny_artifact), Environment("2.8.0", None, frozenset()))


@pytest.mark.parametrize(
    ("torch", "ipex", "kind"),
    [
        ("2.13.0", None, IpexMissingError),
        ("2.13.0", "2.8.0", IpexVersionError),
        ("2.8.0", "2.7.0", IpexVersionError),
        ("2.8.0", "foo", IpexVersionError),
    ],
)
def test_ipex_that_cannot_be_used(torch: str, ipex: str | None, kind: type[RequirementError]) -> None:
    problem = ipex_problem(Environment(torch, ipex, None))
    assert isinstance(problem, kind)
    assert "pip install" in problem.remedy


def test_ipex_that_can() -> None:
    assert ipex_problem(GOOD) is None


def test_the_versions_are_those_of_the_installation() -> None:
    import torch

    found = requirements.detect()
    assert found.torch == torch.__version__.split("+")[0] or found.torch == torch.__version__
    assert found.ipex == "2.8.0"
    assert found.cpu_flags is not None and "avx2" in found.cpu_flags


def test_the_processor_is_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "CPUINFO", tmp_path / "cpuinfo")
    assert requirements.detect().cpu_flags is None
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu avx2\n")
    assert requirements.detect().cpu_flags == {"fpu", "avx2"}  # type: ignore[comparison-overlap]


def test_nothing_is_loaded_before_the_check(minilm_ipex: Path, tmp_path: Path) -> None:
    """With IPEX 2.7 in the metadata, IPEX's library is not loaded, and the process goes on."""
    fake = tmp_path / "intel_extension_for_pytorch-2.7.0.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: intel-extension-for-pytorch\nVersion: 2.7.0\n")
    code = """
import sys
sys.path.insert(0, sys.argv[2])
import runtime
try:
    runtime.load(sys.argv[1])
except runtime.RequirementError as error:
    print(type(error).__name__, "libintel-ext-pt-cpu" in open("/proc/self/maps").read())
"""
    done = run_python(code, minilm_ipex, tmp_path)
    assert done.stdout.split() == ["IpexVersionError", "False"], done.stderr
