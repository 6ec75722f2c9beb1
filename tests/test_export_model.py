"""`export-model` as a user types it: what it says, what it leaves behind, what it never harms."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import exporter.cli
from exporter import ExportRequest, export
from exporter.loading.loader import load_source
from exporter.packaging.report import StageEvent
from exporter.packaging.staging import expect_no_source
from exporter.shapes.example_inputs import make_inputs
from exporter.shapes.trace_plan import make_plan
from exporter.verification.subprocesses import python, script
from runtime import load, read_manifest
from tests.conftest import BIN, LACKS_BF16, ROOT, run

Folder = Callable[..., Path]
EXPORT = BIN / "export-model"


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process: faster than a fresh one, for errors that come early."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda *arguments: CliRunner().invoke(exporter.cli.main, [str(argument) for argument in arguments])


def error_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("export-model: ")
    return line


@pytest.mark.fresh
def test_the_whole_way(tiny_folder: Folder, tmp_path: Path) -> None:
    """A line a stage and a summary; nothing of other packages; one file and nothing beside it."""
    output = tmp_path / "model.pt"
    done = run([EXPORT, tiny_folder("roberta", "token-classification", type_vocab_size=1), "--bf16", "-o", output])
    assert (done.returncode, done.stderr) == (0, "")
    stages = [line.split()[0] for line in done.stdout.splitlines()]
    way = ["source", "backend", "trace", "save"]
    # All backends that have bf16 here, timed against each other, and the fastest verified.
    others = stages.count("trace") - 1
    assert others == (0 if LACKS_BF16 else 3)
    timed = [*way * others, "tune"] if others else []
    expected = [*("start", "source", "plan", "reference"), *way[1:], *timed, "verify", "publish"]
    assert stages[: len(expected)] == expected
    assert f"{output}: " in done.stdout and "sha256" in done.stdout and "tolerance" in done.stdout
    assert list(tmp_path.iterdir()) == [output]
    manifest = read_manifest(output)
    assert (manifest.task, manifest.precision) == ("token-classification", "bf16")
    chosen = "".join({timing.candidate for timing in manifest.timings if timing.chosen})
    assert not others or chosen.removesuffix(", padding dropped") == f"{manifest.backend} with eager attention"


@pytest.mark.slow
def test_json_is_all_that_is_printed(tiny_folder: Folder, tmp_path: Path) -> None:
    output = tmp_path / "model.pt"
    done = run([EXPORT, tiny_folder(), "--json", "--backend", "plain", "-o", output])
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["size"] == output.stat().st_size
    assert report["example_inputs"] == "dict"
    assert report["manifest"]["task"] == "text-classification"
    assert [stage["name"] for stage in report["stages"]][-1] == "publish"


@pytest.mark.parametrize(
    ("backend", "precision", "model_type", "task"),
    # Each model through both backends, each backend in both precisions.
    [
        ("ipex", "fp32", "bert", "fill-mask"),
        ("ipex", "bf16", "bert", "question-answering"),
        ("ipex", "bf16", "distilbert", "text-classification"),
        ("ipex", "fp32", "roberta", "token-classification"),
        ("ipex", "bf16", "bert", "feature-extraction"),
        ("plain", "bf16", "bert", "fill-mask"),
        ("plain", "fp32", "bert", "question-answering"),
        ("plain", "fp32", "distilbert", "text-classification"),
        ("plain", "bf16", "roberta", "token-classification"),
        ("plain", "fp32", "bert", "feature-extraction"),
    ],
)
def test_answers_are_the_models(
    tiny_folder: Folder, exported: Callable[..., Any], backend: str, precision: str, model_type: str, task: str
) -> None:
    """At shapes that the gate did not try, against eager fp32."""
    folder = tiny_folder(model_type, task)
    report = exported(folder, precision=precision, backend=backend)
    request = ExportRequest(str(folder), "unused.pt")
    source = load_source(request)
    plan = make_plan(source, request)
    session = load(report.output)
    bound = session.manifest.tolerance.max_error
    for batch, lengths in [(1, [1]), (5, [31, 2, 17, 8, 30]), (2, [64, 64]), (1, [1]), (4, [3, 3, 3, 3])]:
        inputs = make_inputs(plan, {"batch": batch, "sequence": max(lengths)}, lengths, seed=99).as_dict()
        with torch.no_grad():
            expected = source.model(**inputs)
        for name, answer in session(**inputs).items():
            error = (answer - expected[name]).abs().max() / expected[name].abs().max()
            assert error <= bound, (name, batch, lengths)


def test_an_explicit_tuple(tiny_folder: Folder, tmp_path: Path) -> None:
    request = ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain", example_inputs="tuple")
    assert export(request).example_inputs == "tuple"


def test_stages_are_observed_in_order(tiny_folder: Folder, tmp_path: Path) -> None:
    events: list[StageEvent] = []
    export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain"), events.append)
    assert [event.seconds is None for event in events] == [True, False] * 8
    assert all(event.detail for event in events if event.seconds is not None)


@pytest.mark.slow
def test_random_weights_are_marked(tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    done = run(
        [EXPORT, "minilm", "--random-weights", "--task", "feature-extraction", "--backend", "plain", "-o", output]
    )
    assert done.returncode == 0, done.stderr
    assert "random weights" in done.stdout
    assert read_manifest(output).model.random_weights
    assert "seeded random weights" in run([BIN / "run-model", "inspect", output]).stdout


def test_an_existing_output_is_kept_unless_forced(
    tiny_folder: Folder, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    output = tmp_path / "model.pt"
    output.write_text("precious")
    assert "give --force" in error_of(invoke(tiny_folder(), "-o", output))
    assert output.read_text() == "precious"
    assert run([EXPORT, tiny_folder(), "-o", output, "--force", "--backend", "plain"]).returncode == 0
    assert read_manifest(output).task == "text-classification"
    assert list(tmp_path.iterdir()) == [output]


def test_a_failed_export_harms_nothing(tiny_folder: Folder, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    output = tmp_path / "model.pt"
    output.write_text("precious")
    line = error_of(invoke(tiny_folder(), "-o", output, "--force", "--task", "sentence-embedding"))
    assert "modules.json" in line
    assert output.read_text() == "precious" and list(tmp_path.iterdir()) == [output]


def test_the_models_own_files_are_not_written_over(tiny_folder: Folder, copy_of: Callable[[Path], Path]) -> None:
    """Whatever `--force` says; a file that the exporter wrote into that folder may be replaced."""
    folder = copy_of(tiny_folder())
    weights = (folder / "model.safetensors").read_bytes()
    done = run([EXPORT, folder, "--force", "-o", folder / "model.safetensors"])
    assert done.returncode == 1
    assert "model.safetensors is a file of the model; expected a new name; give another -o" in done.stderr
    assert (folder / "model.safetensors").read_bytes() == weights
    ours = folder / "model.pt"
    shutil.copy(ROOT / "tests/data/format-2.pt", ours)
    expect_no_source(ours, str(folder))


@pytest.mark.slow
def test_a_reader_that_goes_away_costs_nothing(tiny_folder: Folder, tmp_path: Path) -> None:
    """`export-model … | head -c 1`: the lines are lost, the file is written."""
    output = tmp_path / "model.pt"
    command = f"{EXPORT} {tiny_folder()} --backend plain -o {output} | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = run(["bash", "-c", command])
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert output.exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "stage", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("source", "backend")), "save"]
)
def test_an_interrupted_export_leaves_nothing(minilm: Path, tmp_path: Path, ending: signal.Signals, stage: str) -> None:
    output = tmp_path / "model.pt"
    output.write_text("precious")
    # clean start: the project's own command
    process = subprocess.Popen(
        [str(EXPORT), str(minilm), "--force", "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the signal reaches its child too, as Ctrl-C does, and not the tests
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(stage):
            break
    time.sleep(0.3)
    os.killpg(process.pid, ending)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "export-model: interrupted; nothing was written"
    assert output.read_text() == "precious" and list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_file_or_the_new_one(tiny_folder: Folder) -> None:
    """A few of the moments that `make kill` tries; what is left is taken away by the next export."""
    done = run([*script(ROOT / "tests/kill_export.py"), tiny_folder(), "--times", "3", "--seed", "4"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_outputs_that_cannot_be(tiny_folder: Folder, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    assert "there is no folder" in error_of(invoke(tiny_folder(), "-o", tmp_path / "no" / "model.pt"))
    assert "is a folder" in error_of(invoke(tiny_folder(), "-o", tmp_path))
    (tmp_path / "file").write_text("")
    assert "cannot write" in error_of(invoke(tiny_folder(), "-o", tmp_path / "file" / "model.pt"))
    assert "cannot write" in error_of(invoke(tiny_folder(), "-o", "/proc/model.pt"))
    assert "too long" in error_of(invoke(tiny_folder(), "-o", tmp_path / ("a" * 300)))
    assert "is a folder" in error_of(invoke(tiny_folder(), "-o", f"{tmp_path}/new/"))


def test_what_is_no_regular_file_is_never_replaced(
    tiny_folder: Folder, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a regular file" in error_of(invoke(tiny_folder(), "-o", pipe, "--force"))
    assert pipe.is_fifo()


def test_a_link_stays_a_link(tiny_folder: Folder, tmp_path: Path) -> None:
    real, link = tmp_path / "real.pt", tmp_path / "link.pt"
    real.write_text("old")
    link.symlink_to(real)
    export(ExportRequest(str(tiny_folder()), link, backend="plain", force=True))
    assert link.is_symlink() and read_manifest(real).task == "text-classification"


# A file size limit is the full disk that needs no root: beyond it, writing fails with EFBIG. The draft of the
# tiny model is about 1 MB.
# No .pyc either: Python before 3.13 leaves a cut one behind where the limit is met, for whoever comes next.
_LIMITED = "import resource, signal, sys; sys.dont_write_bytecode = True; \
signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); \
sys.argv = sys.argv[1:]; from exporter.cli import main; main()"


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_disk_that_fills_up(tiny_folder: Folder, tmp_path: Path, limit: int) -> None:
    """PyTorch's own writer would abort the process here."""
    output = tmp_path / "model.pt"
    done = run([*python(_LIMITED), limit, tiny_folder(), "-q", "--backend", "plain", "-o", output])
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("export-model: ") and len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_called_so() -> None:
    import errno

    from exporter.packaging.staging import _named

    line = str(_named(Path("/data/model.pt"), OSError(errno.ENOSPC, "No space left on device")))
    assert line.startswith("the disk of /data is full") and "-o" in line


@pytest.mark.slow
def test_ipex_for_another_torch(tiny_folder: Folder, tmp_path: Path) -> None:
    """Importing it would end the process without a word."""
    fake = tmp_path / "fake" / "intel_extension_for_pytorch-2.7.0.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: intel-extension-for-pytorch\nVersion: 2.7.0\n")
    path = {"PYTHONPATH": str(fake.parent)}
    output = tmp_path / "model.pt"
    done = run([EXPORT, tiny_folder(), "--backend", "ipex", "-o", output], **path)
    assert done.returncode == 1 and "2.7.0 is installed beside torch 2.8.0; expected torch 2.7" in done.stderr
    done = run([EXPORT, tiny_folder(), "-o", output], **path)
    assert done.returncode == 0, done.stderr
    assert "without IPEX: intel-extension-for-pytorch 2.7.0 is installed" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["bert-base"],
        ["bert-base", "-o", "m.pt", "--task", "translation"],
        ["bert-base", "-o", "m.pt", "--batch-size", "1"],
        ["bert-base", "-o", "m.pt", "--sequence-length", "x"],
        ["bert-base", "-o", "m.pt", "--backend", "onnx"],
        ["bert-base", "-o", "m.pt", "--random-weights", "--allow-pickle"],
        ["bert-base", "-o", ""],
        ["bert-base", "-o", "m.pt", "--seed", "9" * 30],
        ["", "-o", "m.pt"],
        ["bert-base", "-o", "m.pt", "--no-such-option"],
    ],
)
def test_usage_errors(invoke: Callable[..., Result], arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and "Error: " in result.stderr


def test_a_model_that_fails_by_itself(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    """Funnel with two blocks cannot answer a batch of 2x2: its own error, in one line."""
    from transformers import FunnelConfig, FunnelForSequenceClassification

    config = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64, "vocab_size": 100, "block_sizes": [1, 1]}
    FunnelForSequenceClassification(FunnelConfig(**config)).save_pretrained(tmp_path / "funnel")
    sizes = ["--batch-size", "2", "--sequence-length", "2"]
    line = error_of(invoke(tmp_path / "funnel", "--backend", "plain", "-o", tmp_path / "m.pt", *sizes))
    assert "the original model fails on inputs of 2x2" in line


def test_a_sequence_longer_than_the_model(tiny_folder: Folder, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    result = invoke(tiny_folder(), "-o", tmp_path / "m.pt", "--sequence-length", "600")
    assert result.exit_code == 2 and "at most 512" in result.stderr


def test_verbose_shows_the_traceback_and_the_others_messages(tiny_folder: Folder, tmp_path: Path) -> None:
    done = run([EXPORT, tiny_folder(), "-v", "--task", "sentence-embedding", "-o", tmp_path / "m.pt"])
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "TaskError" in done.stderr


def test_no_such_model(invoke: Callable[..., Result], tmp_path: Path) -> None:
    assert "there is no folder ./nowhere" in error_of(invoke("./nowhere", "-o", tmp_path / "m.pt"))


@pytest.mark.fresh
@pytest.mark.parametrize("package", ["click", "transformers"])
def test_a_package_of_the_extra_that_is_missing(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from exporter.cli import main; main()"
    done = run([*python(code), "bert-base", "-o", tmp_path / "m.pt"])
    assert done.returncode == 1
    line = f"export-model: the package {package} is needed to export and is not installed; "
    assert done.stderr == line + "pip install 'export-model[export]'\n"


def test_a_standard_output_that_is_closed(tmp_path: Path) -> None:
    done = run(["bash", "-c", 'exec "$0" "$@" >&-', EXPORT, "bert-base", "-o", tmp_path / "m.pt"])
    assert (done.returncode, done.stderr) == (1, "export-model: cannot write to standard output: it is closed\n")


def test_what_nobody_foresaw_is_one_line(invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.pipeline.export", lambda *_: [][1])
    line = error_of(invoke("bert-base", "-o", "m.pt", "-q"))
    assert line.startswith("export-model: unexpected IndexError: list index out of range; -v shows the traceback")


def test_a_folder_whose_name_would_steer_a_terminal(tiny_folder: Folder, tmp_path: Path) -> None:
    """The name is stored and shown escaped: the runtime takes the file."""
    folder = tmp_path / "a\nb\x85c\u202ed\x1b[31m"
    shutil.copytree(tiny_folder(), folder)
    report = export(ExportRequest(str(folder), tmp_path / "m.pt", backend="plain", verify="off", tune="off"))
    assert load(report.output).manifest.model.id == r"a\nb\x85c\u202ed\x1b[31m"


def test_help_names_the_short_names() -> None:
    done = run([EXPORT, "--help"])
    assert done.returncode == 0
    assert "bert-base" in done.stdout and "roberta-base" in done.stdout


@pytest.mark.fresh
def test_help_needs_neither_torch_nor_transformers() -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers'])); "
    code = block + "from exporter.cli import main; main(['--help'])"
    assert run(python(code)).returncode == 0


def test_the_layout_of_the_repository() -> None:
    for name in ("exporter", "runtime", "tests", "pyproject.toml", "Makefile", "README.md", ".ci/run"):
        assert (ROOT / name).exists()
