"""The C++ library: its own tests in CTest, its programs, its CMake package, the typed header."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from exporter import ExportRequest, Report, export
from exporter.backends.candidates import ONEDNN_SINCE
from exporter.packaging.cpp_header import cpp_header, identifier
from exporter.verification.subprocesses import module, script
from runtime import load
from runtime.errors import OutputError, OutputExistsError, RequestError
from runtime.format import manifest as format_
from runtime.format.golden import Case, dump_cases
from runtime.host.ipex_library import ipex_library
from runtime.host.requirements import minor
from tests.conftest import BIN, LACKS, ROOT, run, run_python
from tests.hostile import all_cases
from tests.hostile.__main__ import write
from tests.hostile.builder import forge
from tests.support.sounds import sound, spectrogram_folder
from tests.test_artifact import rewrite
from tests.test_generation import made
from tests.test_recipes import BAD_RECIPES, RECIPES

pytestmark = [pytest.mark.cpp, pytest.mark.usefixtures("native_operators")]

if minor(torch.__version__) < ONEDNN_SINCE:
    pytest.skip("artifacts of a newer torch", allow_module_level=True)

# Those that pip installed, else the system's.
CMAKE, CTEST = (shutil.which(name, path=f"{BIN}:{os.environ['PATH']}") for name in ("cmake", "ctest"))

# The Python runtime's answers to golden inputs: the last round's, in the layout of golden.safetensors.
ANSWERS = """
import sys
from pathlib import Path
import runtime
from runtime.artifact import artifact_file
from runtime.format.golden import Case, dump_cases, parse_cases

for path in map(Path, sys.argv[1:]):
    session = runtime.load(path, threads=2)
    golden = artifact_file.read_part(path, "golden.safetensors")
    cases = sorted(parse_cases(golden, path.name), key=lambda case: case.name)
    for _ in range(3):
        answers = [session(**case.inputs) for case in cases]
    found = [Case(case.name, case.inputs, answer) for case, answer in zip(cases, answers, strict=True)]
    path.with_suffix(".answers").write_bytes(dump_cases(found))
"""

# What the Python runtime writes behind the same ids. Its tokenizer is left out: an encoder of texts such as "5 17 3".
WRITTEN = """
import json, sys
from pathlib import Path
import runtime
from runtime.generation.settings import settings_of
from runtime.text.generation import Request, TextGenerator

class Numbers:
    def prompts(self, texts, *, special):
        return [type("Encoding", (), {"ids": [int(one) for one in text.split()]}) for text in texts]
    def decode(self, ids, *, special):
        return ""

cases = json.loads(Path(sys.argv[1]).read_text())
for path in map(Path, sys.argv[2:]):
    session = runtime.load(path, threads=2)
    info = session.manifest.generation
    writer = TextGenerator(session.decode, info, Numbers())
    for case in cases:
        options = dict(case["options"])
        most = options.pop("max_new_tokens", None)
        request = Request(settings_of(info.defaults, **options), most, (), True)
        texts = [" ".join(map(str, ids)) for ids in case["prompts"]]
        found = writer.results(texts, request, "raise", "prompt")
        case["results"] = [{"ids": one.ids, "logprobs": one.logprobs, "finish": one.finish} for one in found]
    path.with_suffix(".generated").write_text(json.dumps(cases))
"""


# Backend and precision; without those that this processor cannot run.
ARTIFACTS = (
    ("plain", "fp32"),
    *(
        (name, precision)
        for name in ("onednn", "ipex")
        for precision in (("fp32",) if LACKS else ("fp32", "bf16", "int8"))
    ),
    *(("native", precision) for precision in ("fp32", "bf16")),
)
GENERATING = ("native", "onednn", "plain")
# Those of the library, two per artifact, and on processors with bf16 the contract of an artifact in bf16.
TESTS = 26 + len(GENERATING) + 2 * len(ARTIFACTS) + (not LACKS)


@pytest.fixture(scope="session")
def data(
    tiny_folder: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
    minilm: Path,
    exported: Callable[..., Report],
) -> Path:
    """What tests/cpp reads: artifacts of every backend and precision, Python's answers, damaged files, a contract."""
    # Always the same folder, and the header only written anew where it is another, or a program would be compiled anew.
    folder = ROOT / "build/cpp-data"
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "contract.h"
    for path in folder.iterdir():
        if path != header:
            path.unlink()
    model = tiny_folder("bert", "text-classification", num_labels=3)
    plain = exported(model, backend="plain").output
    samples = folder / "lines.txt"
    samples.write_text(run([*script(ROOT / "examples/calibration/lines.py"), 60]).stdout)
    for backend, precision in ARTIFACTS:
        # A trained model for int8: the answers of an untrained one are mostly rounding.
        options = {"model": minilm, "calibration": samples} if precision == "int8" else {"model": model}
        source = exported(precision=precision, backend=backend, **options).output
        shutil.copy(source, folder / f"{backend}-{precision}.pt")
    # A process each: IPEX changes the kernels of the one that loads it.
    for artifact in folder.glob("*-*.pt"):
        done = run_python(ANSWERS, artifact)
        assert done.returncode == 0, done.stderr
    manifest = json.loads(
        subprocess.run([BIN / "run-model", "inspect", "--json", plain], capture_output=True, check=True).stdout
    )
    needs = manifest["requires"]
    for name, parts in {
        "newer": {"format_version": b"3"},
        "older": {"format_version": b"1"},
        "no-number": {"format_version": b"one"},
        "bare": {"manifest.json": None},
        "no-json": {"manifest.json": b"{"},
        "no-task": {"manifest.json": json.dumps({k: v for k, v in manifest.items() if k != "task"}).encode()},
        "newer-torch": {"manifest.json": json.dumps(manifest | {"requires": needs | {"torch": "99.0.0"}}).encode()},
        "other-cpu": {
            "manifest.json": json.dumps(manifest | {"requires": needs | {"cpu_flags": ["quantum"]}}).encode()
        },
        "golden": {"golden.safetensors": b"\xff" * 20},
    }.items():
        rewrite(Path(plain), folder / f"{name}.pt", parts)  # type: ignore[arg-type]
    for path in (ROOT / "tests/data").glob("*.pt"):
        shutil.copy(path, folder)
    (folder / "cut.pt").write_bytes(Path(plain).read_bytes()[:100_000])
    (folder / "text.pt").write_text("no artifact")
    (folder / "empty.pt").touch()
    described = [(one, {"x": one.make()}) for one in RECIPES]
    cases = [Case(str(number), made, made, {}, {"x": one}) for number, (one, made) in enumerate(described)]
    (folder / "recipes.safetensors").write_bytes(dump_cases(cases))
    for name, numbers in BAD_RECIPES.items():
        (folder / f"recipe-{name}").write_bytes(save({"0/noise/x": torch.tensor(numbers)}))
    # An operator that computes, and that no export contains.
    body = "y = torch.special_bessel_j0(torch.zeros([torch.size(input_ids, 0), 3], dtype=6))\nreturn (y,)"
    (folder / "bessel.pt").write_bytes(forge(Path(plain).read_bytes(), body))
    write_pictures(folder, tiny_folder, exported)
    write_sounds(folder, tmp_path_factory.mktemp("spectrograms"), exported)
    write_generation(folder, made(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=700), exported)
    if LACKS:
        header.unlink(missing_ok=True)
        return folder
    onednn = exported(model, precision="bf16", backend="onednn")
    text = cpp_header(onednn.manifest, onednn.sha256, "contract")
    if not header.exists() or header.read_text() != text:
        header.write_text(text)
    return folder


def write_pictures(folder: Path, tiny_folder: Callable[..., Path], exported: Callable[..., Report]) -> None:
    """An artifact that takes pictures, and what Python makes of some."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 24, "patch_size": 8}
    model = tiny_folder("dinov2", "image-feature-extraction", num_hidden_layers=1, **sizes)
    settings = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 30}, "resample": 3}
    settings |= {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    source = exported(model, backend="plain", task="image-feature-extraction").output
    shutil.copy(source, folder / "picture.pt")
    session = load(folder / "picture.pt")
    cases = []
    for height, width in ((1, 1), (90, 40), (31, 333)):
        picture = torch.arange(height * width * 3).reshape(height, width, 3) * 37 % 251
        made = session.preprocess(picture.to(torch.uint8))
        # Clones: outputs may be views of the same tensor, which safetensors does not store.
        outputs = {name: tensor.clone() for name, tensor in (made | session(**made)).items()}
        cases.append(Case(f"{height}x{width}", {"picture": picture}, outputs))
    (folder / "picture.answers").write_bytes(dump_cases(cases))


def write_sounds(folder: Path, place: Path, exported: Callable[..., Report]) -> None:
    """An artifact that takes sounds, and what Python makes of some."""
    shutil.copy(exported(spectrogram_folder(place), backend="plain").output, folder / "sound.pt")
    session = load(folder / "sound.pt")
    cases = []
    for seconds in (0.03, 0.7, 2.0):
        samples = sound(seconds)
        made = session.preprocess(samples)
        cases.append(Case(str(seconds), {"sound": samples}, made | session(**made)))
    (folder / "sound.answers").write_bytes(dump_cases(cases))


def write_generation(folder: Path, model: Path, exported: Callable[..., Report]) -> None:
    """Artifacts that generate, and what Python writes with them."""
    artifacts = []
    for backend in GENERATING:
        artifacts.append(folder / f"generation-{backend}.pt")
        shutil.copy(exported(model, backend=backend, max_length=700).output, artifacts[-1])
    numbers = torch.Generator().manual_seed(11)

    def prompts(*lengths: int) -> list[list[int]]:
        return [torch.randint(3, 390, (length,), generator=numbers).tolist() for length in lengths]

    cases: list[tuple[list[list[int]], dict[str, Any]]] = [
        (prompts(5), {"max_new_tokens": 40}),
        (prompts(5), {}),
        # In pieces of 512; a cache that grows.
        (prompts(600, 3, 511, 512, 513), {"max_new_tokens": 70}),
        (prompts(4, 9), {"max_new_tokens": 20, "repetition_penalty": 1.4}),
        (prompts(7, 2), {"max_new_tokens": 20, "temperature": 1.3, "seed": 5}),
        (prompts(7, 2), {"max_new_tokens": 20, "temperature": 0.8, "top_k": 0, "top_p": 0.9, "seed": 2**62 - 9}),
        (prompts(7), {"max_new_tokens": 20, "top_k": 7, "seed": 0}),
        (prompts(7, 3), {"max_new_tokens": 20, "temperature": 2.0, "top_k": 90, "min_p": 0.02, "seed": 3}),
        (prompts(8), {"max_new_tokens": 20, "top_k": 60, "top_p": 0.7, "repetition_penalty": 0.9, "seed": 4}),
        # More than are written together.
        (prompts(*range(40, 1, -2)), {"max_new_tokens": 9, "temperature": 0.9, "seed": 12}),
    ]
    asked = folder / "generation.json"
    asked.write_text(json.dumps([{"prompts": rows, "options": options} for rows, options in cases]))
    done = run_python(WRITTEN, asked, *artifacts)
    assert done.returncode == 0, done.stderr


# For folders of the tests alone. Those that `make install` and `make cpp` build too have their flags (.ci/run), or what
# is compiled there would be compiled anew each time.
STRICT = "-DCMAKE_CXX_FLAGS=-Werror"


def build(folder: Path, source: Path, *definitions: str) -> Path:
    """Configure and build a CMake project; what is compiled already stays."""
    # clean start: for CMake, which asks it for the folder of torch
    flags = [f"-DPython3_EXECUTABLE={sys.executable}", *definitions]
    if shutil.which("ccache"):
        flags += ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"]
    for command in ([CMAKE, "-S", source, "-B", folder, *flags], [CMAKE, "--build", folder, "-j", "2"]):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def built(data: Path, native_operators: Path) -> Path:
    """The programs, compiled where `make cpp` puts them; what is compiled already stays."""
    definitions = ["-DEXPORTED_MODEL_TESTS=ON", f"-DEXPORTED_MODEL_TEST_DATA={data}"]
    # tests/test_native_cpp.py compiles them.
    definitions.append(f"-DEXPORTED_MODEL_NATIVE_LIBRARY={native_operators}")
    return build(ROOT / "build/cpp", ROOT / "runtime/cpp", *definitions)


@pytest.fixture(scope="session")
def program(built: Path) -> Path:
    return built / "exported-model"


def ctest(folder: Path) -> str:
    done = run([CTEST, "--test-dir", folder, "--output-on-failure", "--verbose"])
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_ctest(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Golden answers, bit for bit Python's, bad files and inputs, eight threads, 1,000 loads: tests/cpp."""
    output = ctest(built)
    assert f"100% tests passed, 0 tests failed out of {TESTS}" in output, output
    with capsys.disabled():
        print("", *re.findall(r"1,000 rounds.*|SHA-256 .*", output), sep="\n")


@pytest.fixture(scope="session")
def sanitized(data: Path) -> Path:
    """The same tests with AddressSanitizer and UndefinedBehaviourSanitizer."""
    definitions = [
        "-DEXPORTED_MODEL_SANITIZE=ON",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DEXPORTED_MODEL_PROGRAM=OFF",
        "-DEXPORTED_MODEL_TESTS=ON",
        # tests/test_kernels.py runs the kernels under sanitizers.
        "-DEXPORTED_MODEL_NATIVE=OFF",
    ]
    definitions += [STRICT, f"-DEXPORTED_MODEL_TEST_DATA={data}"]
    return build(ROOT / "build/cpp-asan", ROOT / "runtime/cpp", *definitions)


@pytest.mark.slow
def test_ctest_under_address_sanitizer(sanitized: Path) -> None:
    assert "100% tests passed, 0 tests failed out of 23" in ctest(sanitized)


# ---- Hostile files ----


@pytest.fixture(scope="session")
def hostile(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of tests/hostile, in the order of their cases."""
    folder = tmp_path_factory.mktemp("hostile")
    return [folder / row["file"] for row in write(folder, tiny_artifact.read_bytes())]


def attempts(program: Path, files: list[Path]) -> list[str]:
    """What C++ makes of each file, in a child process of its own; compare tests/hostile/attempt.py."""
    # clean start: no Python
    done = subprocess.run(
        [program, "-", "attempt"],
        input="".join(f"{file}\n" for file in files),
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "halt_on_error=1",
        },
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("sanitizers", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "sanitizers"])
def test_hostile_files(sanitizers: bool, hostile: list[Path], request: pytest.FixtureRequest) -> None:
    """Each is refused by the error that Python has for it, or answers where it is sound after all; no signal."""
    folder = request.getfixturevalue("sanitized" if sanitizers else "built")
    outcomes = attempts(next(folder.rglob("session-tests")), hostile)
    wrong = []
    for case, outcome in zip(all_cases(), outcomes, strict=True):
        right = {
            "right": outcome == "answered",
            "refused": outcome.startswith(f"refused {case.error}"),
            "named": outcome.startswith(("refused ", "answered")),
        }
        if not right[case.expected]:
            wrong.append(f"{case.kind}-{case.name}: {outcome}")
    assert wrong == []


def test_both_languages_refuse_by_the_same_name(built: Path, hostile: list[Path]) -> None:
    # clean start: the current folder is the project's own
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.attempt"],
        input="".join(f"{file}\n" for file in hostile),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    python = [line.split()[:2] for line in done.stdout.splitlines()]
    cpp = [line.split()[:2] for line in attempts(built / "tests/session-tests", hostile)]
    differing = [
        (case.kind, case.name, one, other)
        for case, one, other in zip(all_cases(), python, cpp, strict=True)
        if one != other
    ]
    assert differing == []


def test_the_program_refuses_hostile_files(program: Path, hostile: list[Path]) -> None:
    """Exit code 1 and one line, for one file of each kind; the others are run in one process, above."""
    # What `decode` does is found out where it is called, and check calls `forward`.
    kinds = {
        case.kind: file
        for case, file in zip(all_cases(), hostile, strict=True)
        if case.expected == "refused" and (case.kind != "generation" or case.error == "ManifestDamagedError")
    }
    for file in kinds.values():
        done = run([program, "check", file])
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, file
        assert done.stderr.startswith("exported-model: ")


def test_the_manifest_has_the_same_fields_in_both_languages() -> None:
    """The schema in manifest_schema.h against the dataclasses of the format."""
    text = (ROOT / "runtime/cpp/include/exported_model/manifest_schema.h").read_text()
    schema, tensor = (json.loads(found) for found in re.findall(r'R"\((.*?)\)"', text, re.S))
    assert schema == fields_of(format_.Manifest)
    assert tensor == fields_of(format_.TensorSpec)


def fields_of(cls: type) -> dict[str, object]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.name + ("" if field.default is dataclasses.MISSING else "?"): written_type(hints[field.name])
        for field in dataclasses.fields(cls)
    }


def written_type(kind: typing.Any) -> typing.Any:
    """A type of the dataclasses as manifest_schema.h writes it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is format_.TensorSpec:
        return "tensor"
    if kind == format_.FreeText:
        return "text"
    if dataclasses.is_dataclass(kind):
        return fields_of(typing.cast(type, kind))
    if origin is typing.Literal:
        return "|".join(arguments)
    if origin is tuple:
        return [written_type(arguments[0])]
    if origin is dict:
        return {"*": written_type(arguments[1])}
    if origin in (typing.Union, types.UnionType):
        inner = written_type(arguments[0])
        return f"{inner}?" if isinstance(inner, str) else [None, inner]
    return str(kind.__name__)


# ---- The program ----


def errors_of(output: str) -> list[float]:
    """The errors in a table's rows."""
    return [float(text) for text in re.findall(r"\b\d\.\d{2}e[+-]\d{2}\b", output)]


def test_check(program: Path, data: Path) -> None:
    done = run([program, "check", data / "plain-fp32.pt"])
    assert (done.returncode, done.stderr) == (0, "")
    assert errors_of(done.stdout) and max(errors_of(done.stdout)) <= 5e-5
    assert "passed: text-classification, fp32, plain backend" in done.stdout


def test_wrong_answers_are_seen(program: Path, data: Path, tmp_path: Path) -> None:
    ids = torch.tensor([[1, 2, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    wrong = dump_cases([Case("0", inputs, {"logits": torch.full((1, 3), 5.0)})])
    done = run(
        [program, "check", rewrite(data / "plain-fp32.pt", tmp_path / "wrong.pt", {"golden.safetensors": wrong})]
    )
    assert done.returncode == 1 and "OFF" in done.stdout and "FAILED" in done.stdout


@pytest.mark.parametrize("given", ["option", "environment", "pip"])
def test_where_the_library_of_ipex_is_found(given: str, program: Path, data: Path) -> None:
    arguments = ["--ipex-library", ipex_library()] if given == "option" else []
    variables = {"EXPORTED_MODEL_IPEX_LIBRARY": str(ipex_library())} if given == "environment" else {}
    done = run([program, "check", data / "ipex-fp32.pt", *arguments], **variables)
    assert (done.returncode, done.stderr) == (0, "")
    done = run([program, "check", data / "ipex-fp32.pt"], EXPORTED_MODEL_IPEX_LIBRARY="/nothing.so")
    assert done.returncode == 1 and done.stderr.startswith("exported-model: cannot load IPEX: /nothing.so")


def test_inspect(program: Path, data: Path) -> None:
    done = run([program, "inspect", data / "onednn-fp32.pt"])
    known = run([BIN / "run-model", "inspect", "--json", data / "onednn-fp32.pt"])
    assert done.returncode == 0 and json.loads(done.stdout) == json.loads(known.stdout)


def test_inspect_verifies(program: Path, data: Path) -> None:
    """The digests of the parts, and that of the whole file."""
    known = run([BIN / "run-model", "inspect", "--verify", "--json", data / "plain-fp32.pt"])
    done = run([program, "inspect", "--verify", data / "plain-fp32.pt"])
    digest = json.loads(known.stdout)["sha256"]
    assert json.loads(done.stdout)["sha256"] == digest
    for command in ("inspect", "check"):
        assert run([program, command, data / "plain-fp32.pt", "--sha256", digest.upper()]).returncode == 0
        done = run([program, command, data / "plain-fp32.pt", "--sha256", "0" * 64])
        assert done.returncode == 1 and "has sha256 " + digest in done.stderr
    # Without --verify, only what is printed was read.
    assert run([program, "inspect", data / "golden.pt"]).returncode == 0


def test_bench(program: Path, data: Path) -> None:
    done = run(
        [program, "bench", data / "onednn-fp32.pt", "--shape", "2x16", "--seconds", "0.2", "--workers", "2", "--raw"]
    )
    assert done.returncode == 0, done.stderr
    assert "at 2x16" in done.stdout and re.search(r"^Session::run +\d+", done.stdout, re.M)
    assert re.search(r"^forward +\d+", done.stdout, re.M)


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["fly", "a.pt"], ["check"], ["check", "--no-such-option"], ["check", "a.pt", "b.pt"]),
        *(
            ["check", "a.pt", "--threads"],
            ["check", "a.pt", "--threads", "many"],
            ["inspect", "a.pt", "--threads", "1"],
        ),
        ["bench", "{}/plain-fp32.pt", "--shape", "1x2x3"],
    ],
)
def test_usage_errors(program: Path, data: Path, arguments: list[str]) -> None:
    done = run([program, *(argument.format(data) for argument in arguments)])
    assert done.returncode == 2 and "usage: exported-model" in done.stderr and done.stdout == ""


# ---- The package ----


def test_an_outside_project_uses_an_installed_package(
    built: Path, data: Path, tmp_path: Path, native_operators: Path
) -> None:
    """Without Python's help: the prefix of `cmake --install`, a folder of libtorch, a ready-made library."""
    prefix = tmp_path / "prefix"
    assert run([CMAKE, "--install", built, "--prefix", prefix]).returncode == 0
    assert run([prefix / "bin/exported-model", "check", data / "native-fp32.pt"]).returncode == 0
    assert (next(prefix.glob("lib*/cmake/ExportedModel")) / "kernels/register.cpp").is_file()
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(App LANGUAGES CXX)\n"
        "find_package(ExportedModel 0.1 CONFIG REQUIRED)\nadd_executable(app app.cpp)\n"
        "target_link_libraries(app ExportedModel::ExportedModel)\n"
    )
    (project / "app.cpp").write_text(
        "#include <exported_model/exported_model.h>\n#include <iostream>\n"
        "int main(int, char** argv) {\n"
        "  exported_model::Session session(argv[1]);\n"
        '  std::cout << session.run({{"input_ids", at::ones({2, 4}, at::kLong)}}).at("logits").sizes();\n}\n'
    )
    json_header = (
        Path(sys.prefix)
        / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/nlohmann_json/include"
    )
    definitions = [
        f"-DCMAKE_PREFIX_PATH={prefix};{json_header.parent}",
        f"-DTORCH_ROOT={Path(torch.__file__).parent}",
        f"-DEXPORTED_MODEL_NATIVE_LIBRARY={native_operators}",
    ]
    for command in (
        [CMAKE, "-S", project, "-B", tmp_path / "b", *definitions, "-DPython3_EXECUTABLE=/nothing"],
        [CMAKE, "--build", tmp_path / "b"],
    ):
        done = run(command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert run([tmp_path / "b/app", data / "native-fp32.pt"]).stdout == "[2, 3]"


def test_what_is_missing_is_said_when_configuring(tmp_path: Path) -> None:
    command = [CMAKE, "-S", ROOT / "examples/cpp", "-B", tmp_path, "-DPython3_EXECUTABLE=/nothing"]
    done = run([*command, f"-DExportedModel_DIR={ROOT / 'runtime/cpp/cmake'}"])
    assert done.returncode != 0 and "libtorch (give -DTORCH_ROOT=folder" in " ".join(done.stderr.split())


def test_the_package_is_found_from_python() -> None:
    done = run([*module("runtime"), "--cmake-dir"])
    assert (Path(done.stdout.strip()) / "ExportedModelConfig.cmake").is_file()
    assert run(module("runtime")).returncode == 2


# ---- The examples ----


@pytest.fixture(scope="session")
def examples(native_operators: Path) -> Path:
    """Built as `make cpp` does: the folder alone, and where Python says that the package lies."""
    return build(
        ROOT / "build/cpp-worker",
        ROOT / "examples/cpp",
        f"-DExportedModel_DIR={ROOT / 'runtime/cpp/cmake'}",
        f"-DEXPORTED_MODEL_NATIVE_LIBRARY={native_operators}",
    )


@pytest.fixture(scope="session")
def worker(examples: Path) -> Path:
    return examples / "worker"


@pytest.fixture(scope="session")
def generate(examples: Path) -> Path:
    return examples / "generate"


def requests(count: int) -> Iterator[str]:
    for number in range(count):
        yield json.dumps({"id": number, "inputs": {"input_ids": [[number % 200 + 1] * (number % 7 + 1)] * 2}})


def test_the_worker_answers_lines(worker: Path, data: Path) -> None:
    import runtime

    bad = [
        "{",
        '{"id": 1000}',
        '{"id": "a", "inputs": {"input_ids": [[1, 2], [3]]}}',
        '{"id": "b", "inputs": {"input_ids": [[-1]]}}',
    ]
    lines = [*requests(60), *bad, ""]
    command = [worker, data / "plain-fp32.pt", "--workers", "3", "--queue", "4"]
    # clean start: a program in C++
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)  # type: ignore[arg-type]
    assert (done.returncode, done.stderr) == (0, "")
    replies = {reply["id"]: reply for reply in map(json.loads, done.stdout.splitlines())}
    assert len(done.stdout.splitlines()) == 64
    session = runtime.load(data / "plain-fp32.pt")
    for number in range(60):
        ids = torch.full((2, number % 7 + 1), number % 200 + 1)
        expected = session(input_ids=ids)["logits"]
        torch.testing.assert_close(torch.tensor(replies[number]["outputs"]["logits"]), expected, rtol=1e-5, atol=1e-6)
    assert "holds -1; expected integers from 0" in replies["b"]["error"]
    assert "rows of equal length" in replies["a"]["error"]
    assert "inputs" in replies[1000]["error"] and "parse error" in replies[None]["error"]


def test_the_worker_serves_connections_and_ends_when_told(worker: Path, data: Path) -> None:
    """After SIGTERM what was read is answered, and the exit code is 0."""
    # clean start: a program in C++
    with subprocess.Popen(
        [worker, data / "plain-fp32.pt", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)) as two:
            for connection in (one, two):
                connection.sendall(("\n".join(requests(20)) + "\n").encode())
            with one.makefile() as answers:
                assert {json.loads(answers.readline())["id"] for _ in range(20)} == set(range(20))
            process.send_signal(signal.SIGTERM)
            with two.makefile() as answers:
                assert {json.loads(line)["id"] for line in answers} == set(range(20))
        assert process.wait(60) == 0


def test_the_worker_refuses(worker: Path, data: Path) -> None:
    done = run([worker, data / "cut.pt"])
    assert done.returncode == 1 and done.stderr.startswith("worker: ") and len(done.stderr.splitlines()) == 1
    for arguments in ([], ["a.pt", "--workers", "0"], ["a.pt", "--port"], ["a.pt", "b.pt"]):
        assert run([worker, *arguments]).returncode == 2


def test_the_example_writes_as_python_does(generate: Path, data: Path) -> None:
    """A line per id as it comes, then a line per prompt with its end."""
    cases = json.loads((data / "generation-plain.generated").read_text())
    for case in [one for one in cases if len(one["prompts"]) > 1][1:4]:
        options = [part for name, value in case["options"].items() for part in (f"--{name.replace('_', '-')}", value)]
        # clean start: a program in C++
        done = subprocess.run(
            [generate, data / "generation-plain.pt", "--threads", "2", "--logprobs", "-v", *map(str, options)],
            input="\n".join(" ".join(map(str, ids)) for ids in case["prompts"]),
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.split() for line in done.stdout.splitlines()]
        for row, result in enumerate(case["results"]):
            mine = [line[1:] for line in lines if line[0] == str(row)]
            assert [int(line[0]) for line in mine[:-1]] == result["ids"]
            assert [float(line[1]) for line in mine[:-1]] == pytest.approx(result["logprobs"], rel=1e-5)
            assert mine[-1] == [result["finish"]]
        assert re.search(r"the first token after .* per second", done.stderr)


@pytest.mark.parametrize(
    ("prompts", "arguments", "problem"),
    [
        ("", [], "there are no prompts"),
        ("3 x 5", [], "line 1 of standard input is no list of ids"),
        ("3\n\n", [], "prompt 2 is empty"),
        ("3 400", [], "the prompt holds 400"),
        ("3", ["--max-new-tokens", "0"], "max_new_tokens is 0"),
        ("3", ["--repetition-penalty", "nan"], "repetition_penalty is nan"),
        ("3", ["--seed", "-1"], "seed is -1"),
        ("3", ["--threads", "0"], "threads is 0"),
    ],
)
def test_the_example_refuses(generate: Path, data: Path, prompts: str, arguments: list[str], problem: str) -> None:
    command = [str(generate), str(data / "generation-plain.pt"), *arguments]
    # clean start: a program in C++
    done = subprocess.run(command, input=prompts, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("generate: ") and problem in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["a.pt", "b.pt"], ["a.pt", "--seed"], ["a.pt", "--seed", "x"], ["--fly", "1"]]
)
def test_the_example_tells_its_usage(generate: Path, arguments: list[str]) -> None:
    done = run([generate, *arguments])
    assert done.returncode == 2 and done.stderr.startswith("usage: generate FILE") and done.stdout == ""


# ---- The typed header ----


def test_the_command_line_writes_a_header(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_folder("bert", "text-classification", num_labels=3)
    command = [BIN / "export-model", folder, "-o", tmp_path / "m.pt", "--backend", "plain", "--verify", "off"]
    command += ["--cpp-header", tmp_path / "my-model.h"]
    assert run(command).returncode == 0
    text = (tmp_path / "my-model.h").read_text()
    digest = run([BIN / "run-model", "inspect", "--verify", "--json", tmp_path / "m.pt"]).stdout
    assert "namespace my_model {" in text and f'kArtifactSha256 = "{json.loads(digest)["sha256"]}"' in text
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["m.pt", "my-model.h"]
    again = run([*command[:3], tmp_path / "n.pt", *command[4:]])
    assert again.returncode == 1 and "my-model.h exists" in again.stderr and not (tmp_path / "n.pt").exists()


def test_headers_that_cannot_be_written(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    def request(header: Path) -> ExportRequest:
        return ExportRequest(str(tiny_folder()), tmp_path / "m.pt", cpp_header=header)

    with pytest.raises(RequestError, match="two files"):
        request(tmp_path / "m.pt")
    with pytest.raises(OutputError, match="is a folder"):
        export(request(tmp_path))
    (tmp_path / "h.h").touch()
    with pytest.raises(OutputExistsError, match=r"h\.h exists"):
        export(request(tmp_path / "h.h"))
    assert [path.name for path in tmp_path.iterdir()] == ["h.h"]


@pytest.mark.parametrize(
    "text, name",
    [
        ("my-model", "my_model"),
        ("7b.v2", "model_7b_v2"),
        ("class", "class_"),
        ("--", "model"),
        ("a__b_", "a_b"),
        ("é", "model"),
    ],
)
def test_names_are_such_as_cpp_takes(text: str, name: str) -> None:
    assert identifier(text) == name
