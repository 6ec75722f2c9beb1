"""What makes these tests fast does not change what they see: forks in place of processes, exports kept on disk."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from exporter import ExportRequest, Report
from exporter.verification.subprocesses import ABSENT, python
from runtime.artifact.artifact_file import sha256
from tests.conftest import BIN, run, run_python
from tests.support import artifacts as cached
from tests.support.artifacts import Artifacts
from tests.support.processes import PROCESSES

FORKED = "import os; print('forkserver' in open(f'/proc/{os.getppid()}/cmdline').read())"


def is_forked(command: list[str], **environment: str) -> bool:
    done = run(command, **environment)
    assert done.stderr == ""
    return done.stdout == "True\n"


def test_processes_are_forks_unless_something_tells_them_apart() -> None:
    assert is_forked(python(FORKED))
    assert is_forked(python(FORKED, absent=ABSENT))
    assert not is_forked(python(FORKED), SOME_VARIABLE="1")
    assert not is_forked(python(FORKED, absent=["torch"]))
    assert not is_forked(python(FORKED, flags=["-O"]))
    with PROCESSES.fresh():
        assert not is_forked(python(FORKED))


def test_a_fork_has_imported_torch_and_nothing_of_the_exporter() -> None:
    code = "import sys; print(*sorted({'torch', 'transformers', 'exporter', 'click'} & set(sys.modules)))"
    assert run_python(code).stdout == "torch\n"


def test_a_fork_is_like_a_process(tmp_path: Path) -> None:
    """Arguments, folder, streams, exit status, warnings."""
    code = "import os, sys; print(*sys.argv[1:], os.getcwd(), sys.stdin.read()); sys.exit('wrong')"
    command = PROCESSES.command([*python(code), "one", "two words"])
    done = subprocess.run(command, input="three", text=True, capture_output=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, f"one two words {tmp_path} three\n", "wrong\n")
    assert run_python("import warnings; warnings.warn('said')").returncode == 1
    assert run(python("import warnings; warnings.warn('said')")).returncode == 0
    assert "RuntimeError: it" in run(python("raise RuntimeError('it')")).stderr
    assert run([BIN / "run-model", "--no-such-option"]).returncode == 2


def test_signals_reach_a_fork_and_its_own_are_seen() -> None:
    for number in (signal.SIGABRT, signal.SIGKILL, signal.SIGTERM):
        assert run(python(f"import os; os.kill(os.getpid(), {int(number)})")).returncode == -number
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True); "
    command = PROCESSES.command(python(code + "signal.pause()"))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(timeout=30) == 7


def test_a_fork_ends_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code = "import sys, time; file = open(sys.argv[1], 'w'); file.write('x'); file.flush(); time.sleep(300)"
    command = PROCESSES.command([*python(code), tmp_path / "pipe"])
    with subprocess.Popen(command) as process, (tmp_path / "pipe").open() as pipe:
        assert pipe.read(1) == "x"
        process.kill()
        # The end of the file: nobody holds it open any more.
        assert pipe.read() == ""


def test_forks_compute_in_several_threads() -> None:
    """OpenMP's threads do not live on in a fork: the server must not have started any."""
    code = "import torch; torch.set_num_threads(2); a = torch.ones(999, 999); "
    code += "print(torch.get_num_threads(), (a @ a).sum())"
    expected = "2 tensor(9.9700e+08)\n"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(run_python(code).stdout)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


@pytest.mark.fresh
def test_marked_tests_have_fresh_processes() -> None:
    command = python("")
    assert PROCESSES.command(command) == command
    assert not is_forked(python(FORKED))


# ---- Exports kept on disk ----


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """How many exports have run after one more request, to a cache of one source file; a stand-in makes them."""
    made: list[Report] = []
    known: dict[str, Report] = {}

    def export(request: ExportRequest) -> Report:
        Path(request.output).write_text(f"export {len(made)}")
        report = dataclasses.replace(known["report"], output=str(request.output), sha256=sha256(request.output))
        made.append(report)
        return report

    def count(report: Report, model: Path, **options: object) -> int:
        known["report"] = report
        output = tmp_path / "out.pt"
        request = ExportRequest(str(model), output, **options)  # type: ignore[arg-type]
        with closing(Artifacts(tmp_path / "cache", [tmp_path / "source.py"])) as kept:
            found = kept.export(request)
        assert found.output == str(output) and found.sha256 == sha256(output)
        return len(made)

    (tmp_path / "source.py").write_text("one = 1")
    monkeypatch.setattr(cached, "export", export)
    return count


def test_an_export_is_kept_until_anything_in_it_changes(
    counted: Callable[..., int],
    tmp_path: Path,
    tiny_folder: Callable[..., Path],
    exported: Callable[..., Report],
    copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = copy_of(tiny_folder())
    report = exported(tiny_folder(), backend="plain")
    samples = tmp_path / "samples.txt"
    samples.write_text("a")
    assert [counted(report, model) for _ in range(3)] == [1, 1, 1]
    assert [counted(report, model, backend="plain") for _ in range(2)] == [2, 2]
    options = {"precision": "int8", "calibration": samples}
    assert [counted(report, model, **options) for _ in range(2)] == [3, 3]
    samples.write_text("b")
    assert counted(report, model, **options) == 4
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    assert [counted(report, model) for _ in range(2)] == [5, 5]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert [counted(report, model) for _ in range(2)] == [6, 6]
    (tmp_path / "source.py").write_text("one = 2")
    assert [counted(report, model) for _ in range(2)] == [7, 7]


def test_a_kept_file_that_is_damaged_is_made_again(
    counted: Callable[..., int], tmp_path: Path, tiny_folder: Callable[..., Path], exported: Callable[..., Report]
) -> None:
    report = exported(tiny_folder(), backend="plain")
    assert counted(report, tiny_folder()) == 1
    (kept,) = (tmp_path / "cache").rglob("*.pt")
    kept.write_text("damaged")
    assert [counted(report, tiny_folder()) for _ in range(2)] == [2, 2]
    kept.unlink()
    assert [counted(report, tiny_folder()) for _ in range(2)] == [3, 3]


def test_what_other_sources_made_is_removed(
    counted: Callable[..., int], tmp_path: Path, tiny_folder: Callable[..., Path], exported: Callable[..., Report]
) -> None:
    report = exported(tiny_folder(), backend="plain")
    counted(report, tiny_folder())
    (tmp_path / "source.py").write_text("one = 2")
    counted(report, tiny_folder())
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_variable_that_a_test_leaves_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next test looks for it."""
    os.environ["LEFT_BEHIND"] = "1"
    monkeypatch.setenv("SET_FOR_ONE_TEST", "1")
    assert not is_forked(python(FORKED))


def test_is_gone_in_the_next_one() -> None:
    assert not {"LEFT_BEHIND", "SET_FOR_ONE_TEST"} & os.environ.keys()
    assert is_forked(python(FORKED))
