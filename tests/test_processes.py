"""Every Python process that the project starts begins away from the current folder, which may be a model's."""

from __future__ import annotations

import ast
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from exporter.selection import autotune
from exporter.verification import verify
from exporter.verification.subprocesses import away, module, python, script
from runtime import read_manifest
from tests.conftest import BIN, ROOT, run, run_python

pytestmark = pytest.mark.fresh

# What a folder could call its files to have them run: the project's packages, its dependencies', the standard
# library's modules, and what Python runs at its start.
NAMES: tuple[str, ...] = ("runtime", "exporter", "tests", "benchmarks", "torch", "safetensors", "numpy", "tokenizers")
NAMES += ("transformers", "json", "pickle", "selectors", "argparse", "runpy", "multiprocessing")
NAMES += ("sitecustomize", "usercustomize")


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, also named by PYTHONPATH in three ways: each of its modules leaves its name in a file."""
    folder = tmp_path / "model"
    ran = tmp_path / "ran"
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for file in ("__init__.py", "verification.py", "model_matrix.py", "flood.py"):
            (folder / name / file).write_text(f"open({str(ran)!r}, 'a').write(__name__ + ' ')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(folder)]))
    yield folder
    assert not ran.exists(), f"ran: {ran.read_text()}"


def test_the_traps_close(traps: Path) -> None:
    """On processes that are started as anybody would."""
    for command in (["-c", "import json"], ["-m", "runtime.verification.worker"]):
        # clean start: is what this test does without
        subprocess.run([sys.executable, *command], check=False, capture_output=True)
        (traps.parent / "ran").unlink()


def _verifying(_artifact: Path) -> bool:
    return "--draft" in verify._spawn(["verify", "--help"]).stdout


def _timing(artifact: Path) -> bool:
    copy = Path(shutil.copy(artifact, ".."))
    with autotune._Runner(autotune.Draft("one", copy, read_manifest(copy)), 1) as runner:
        deadline = monotonic() + 60
        runner.load(deadline)
        return len(runner.ask(autotune.TimedShape({"batch": 1, "sequence": 8}), 2, deadline)) == 2


def _gates_of_the_matrix(_artifact: Path) -> bool:
    from tests.model_matrix.zygote import Zygote, spawn

    with Zygote() as gates:
        return "--draft" in spawn(gates.address, ["verify", "--help"]).stdout


def _pairs_of_the_matrix(_artifact: Path) -> bool:
    return _multiprocessing("forkserver")


def _fuzzers(_artifact: Path) -> bool:
    return _multiprocessing("spawn")


def _multiprocessing(method: str) -> bool:
    process = multiprocessing.get_context(method).Process(target=sorted, args=([],))  # type: ignore[attr-defined]
    with away():
        process.start()
    process.join()
    return bool(process.exitcode == 0)


def _benchmarks(_artifact: Path) -> bool:
    from benchmarks.harness.files import command

    # An interpreter by another name stands for one with other packages.
    other = module("benchmarks.flood", executable=str(BIN / "python3"))
    return all("usage" in run([*start, "--help"]).stdout for start in (command("main", "benchmarks.flood"), other))


def _helpers_of_tests(artifact: Path) -> bool:
    code = "import json, runtime, sys; print(runtime.read_manifest(sys.argv[1]).backend)"
    return run_python(code, artifact).stdout == "plain\n"


def _examples(_artifact: Path) -> bool:
    return "usage" in run([*script(ROOT / "examples/python/worker.py"), "--help"]).stdout


STARTERS = [_verifying, _timing, _gates_of_the_matrix, _pairs_of_the_matrix, _fuzzers, _benchmarks, _helpers_of_tests]


@pytest.mark.parametrize(
    "start",
    [
        *(start for start in (*STARTERS, _examples) if start is not _benchmarks),
        pytest.param(_benchmarks, marks=pytest.mark.slow),
    ],
    ids=lambda start: start.__name__.strip("_"),
)
@pytest.mark.usefixtures("traps")
def test_no_process_runs_what_lies_in_the_current_folder(start: Callable[[Path], bool], tiny_artifact: Path) -> None:
    assert start(tiny_artifact)


@pytest.mark.slow
def test_exporting_from_inside_a_model_folder(
    traps: Path, tiny_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for users whose own project has a folder `runtime`."""
    # The command itself obeys the user's PYTHONPATH, as every Python program does.
    monkeypatch.delenv("PYTHONPATH")
    for file in tiny_folder().iterdir():
        shutil.copy(file, traps)
    command = [BIN / "export-model", ".", "--backend", "plain", "--tune", "off", "--verify", "quick", "-o", "../m.pt"]
    # clean start: the project's own command
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr


def test_what_pythonpath_names_is_found_behind_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of the user's own are there, and none of them takes the place of another."""
    for name in ("mine", "json", "torch"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import importlib.util, sys; print(*(importlib.util.find_spec(name).origin for name in sys.argv[1:]))"
    mine, json, torch = run([*python(code), "mine", "json", "torch"]).stdout.split()
    assert mine == str(tmp_path / "mine.py")
    assert str(tmp_path) not in json and torch == sys.modules["torch"].__file__


def test_torch_is_the_one_of_the_starting_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PYTHONPATH brings it, as on some clusters, beside another one that is installed."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("")
    (tmp_path / "json.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    # A module that is imported would be asked first where it lies.
    monkeypatch.delitem(sys.modules, "torch")
    code = "import json, torch; print(torch.__file__, json.__file__)"
    torch, json = run(python(code)).stdout.split()
    assert torch == str(tmp_path / "torch/__init__.py") and str(tmp_path) not in json


STARTS = re.compile(
    r"sys\.executable|subprocess\.(run|Popen|call|check_\w+)|os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?)"
    r"|multiprocessing\.(get_context|Process|Pool)|ProcessPoolExecutor"
)
HELPERS = ("python", "module", "script", "worker", "away")


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Functions, also those of classes, and what else stands in a module."""
    for statement in tree.body:
        yield from statement.body if isinstance(statement, ast.ClassDef) else [statement]


def _named(statement: ast.AST, kind: type[ast.AST]) -> list[str]:
    """What a statement has of a kind of expression: names and attributes, or what is called."""
    return [
        ast.unparse(node.func if isinstance(node, ast.Call) else node)
        for node in ast.walk(statement)
        if isinstance(node, kind)
    ]


def test_no_process_is_started_around_the_helper_without_a_reason() -> None:
    """`# clean start: REASON` says why a place does without."""
    offenders = []
    for folder in ("exporter", "runtime", "benchmarks", "tests", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            tree = ast.parse(text)
            taken = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            # So that what starts a process has the same name everywhere.
            assert not any(node.module in ("subprocess", "multiprocessing") for node in taken), path
            places = ("exporter.verification.subprocesses", "benchmarks.harness.files")
            aliases = [alias for node in taken if node.module in places for alias in node.names]
            helpers = {f"subprocesses.{name}" for name in HELPERS}
            helpers |= {alias.asname or alias.name for alias in aliases if alias.name in (*HELPERS, "command")}
            # Functions of the same module that make a command with them.
            helpers |= {
                statement.name
                for statement in tree.body
                if isinstance(statement, ast.FunctionDef) and helpers & set(_named(statement, ast.Call))
            }
            for statement in _statements(tree):
                starts = [name for name in _named(statement, ast.Attribute) if STARTS.fullmatch(name)]
                # Where the project's commands lie starts nothing.
                for_its_folder = _named(statement, ast.Attribute).count("Path(sys.executable).parent")
                if len(starts) == for_its_folder or path.name in ("processes.py", "subprocesses.py"):
                    continue
                lines = text.splitlines()[max(0, statement.lineno - 2) : statement.end_lineno]
                said = any("# clean start: " in line for line in lines)
                if not said and not helpers & set(_named(statement, ast.Call)):
                    offenders.append(f"{path.relative_to(ROOT)}:{statement.lineno}")
    assert offenders == []
