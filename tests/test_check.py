"""The comparison itself: it must see every kind of wrong answer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime import Session, artifact
from runtime.check import Parity, check_golden, run_cases
from runtime.errors import CheckFailedError, ManifestDamagedError
from runtime.golden import Case, dump_cases, parse_cases
from runtime.manifest import GOLDEN_FILE, Tolerance


class Fake:
    """Stands in for a session whose model is wrong in a chosen way: such files cannot be made on purpose."""

    def __init__(self, *answers: torch.Tensor) -> None:
        self.answers = list(answers)

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.answers.pop(0)}


def parity(expected: list[float], *answers: list[float]) -> Parity:
    case = Case("c", {"x": torch.ones(1)}, {"y": torch.tensor(expected)})
    session: Any = Fake(*map(torch.tensor, answers))
    (result,) = run_cases(session, [case], rounds=len(answers))
    return result


def test_equal_answers_have_no_error() -> None:
    assert parity([1.0, -2.0], [1.0, -2.0]) == Parity("c", "y", 1, 0.0, 0.0, 0.0)


def test_errors_are_relative_to_the_whole_output() -> None:
    result = parity([3.0, -4.0], [3.0, -3.0])
    assert result.max_abs_error == pytest.approx(1.0)
    assert result.max_error == pytest.approx(1 / 4)
    assert result.rms_error == pytest.approx(1 / 5)


def test_the_worst_call_counts() -> None:
    result = parity([1.0], [1.0], [1.5], [1.0])
    assert (result.calls, result.max_abs_error) == (3, pytest.approx(0.5))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_fails(wrong: float) -> None:
    result = parity([1.0, 2.0], [1.0, wrong])
    assert math.isinf(result.max_error)
    assert not result.within(Tolerance(1e9, 1e9))


def test_a_nan_in_only_one_call_fails() -> None:
    assert math.isinf(parity([1.0], [math.nan], [1.0]).max_error)


def test_equal_infinities_are_no_error() -> None:
    assert parity([1.0, -math.inf], [1.0, -math.inf]).max_error == 0


def test_an_infinity_that_should_be_there_and_is_not_fails() -> None:
    assert math.isinf(parity([1.0, -math.inf], [1.0, 0.0]).max_error)


def test_an_output_of_zeros_is_compared_absolutely() -> None:
    assert parity([0.0, 0.0], [0.5, 0.0]).max_error == pytest.approx(0.5)


def test_both_bounds_count() -> None:
    result = Parity("c", "y", 3, 1.0, 0.05, 0.02)
    assert result.within(Tolerance(0.05, 0.02))
    assert not result.within(Tolerance(0.04, 0.02))
    assert not result.within(Tolerance(0.05, 0.01))


def test_another_shape_is_refused() -> None:
    with pytest.raises(CheckFailedError, match=r"shape \[2\]; expected shape \[1\]"):
        parity([1.0], [1.0, 1.0])


def test_a_model_that_writes_to_its_inputs_is_refused() -> None:
    def overwrite(x: torch.Tensor) -> dict[str, torch.Tensor]:
        x += 1
        return {"y": torch.ones(1)}

    session: Any = overwrite
    with pytest.raises(CheckFailedError, match="wrote to its caller's input 'x'"):
        run_cases(session, [Case("c", {"x": torch.ones(1)}, {"y": torch.ones(1)})])


def test_cases_survive_the_file() -> None:
    case = Case("0-a", {"x": torch.arange(6).reshape(2, 3)}, {"y": torch.rand(2, 1)})
    (back,) = parse_cases(dump_cases([case]), "f")
    assert back.name == case.name
    assert torch.equal(back.inputs["x"], case.inputs["x"]) and torch.equal(back.outputs["y"], case.outputs["y"])


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 100])
def test_damaged_cases(data: bytes) -> None:
    with pytest.raises(ManifestDamagedError):
        parse_cases(data, "f")


def test_a_case_of_a_strange_name() -> None:
    from safetensors.torch import save

    with pytest.raises(ManifestDamagedError, match="'x'"):
        parse_cases(save({"x": torch.ones(1)}), "f")


def test_the_golden_cases_of_an_artifact(tiny_artifact: Path, tiny_session: Session) -> None:
    cases = parse_cases(artifact.read_part(tiny_artifact, GOLDEN_FILE) or b"", "f")
    assert len(cases) >= 2
    results = check_golden(tiny_artifact, tiny_session)
    assert {result.case for result in results} == {case.name for case in cases}
    assert all(result.within(tiny_session.manifest.tolerance) for result in results)
