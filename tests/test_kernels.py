"""The native operators (runtime/kernels): right on every level that this processor has, and safe for any arguments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from exporter.verification.subprocesses import script
from runtime.artifact.operator_lists import lists
from runtime.host import native_build
from runtime.host.native_build import this_torch
from runtime.host.requirements import detect, minor
from tests.conftest import BIN, ROOT, run, run_python
from tests.support.native import WORK, alone_in_work

pytestmark = pytest.mark.cpp

if minor(torch.__version__) < (2, 8):
    pytest.skip("built for newer lines of torch", allow_module_level=True)

CMAKE = shutil.which("cmake", path=f"{BIN}:{os.environ['PATH']}")
FLAGS = {
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_vnni": {"avx512_vnni"},
    "avx512_bf16": {"avx512_bf16"},
    "amx": {"amx_tile", "amx_bf16", "amx_int8"},
}
# Those that this processor has, from the lowest up.
LEVELS = [name for name, flags in FLAGS.items() if flags <= set(detect().cpu_flags or ())]

# What each bad call of tests/kernel_cases.py says.
REFUSALS = {
    "cached axes": "em_native::attend_cached: query is [2, 6, 16]; it must have 4 axes",
    "cached types": "em_native::attend_cached: key is BFloat16 and query is Float; they must be of one type",
    "cached heads": "em_native::attend_cached: query has 1 heads and key has 2; the first must be a multiple of the "
    "second",
    "cached tokens": "em_native::attend_cached: key has 6 tokens and query has 5; they must be equal",
    "cached window": "em_native::attend_cached: window is -1; it must be at least 0 (0: no window)",
    "cached keys type": "em_native::attend_cached: keys is Double and key is Float; they must be of one type, or keys "
    "BFloat16",
    "cached two types": "em_native::attend_cached: keys is BFloat16 and values is Float; they must be of one type",
    "cached narrow": "em_native::attend_cached: keys is Float and key is BFloat16; they must be of one type, or keys "
    "BFloat16",
    "cached keys rows": "em_native::attend_cached: keys is [2, 2, 9, 16]; it must be contiguous, [1, 2, length, 16], "
    "the length at most 2147483647",
    "cached keys width": "em_native::attend_cached: keys is [1, 2, 9, 15]; it must be contiguous, [1, 2, length, "
    "16], the length at most 2147483647",
    "cached keys strides": "em_native::attend_cached: keys is [1, 2, 9, 16]; it must be contiguous, [1, 2, length, "
    "16], the length at most 2147483647",
    "cached keys repeat": "em_native::attend_cached: keys is [1, 2, 9, 16]; it must be contiguous, [1, 2, length, "
    "16], the length at most 2147483647",
    "cached values heads": "em_native::attend_cached: values is [1, 3, 9, 16]; it must be contiguous, [1, 2, length, "
    "16], the length at most 2147483647",
    "cached lengths": "em_native::attend_cached: keys is [1, 2, 9, 16] and values is [1, 2, 8, 16]; they must have "
    "the same length",
    "cached emptied": "em_native::attend_cached: keys reaches beyond its memory",
    "cached positions type": "em_native::attend_cached: positions is Int [1, 6]; it must be Long [1, 6]",
    "cached positions axes": "em_native::attend_cached: positions is Long [6]; it must be Long [1, 6]",
    "cached positions rows": "em_native::attend_cached: positions is Long [2, 6]; it must be Long [1, 6]",
    "cached positions below": "em_native::attend_cached: positions holds -1; the caches have 9 tokens, from 0 on",
    "cached positions beyond": "em_native::attend_cached: positions holds 9; the caches have 9 tokens, from 0 on",
    "cached positions huge": "em_native::attend_cached: positions holds 4611686018427387904; the caches have 9 "
    "tokens, from 0 on",
    "cached one cache": "em_native::attend_cached: keys and values share memory; what is written must be apart from "
    "what is read",
    "cached overlap": "em_native::attend_cached: keys and query share memory; what is written must be apart from "
    "what is read",
    "cached mask": "em_native::attend_cached: mask is [1, 1, 6, 5]; its keys must be 1 or at least 6",
    "cached mask queries": "em_native::attend_cached: mask is [1, 1, 7, 9]; its queries must be 1 or 6",
    "cached mask type": "em_native::attend_cached: mask is BFloat16 and query is Float; mask must be Float",
    "joined axes": "em_native::attend_joined: joined is [6, 128]; it must have 3 axes, none over 2147483647",
    "joined type": "em_native::attend_joined: joined is Double; it must be Float or BFloat16",
    "joined emptied": "em_native::attend_joined: joined reaches beyond its memory",
    "joined huge": "em_native::attend_joined: joined is [1, 2147483648, 128]; it must have 3 axes, none over "
    "2147483647",
    "joined features": "em_native::attend_joined: joined has 127 features; behind the queries' heads, a multiple of 2 "
    "of width 16, it must have 2 of keys and 2 of values, of width 16",
    "joined no queries": "em_native::attend_joined: joined has 64 features; behind the queries' heads, a multiple of "
    "2 of width 16, it must have 2 of keys and 2 of values, of width 16",
    "joined heads": "em_native::attend_joined: joined has 112 features; behind the queries' heads, a multiple of 2 of "
    "width 16, it must have 2 of keys and 2 of values, of width 16",
    "joined scale": "em_native::attend_joined: scale is nan; it must be a finite number of fp32",
    "joined window": "em_native::attend_joined: window is -1; it must be at least 0 (0: no window)",
    "joined one angle": "em_native::attend_joined: one of cosines and sines is None; both must be, or none",
    "joined angles": "em_native::attend_joined: sines is [1, 1, 5, 16]; it must be [1 or 1, 1, 6, 16]",
    "joined angles type": "em_native::attend_joined: cosines is BFloat16 and joined is Float; it must be Float",
    "joined odd": "em_native::attend_joined: keys is [1, 2, 9, 15]; with cosines the last axis must be even",
    "joined keys axes": "em_native::attend_joined: keys is [2, 9, 16]; it must have 4 axes, at least 1 head, and a "
    "width from 1 to 256",
    "joined keys heads": "em_native::attend_joined: keys is [1, 0, 9, 16]; it must have 4 axes, at least 1 head, and "
    "a width from 1 to 256",
    "joined keys wide": "em_native::attend_joined: keys is [1, 2, 9, 257]; it must have 4 axes, at least 1 head, and "
    "a width from 1 to 256",
    "joined keys type": "em_native::attend_joined: keys is Double and joined is Float; they must be of one type, or "
    "keys BFloat16",
    "joined two types": "em_native::attend_joined: keys is Float and values is BFloat16; they must be of one type",
    "joined keys rows": "em_native::attend_joined: keys is [2, 2, 9, 16]; it must be contiguous, [1, 2, length, 16], "
    "the length at most 2147483647",
    "joined keys strides": "em_native::attend_joined: keys is [1, 2, 9, 16]; it must be contiguous, [1, 2, length, "
    "16], the length at most 2147483647",
    "joined values heads": "em_native::attend_joined: values is [1, 3, 9, 16]; it must be contiguous, [1, 2, length, "
    "16], the length at most 2147483647",
    "joined lengths": "em_native::attend_joined: keys is [1, 2, 9, 16] and values is [1, 2, 8, 16]; they must have "
    "the same length",
    "joined keys emptied": "em_native::attend_joined: keys reaches beyond its memory",
    "joined positions": "em_native::attend_joined: positions is Long [2, 6]; it must be Long [1, 6]",
    "joined positions type": "em_native::attend_joined: positions is Int [1, 6]; it must be Long [1, 6]",
    "joined positions below": "em_native::attend_joined: positions holds -1; the caches have 9 tokens, from 0 on",
    "joined positions beyond": "em_native::attend_joined: positions holds 9; the caches have 9 tokens, from 0 on",
    "joined one cache": "em_native::attend_joined: keys and values share memory; what is written must be apart from "
    "what is read",
    "joined overlap": "em_native::attend_joined: keys and joined share memory; what is written must be apart from "
    "what is read",
    "joined angles overlap": "em_native::attend_joined: values and cosines share memory; what is written must be "
    "apart from what is read",
    "joined mask": "em_native::attend_joined: mask is [1, 1, 6, 5]; its keys must be 1 or at least 6",
    "joined mask type": "em_native::attend_joined: mask is BFloat16 and joined is Float; mask must be Float",
    "joined mask overlap": "em_native::attend_joined: keys and mask share memory; what is written must be apart from "
    "what is read",
    "rotate axes": "em_native::rotate: x is [2, 6, 16]; it must have 4 axes, the last one even",
    "rotate odd": "em_native::rotate: x is [1, 2, 6, 15]; it must have 4 axes, the last one even",
    "rotate angles": "em_native::rotate: sines is [1, 1, 6, 8]; it must be [1 or 1, 1, 6, 16]",
    "rotate heads": "em_native::rotate: cosines is [1, 2, 6, 16]; it must be [1 or 1, 1, 6, 16]",
    "rotate types": "em_native::rotate: cosines is BFloat16 and x is Float; it must be Float",
    "rotate unlike": "em_native::rotate: cosines and sines differ; they must be alike",
    "axes": "em_native::attention: query is [2, 6, 16]; it must have 4 axes",
    "type": "em_native::attention: query is Double; it must be Float or BFloat16",
    "types": "em_native::attention: key is BFloat16 and query is Float; they must be of one type",
    "rows": "em_native::attention: key has 2 rows and query has 1; they must be equal",
    "width": "em_native::attention: key has width 8 and query has 16; they must be equal",
    "wide": "em_native::attention: query is [1, 1, 2, 257]; the last axis must be from 1 to 256",
    "no width": "em_native::attention: query is [1, 2, 6, 0]; the last axis must be from 1 to 256",
    "values": "em_native::attention: key is [1, 2, 6, 16] and value is [1, 2, 5, 16]; they must have the same heads "
    "and keys",
    "heads": "em_native::attention: query has 2 heads and key has 3; the first must be a multiple of the second",
    "no heads": "em_native::attention: query has 2 heads and key has 0; the first must be a multiple of the second",
    "huge": "em_native::attention: key is [1, 2, 2147483648, 16]; no axis may be over 2147483647",
    "huge rows": "em_native::attention: query is [1099511627776, 1048576, 0, 16]; no axis may be over 2147483647",
    "emptied": "em_native::attention: key reaches beyond its memory",
    "scale": "em_native::attention: scale is inf; it must be a finite number of fp32",
    "large scale": "em_native::attention: scale is 1e+300; it must be a finite number of fp32",
    "NaN scale": "em_native::attention: scale is nan; it must be a finite number of fp32",
    "window": "em_native::attention: window is -1; it must be at least 0 (0: no window)",
    "offsets start": "em_native::attention: offsets begins with 1; it must begin with 0",
    "offsets fall": "em_native::attention: offsets falls from 5 to 4 at 2; it must not fall",
    "offsets end": "em_native::attention: offsets ends with 7 of 6 tokens; it must end within them",
    "offsets below": "em_native::attention: offsets falls from 0 to -1 at 1; it must not fall",
    "offsets huge": "em_native::attention: offsets falls from 4611686018427387904 to 6 at 2; it must not fall",
    "no offsets": "em_native::attention: offsets is [0]; it must be one contiguous axis of at least 1 number",
    "offsets type": "em_native::attention: offsets is Int; it must be Long",
    "offsets strides": "em_native::attention: offsets is [4]; it must be one contiguous axis of at least 1 number",
    "offsets axes": "em_native::attention: offsets is [1, 2]; it must be one contiguous axis of at least 1 number",
    "offsets rows": "em_native::attention: with offsets query is [2, 2, 6, 16] and key is [2, 2, 6, 16]; there must "
    "be 1 row, and as many keys as queries",
    "offsets keys": "em_native::attention: with offsets query is [1, 2, 6, 16] and key is [1, 2, 5, 16]; there must "
    "be 1 row, and as many keys as queries",
    "mask axes": "em_native::attention: mask is [6, 6]; it must have 4 axes",
    "mask size": "em_native::attention: mask is [1, 1, 6, 5]; its keys must be 1 or 6",
    "mask rows": "em_native::attention: mask is [2, 1, 6, 6]; its rows must be 1 or 1",
    "mask short": "em_native::attention: mask is [1, 1, 5, 6]; its queries must be 1 or at least 6",
    "mask type": "em_native::attention: mask is Bool; it must be Float or BFloat16",
    "mask half": "em_native::attention: mask is BFloat16 and query is Float; mask must be Float",
    "norm axes": "em_native::add_layer_norm: x has no axis; it must have at least 1",
    "norm type": "em_native::add_layer_norm: x is Half; it must be Float or BFloat16",
    "norm empty": "em_native::add_layer_norm: x is [3, 0]; the last axis must be from 1 to 2147483647",
    "norm residual": "em_native::add_layer_norm: residual is Float [2, 8] and x is Float [3, 8]; they must be alike",
    "norm residual type": "em_native::add_rms_norm: residual is BFloat16 [3, 8] and x is Float [3, 8]; they must be "
    "alike",
    "norm weight": "em_native::add_layer_norm: weight is [7]; it must be [8]",
    "norm weight axes": "em_native::add_rms_norm: weight is [1, 8]; it must be [8]",
    "norm bias type": "em_native::add_layer_norm: bias is BFloat16 and x is Float; it must be Float",
    "norm two types": "em_native::add_layer_norm: weight is Float and bias is BFloat16; they must be of one type",
    "norm root": "em_native::rms_norm: weight is [9]; it must be [8]",
    "norm epsilon": "em_native::add_layer_norm: eps is -1; it must be a finite number, at least 0",
    "norm NaN": "em_native::add_rms_norm: eps is nan; it must be a finite number, at least 0",
    "norm codes": "em_native::add_layer_norm_int8: x is [1, 65537]; the last axis must be from 1 to 65536",
    "pack axes": "em_native::pack_linear: weight is [8]; it must have 2 axes, the last one at most 2147483647",
    "pack type": "em_native::pack_linear: weight is Double; it must be Float, BFloat16 or Char",
    "pack empty": "em_native::pack_linear: weight is [0, 8]; it must have 2 axes, the last one at most 2147483647",
    "pack codes": "em_native::pack_linear: weight is [1, 65537]; it must have 2 axes, the last one at most 65536",
    "pack huge": "em_native::pack_linear: weight is [2147483648, 1]; it must have 2 axes, the last one at most "
    "2147483647",
    "linear x": "em_native::linear: x is []; it must have at least 1 axis, the last one from 1 to 2147483647",
    "linear x type": "em_native::linear: x is Double; it must be Float or BFloat16",
    "linear x empty": "em_native::linear: x is [3, 0]; it must have at least 1 axis, the last one from 1 to 2147483647",
    "linear weight type": "em_native::linear: weight is Double and x is Float; weight must be BFloat16, or both Float",
    "linear types": "em_native::linear: weight is Float and x is BFloat16; weight must be BFloat16, or both Float",
    "linear weight": "em_native::linear: weight is [6, 7]; it must be [6, 8]",
    "linear outputs": "em_native::linear: weight is [6, 8]; it must be [7, 8]",
    "linear no outputs": "em_native::linear: outputs is 0; it must be from 1 to 2147483647",
    "linear many outputs": "em_native::linear: outputs is 1099511627776; it must be from 1 to 2147483647",
    "linear packed": "em_native::linear: weight is [1, 8, 16]; for 7 inputs and 6 outputs it must be of 2 axes, or "
    "what pack_linear gave with the kernels that are in use",
    "linear packed outputs": "em_native::linear: weight is [1, 8, 16]; for 8 inputs and 100 outputs it must be of 2 "
    "axes, or what pack_linear gave with the kernels that are in use",
    "linear packed view": "em_native::linear: weight is [1, 8, 16]; for 8 inputs and 6 outputs it must be of 2 axes, "
    "or what pack_linear gave with the kernels that are in use",
    "linear packed elsewhere": "em_native::linear: weight is [1, 8, 48]; for 8 inputs and 6 outputs it must be of 2 "
    "axes, or what pack_linear gave with the kernels that are in use",
    "linear emptied": "em_native::linear: weight reaches beyond its memory",
    "linear bias": "em_native::linear: bias is [7]; it must be [6]",
    "linear bias type": "em_native::linear: bias is BFloat16; it must be Float",
    "linear residual": "em_native::linear: residual is Float [2, 6]; it must be Float, x's sizes with 6 at the end",
    "linear residual type": "em_native::linear: residual is BFloat16 [3, 6]; it must be Float, x's sizes with 6 at "
    "the end",
    "linear activation": "em_native::linear: activation is unknown; it must be none, gelu, gelu_tanh, relu, silu, "
    "tanh or sigmoid",
    "codes weight": "em_native::linear_int8: weight is Float; it must be Char",
    "codes packed": "em_native::linear_int8: weight is [1, 3, 16, 4]; for 3 inputs and 6 outputs it must be of 2 "
    "axes, or what pack_linear gave with the kernels that are in use",
    "codes x": "em_native::linear_int8: x is Double; it must be Float or BFloat16",
    "codes without scales": "em_native::linear_int8: x is Byte; it must be Float or BFloat16",
    "codes with scales": "em_native::linear_int8: x is Float; with scales it must be Byte",
    "codes scales": "em_native::linear_int8: scales is Float [2, 2]; it must be Float, x's sizes with 2 at the end",
    "codes scales type": "em_native::linear_int8: scales is Double [3, 2]; it must be Float, x's sizes with 2 at the "
    "end",
    "codes wide": "em_native::linear_int8: x is [1, 65537]; it must have at least 1 axis, the last one from 1 to 65536",
    "codes weight scales": "em_native::linear_int8: weight_scales is Float [5]; it must be Float [6]",
    "coded x": "em_native::linear_codes: x is Double; it must be Float or BFloat16",
    "coded inputs": "em_native::linear_codes: codes is Byte [1, 1, 32, 4]; it must be Byte [1, 2, 32, 4], contiguous",
    "coded outputs": "em_native::linear_codes: codes is Byte [1, 1, 32, 4]; it must be Byte [2, 1, 32, 4], contiguous",
    "coded type": "em_native::linear_codes: codes is Char [1, 1, 32, 4]; it must be Byte [1, 1, 32, 4], contiguous",
    "coded plain": "em_native::linear_codes: codes is Byte [6, 4]; it must be Byte [1, 1, 32, 4], contiguous",
    "coded group": "em_native::linear_codes: group is 16; it must be 32, 64 or 128, or 0 for codes of 8 bits",
    "coded scales": "em_native::linear_codes: scales is Float [1, 1, 32]; it must be Half [1, 1, 32], contiguous",
    "coded scales size": "em_native::linear_codes: scales is Half [1, 2, 32]; it must be Half [1, 1, 32], contiguous",
    "coded no zeros": "em_native::linear_codes: zeros is None; codes of 4 bits need them",
    "coded zeros": "em_native::linear_codes: zeros is Half [1, 1, 31]; it must be Half [1, 1, 32], contiguous",
    "coded view": "em_native::linear_codes: codes is Byte [1, 1, 32, 4]; it must be Byte [1, 1, 32, 4], contiguous",
    "coded byte zeros": "em_native::linear_codes: zeros is given and group is 0; codes of 8 bits have no zeros",
    "coded byte scales": "em_native::linear_codes: scales is Float [7]; it must be Float [6], contiguous",
    "coded emptied": "em_native::linear_codes: codes reaches beyond its memory",
    "embed ids": "em_native::embed_codes: ids is Float; it must be Long",
    "embed below": "em_native::embed_codes: ids holds -1; they must be from 0 to 5",
    "embed beyond": "em_native::embed_codes: ids holds 6; they must be from 0 to 5",
    "embed codes": "em_native::embed_codes: codes is [6, 8]; it must have 3 axes, the middle one from 1 to 2147483647",
    "embed rows": "em_native::embed_codes: codes is Char [1, 8, 32]; it must be Char [2, 8, 32], contiguous",
    "embed scales": "em_native::embed_codes: scales is [6, 1]; it must have one axis, from 1 to 2147483647",
    "embed type": "em_native::embed_codes: codes is Float [1, 8, 32]; it must be Char [1, 8, 32], contiguous",
    "gated axes": "em_native::gated: x is []; it must have at least 1 axis, the last one even and at most 2147483647",
    "gated odd": "em_native::gated: x is [3, 7]; it must have at least 1 axis, the last one even and at most "
    "2147483647",
    "gated type": "em_native::gated: x is Half; it must be Float or BFloat16",
    "gated emptied": "em_native::gated: x reaches beyond its memory",
    "gated activation": "em_native::gated: activation is unknown; it must be none, gelu, gelu_tanh, relu, silu, tanh "
    "or sigmoid",
    "rows axes": "em_native::quantise_rows: x is []; it must have at least 1 axis, the last one from 1 to 65536",
    "rows type": "em_native::quantise_rows: x is Int; it must be Float or BFloat16",
}

# The test program beside the library, and without it.
TESTS = ("-DEM_NATIVE_TESTS=ON",)
ALONE = (*TESTS, "-DEM_NATIVE_LIBRARY=OFF", "-DCMAKE_CXX_FLAGS=-Werror")

ASK = "import sys, torch; torch.ops.load_library(sys.argv[1]); print(torch.ops.em_native.version())"


def build(folder: Path, *definitions: str) -> Path:
    """Configure and build runtime/kernels. What is compiled already stays."""
    for command in (
        [CMAKE, "-S", ROOT / "runtime/kernels", "-B", folder, *this_torch(), *definitions],
        [CMAKE, "--build", folder, "-j", "2"],
    ):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library and the test program, copied from where `make install` builds the first."""
    folder = tmp_path_factory.mktemp("kernels")
    with alone_in_work() as work:
        build(work, *TESTS)
        for name in (native_build.BUILT, "kernel-tests"):
            shutil.copy(work / name, folder)
    return folder


@pytest.fixture(scope="session")
def library(built: Path) -> Path:
    return built / native_build.BUILT


def cases(library: Path, part: str, level: str) -> subprocess.CompletedProcess[str]:
    # OpenMP's threads sleep while they wait, as in all tests.
    return run([*script(ROOT / "tests/kernel_cases.py"), library, part], EXPORTED_MODEL_KERNELS=level)


@pytest.mark.parametrize("level", FLAGS)
def test_answers(library: Path, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Lengths, widths, heads, windows, masks, segments, norms, threads: against fp64."""
    if level not in LEVELS:
        pytest.skip(f"this processor has no {level}")
    done = cases(library, "answers", level)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["level"] == level
    with capsys.disabled():
        print("", level, *(f"{name} {error:.1e}" for name, error in found["worst"].items()), sep="\n")


def test_bad_arguments_are_refused_with_one_line(library: Path) -> None:
    # The sizes of packed weights depend on the level.
    done = cases(library, "refusals", "avx2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # A shape whose answer no machine holds: PyTorch's allocator says so.
    assert "can't allocate memory" in found.pop("huge output")
    assert found == REFUSALS


def test_the_list_names_only_operators_of_the_library(library: Path) -> None:
    code = """
import sys, torch
torch.ops.load_library(sys.argv[1])
print(*(schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("em_native::")))
"""
    listed = {name for name in lists().operators if name.startswith("em_native::")}
    assert listed
    assert listed <= set(run_python(code, library).stdout.split())


def test_the_highest_level_is_the_default(library: Path) -> None:
    code = "import sys, torch; torch.ops.load_library(sys.argv[1]); print(torch.ops.em_native.level())"
    assert run_python(code, library, EXPORTED_MODEL_KERNELS="").stdout.split() == LEVELS[-1:]


def test_an_unknown_level_is_refused(library: Path) -> None:
    done = run_python(ASK, library, EXPORTED_MODEL_KERNELS="avx9")
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: EXPORTED_MODEL_KERNELS names no level of the native operators; it must be one of avx2, avx512, "
        "avx512_vnni, avx512_bf16, amx, or unset"
    )


@pytest.mark.parametrize("level", FLAGS)
def test_a_level_that_the_processor_lacks_is_refused(library: Path, level: str) -> None:
    if level in LEVELS:
        pytest.skip(f"this processor has {level}")
    done = run_python(ASK, library, EXPORTED_MODEL_KERNELS=level)
    assert f"RuntimeError: EXPORTED_MODEL_KERNELS is {level}, and this processor has at most " in done.stderr


def test_the_threads_are_those_of_torch(library: Path) -> None:
    """Compiled with OpenMP, or all runs on one thread; linked with no copy of it, or there are threads of two."""
    # clean start: programs of the system
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    # clean start: a program of the system
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "GOMP_parallel" in symbols
    assert "gomp" not in needed


@pytest.mark.usefixtures("built")
def test_levels_share_no_functions() -> None:
    """The linker keeps one copy of an inline function, and it could be one that only AVX-512 can run."""
    objects = [path for level in FLAGS for path in sorted(WORK.glob(f"CMakeFiles/em_native_{level}.dir/*.o"))]
    assert len(objects) == 7 * len(FLAGS)
    for path in objects:
        # clean start: a program of the system
        symbols = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
        assert [line for line in symbols if line.split()[-2] in "WwVvu"] == []


@pytest.mark.parametrize("sanitized", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_kernels_without_torch(sanitized: bool, request: pytest.FixtureRequest) -> None:
    """The kernels' own program: inputs that end where their memory ends; with AddressSanitizer and UBSan too."""
    if sanitized:
        # They compile for minutes: no level that this processor could not run.
        highest = f"-DEM_NATIVE_HIGHEST={LEVELS[-1]}"
        definitions = (*ALONE, "-DEM_NATIVE_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug", highest)
        _kernel_tests(build(ROOT / "build/kernels-asan", *definitions), "100")
    else:
        _kernel_tests(request.getfixturevalue("built"), "400")


def test_a_level_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="EM_NATIVE_HIGHEST is avx9; it must be one of"):
        build(tmp_path, *ALONE, "-DEM_NATIVE_HIGHEST=avx9")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/include/simde").is_dir(), reason="needs SIMDe (Debian: libsimde-dev)")
def test_the_code_of_levels_that_the_processor_lacks() -> None:
    """The AVX-512 levels on AVX2, function by function; their sums of codes are those of AVX2."""
    out = _kernel_tests(build(ROOT / "build/kernels-emulated", *ALONE, "-DEM_NATIVE_EMULATE=ON"), "150")
    assert [line.split(":")[0] for line in out.splitlines() if "cases each" in line] == list(FLAGS)


def _kernel_tests(folder: Path, cases: str) -> str:
    done = run([folder / "kernel-tests", cases])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all held\n")
    return done.stdout
