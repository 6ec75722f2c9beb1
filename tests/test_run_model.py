"""`run-model` as a user types it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from exporter.verification.subprocesses import python
from runtime import Session, read_manifest
from runtime.commands.main import main
from runtime.format.golden import Case, dump_cases
from tests.conftest import BIN, run
from tests.test_artifact import rewrite

RUN = BIN / "run-model"


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error; nothing else may be printed."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("run-model: ")
    return line


def test_inspect_lists_the_fusions(minilm_ipex: Path) -> None:
    done = run([RUN, "inspect", minilm_ipex])
    assert done.returncode == 0 and done.stderr == ""
    fusions = read_manifest(minilm_ipex).fusions
    assert "attention scores" in [fusion.kind for fusion in fusions]
    for fusion in fusions:
        assert f"{fusion.count} x {fusion.kind} ({fusion.operator})" in done.stdout


def test_inspect_as_json(minilm_ipex: Path) -> None:
    done = run([RUN, "inspect", "--json", minilm_ipex])
    assert json.loads(done.stdout) == json.loads(json.dumps(dataclasses.asdict(read_manifest(minilm_ipex))))


def test_check_passes_here(minilm_ipex: Path) -> None:
    done = run([RUN, "check", minilm_ipex])
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("passed\n")


def test_check_fails_on_other_answers(tiny_artifact: Path, tmp_path: Path) -> None:
    """Golden outputs that are not the model's, as on a machine that computes wrongly."""
    ids = torch.tensor([[1, 2, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    wrong = dump_cases([Case("0", inputs, {"logits": torch.full((1, 3), 5.0)})])
    path = rewrite(tiny_artifact, tmp_path / "wrong.pt", {"golden.safetensors": wrong})
    done = run([RUN, "check", "--json", path])
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False and report["cases"][0]["within"] is False
    assert "FAILED" in run([RUN, "check", path]).stdout


def test_predict_text(minilm_ipex: Path) -> None:
    done = run([RUN, "predict", minilm_ipex, "--text", "one", "--text", "two words"])
    assert done.returncode == 0 and done.stderr == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["one", "two words"]
    assert all(len(row["sentence_embedding"]) == 384 for row in rows)


@pytest.mark.parametrize("ending", ["json", "safetensors", "npz"])
def test_predict_tensors(tiny_artifact: Path, tiny_session: Session, tmp_path: Path, ending: str) -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    path = tmp_path / f"x.{ending}"
    if ending == "json":
        path.write_text(json.dumps({"input_ids": ids.tolist()}))
    elif ending == "safetensors":
        save_file({"input_ids": ids}, path)
    else:
        np.savez(path, input_ids=ids.numpy())
    done = run([RUN, "predict", tiny_artifact, "--inputs", path])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = tiny_session(input_ids=ids)["logits"].softmax(-1)
    for row, scores in zip(rows, expected, strict=True):
        assert list(row["scores"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
        assert list(row["scores"].values()) == pytest.approx(scores.tolist(), rel=1e-4)
        assert row["label"] == f"LABEL_{int(scores.argmax())}" and row["score"] == pytest.approx(
            float(scores.max()), rel=1e-4
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ("[1]", "holds a list"),
        ('{"input_ids": [[1, 2], [3]]}', "is not a tensor"),
        ('{"input_ids": [["a"]]}', "is not a tensor"),
        ('{"input_ids": [[99999999999999999999999]]}', "is not a tensor"),
        ('{"input_ids": [[1.5]]}', "dtype torch.float32"),
        ('{"input_ids": []}', "shape [0]"),
        ('{"input_ids": [[1, 300]]}', "holds 300"),
        ('{"ids": [[1]]}', "unknown input 'ids'"),
    ],
)
def test_wrong_json(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert main(["predict", str(tiny_artifact), "--inputs", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "x.txt",
        "missing.json",
        "missing.npz",
        "missing.safetensors",
        "pickled.npz",
        "bad.safetensors",
        "single.npz",
        "huge.npz",
    ],
)
def test_wrong_files(tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    np.savez(tmp_path / "pickled.npz", input_ids=np.array([{"an": "object"}], dtype=object))
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, np.ones(3))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("input_ids.npy", header.getvalue())
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    assert main(["predict", str(tiny_artifact), "--inputs", str(tmp_path / name)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_errors_are_one_line(tmp_path: Path, tiny_artifact: Path) -> None:
    assert "there is no file" in error_of(run([RUN, "inspect", tmp_path / "no.pt"]))
    assert "not a zip" in error_of(run([RUN, "check", __file__]))
    assert "--text needs a tokenizer" in error_of(run([RUN, "predict", tiny_artifact, "--text", "x"]))


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_standard_output_that_cannot_be_written(tiny_artifact: Path, command: str) -> None:
    with open("/dev/full", "w") as full:
        # clean start: the project's own command
        done = subprocess.run(
            [RUN, command, tiny_artifact], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "run-model: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("arguments", [["inspect"], ["check"], ["predict", "--text", "a"]])
def test_a_standard_output_that_is_closed(tiny_artifact: Path, arguments: list[str]) -> None:
    command, *options = arguments
    done = closed(">&-", RUN, command, tiny_artifact, *options)
    assert (done.returncode, done.stderr) == (1, "run-model: cannot write to standard output: it is closed\n")


@pytest.mark.parametrize("option", ["--texts", "--jsonl"])
def test_a_standard_input_that_is_closed(minilm_ipex: Path, option: str) -> None:
    line = error_of(closed("<&-", RUN, "predict", minilm_ipex, option, "-"))
    assert "cannot read -: standard input is closed" in line


def test_a_standard_error_that_is_closed(tiny_artifact: Path, tmp_path: Path) -> None:
    """Results are written as usual, and an error message is not written among them."""
    done = closed("2>&-", RUN, "inspect", tiny_artifact)
    assert done.returncode == 0 and done.stdout.startswith(str(tiny_artifact))
    done = closed("2>&-", RUN, "inspect", tmp_path / "no.pt")
    assert (done.returncode, done.stdout) == (1, "")


def closed(how: str, *command: Any) -> subprocess.CompletedProcess[str]:
    """A command whose shell closes one of its streams."""
    return run(["bash", "-c", f'exec "$0" "$@" {how}', *command])


@pytest.mark.fresh
@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_package_that_is_missing(tiny_artifact: Path, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\n"
    code += "from runtime.commands.main import main; sys.exit(main(sys.argv[1:]))"
    line = error_of(run([*python(code), "check", tiny_artifact]))
    assert line == f"run-model: the package {package} is needed to run artifacts and is not installed; install it"


def test_what_nobody_foresaw_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("runtime.artifact.artifact_file.read_manifest", lambda _: [][1])
    monkeypatch.setattr("runtime.artifact.artifact_file.open_archive", contextlib.nullcontext)
    assert main(["inspect", "x.pt"]) == 1
    assert capsys.readouterr().err.startswith("run-model: unexpected IndexError: list index out of range; -v shows")
    with pytest.raises(IndexError):
        main(["inspect", "x.pt", "-v"])


ODD = "a\u202eb\u2066c\u200fd\u200be\ufefff"
SHOWN = r"a\u202eb\u2066c\u200fd\u200be\ufefff"


def test_strings_of_a_manifest_do_not_steer_the_terminal(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(json.dumps(dataclasses.asdict(read_manifest(tiny_artifact))))
    manifest["model"] |= {"id": ODD, "architecture": ODD, "type": ODD}
    manifest |= {"task": ODD, "labels": [ODD, "b", "c"]}
    manifest["fusions"] = [{"kind": ODD, "operator": ODD, "count": 1}]
    path = rewrite(tiny_artifact, tmp_path / f"{ODD}.pt", {"manifest.json": json.dumps(manifest).encode()})
    for command in ("inspect", "predict"):
        main([command, str(path), *(["--text", "x"] if command == "predict" else [])])
    captured = capsys.readouterr()
    text = (captured.out + captured.err).replace("\n", "")
    assert text.isprintable() and text.count(SHOWN) == 8


def test_what_the_terminal_s_encoding_lacks_is_escaped(tiny_artifact: Path) -> None:
    done = run([RUN, "inspect", tiny_artifact], PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and r"\u2026" in done.stdout


def test_a_name_that_no_file_can_have() -> None:
    assert "name too long" in error_of(run([RUN, "inspect", "a" * 300]))


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    done = run([RUN, "inspect", "-v", tmp_path / "no.pt"])
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ArtifactNotFoundError" in done.stderr


def test_a_long_text_is_refused_and_cut_when_asked(minilm_ipex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", str(minilm_ipex), "--text", "word " * 300]
    assert main(arguments) == 1
    assert "302 tokens" in capsys.readouterr().err
    assert main([*arguments, "--truncate"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["inspect"],
        ["predict", "x.pt"],
        ["check", "x.pt", "--threads", "0"],
        ["check", "x.pt", "--threads", "x"],
        ["nonsense"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("activation", "scores"), [("softmax", [0.2689, 0.7311]), ("sigmoid", [0.5, 0.7311]), ("none", [0.0, 1.0])]
)
def test_scores_follow_the_problem_type(tiny_session: Session, activation: Any, scores: list[float]) -> None:
    from runtime.commands.json_output import rows

    manifest = dataclasses.replace(tiny_session.manifest, activation=activation, labels=("a", "b"))
    (row,) = rows(manifest, {"logits": torch.tensor([[0.0, 1.0]])})
    assert row["label"] == "b" and list(row["scores"].values()) == pytest.approx(scores, abs=1e-4)


def test_a_closed_pipe_is_no_error(minilm_ipex: Path, make_pipe: Callable[[list[Any]], tuple[int, str]]) -> None:
    code, errors = make_pipe([RUN, "inspect", "--json", minilm_ipex])
    assert errors == "" and code == 0


@pytest.fixture
def make_pipe() -> Callable[[list[Any]], tuple[int, str]]:
    """Run a command whose reader closes the pipe at once."""

    def go(command: list[Any]) -> tuple[int, str]:
        # clean start: the project's own command
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        return process.wait(timeout=60), errors

    return go
