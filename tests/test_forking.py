"""Sessions and pools in forked children: outputs or a named error, never an endless wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import ForkError
from runtime.host import forking
from tests.conftest import run_python

# A child prints a line for each thing that it tries; one that hangs is ended by the alarm, and prints no more.
IN_CHILD = """
import os, signal, sys
import torch, runtime
from runtime.serving.pool import Pool

ids = torch.full((4, 200), 7)

def total(session):
    return round(float(sum(tensor.double().sum() for tensor in session(input_ids=ids).values())), 3)

def in_child(*tries):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        signal.alarm(60)
        for one in tries:
            try:
                print(one())
            except runtime.ExportedModelError as error:
                print(type(error).__name__, "load after the fork, or with threads=1" in str(error))
        sys.exit(0)  # as a server's child ends: with what is registered for the end of the program
    os.waitpid(child, 0)
"""


def test_a_session_of_several_threads_is_refused_in_a_child_which_may_load_its_own(tiny_artifact: Path) -> None:
    code = """
session = runtime.load(sys.argv[1], threads=2)
print(total(session))
in_child(lambda: total(session), lambda: total(runtime.load(sys.argv[1], threads=2)), lambda: total(session))
print(total(session))
"""
    done = run_python(IN_CHILD + code, tiny_artifact)
    answer, refused, loaded, again, parent = done.stdout.splitlines()
    assert refused == again == "ForkError True"
    assert answer == loaded == parent


@pytest.mark.parametrize("artifact", ["tiny_artifact", "minilm_ipex"])
def test_a_session_of_one_thread_answers_in_a_child(artifact: str, request: pytest.FixtureRequest) -> None:
    """Also if torch computed with more threads before the session was loaded."""
    code = """
torch.set_num_threads(2)
(torch.ones(2000, 2000) @ torch.ones(2000, 2000)).add_(1)
session = runtime.load(sys.argv[1], threads=1)
print(total(session))
in_child(lambda: total(session), lambda: (torch.set_num_threads(2), total(session)))
"""
    done = run_python(IN_CHILD + code, request.getfixturevalue(artifact))
    answer, child, with_two = done.stdout.splitlines()
    assert child == answer
    assert with_two.startswith(("ForkError", "ThreadCountError"))


def test_loading_in_a_child_of_a_process_that_has_computed(tiny_artifact: Path) -> None:
    """The parent loads no session, but its own use of torch has started threads."""
    code = """
torch.set_num_threads(2)
(torch.ones(2000, 2000) @ torch.ones(2000, 2000)).add_(1)
in_child(lambda: total(runtime.load(sys.argv[1], threads=2)))
print(total(runtime.load(sys.argv[1], threads=2)))
"""
    child, parent = run_python(IN_CHILD + code, tiny_artifact).stdout.splitlines()
    assert child == parent


def test_a_pool_is_refused_in_a_child_which_may_make_its_own(tiny_artifact: Path) -> None:
    code = """
pool = Pool(runtime.load(sys.argv[1], threads=1), workers=2)
print(total(pool))
in_child(
    lambda: total(pool),
    lambda: pool.submit({"input_ids": ids}),
    pool.statistics,
    pool.close,
    lambda: total(Pool(pool.session, workers=2)),
)
print(total(pool))
"""
    done = run_python(IN_CHILD + code, tiny_artifact)
    answer, *refused, closed, own, parent = done.stdout.splitlines()
    assert refused == ["ForkError False"] * 3
    assert closed == "None"
    assert answer == own == parent


def test_threads_that_could_not_be_ended_before_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_forks", 1)
    forking.check_load(2)
    monkeypatch.setattr(forking, "_threads_ended", False)
    forking.check_load(1)
    with pytest.raises(ForkError, match="threads=1"):
        forking.check_load(2)
