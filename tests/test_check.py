"""The comparison itself: it must detect every kind of wrong output."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.errors import ArtifactFailedError, CheckFailedError, ManifestDamagedError
from runtime.format.golden import SAMPLE, Case, dump_cases, parse_cases, sampled
from runtime.format.manifest import Tolerance
from runtime.verification.compare import Comparison, run_cases
from runtime.verification.worker import LARGE, check_golden, run_orders


class Fake:
    """A stand-in for a session with wrong outputs of a chosen kind, which no real file can be made to have."""

    def __init__(self, *answers: torch.Tensor) -> None:
        self.answers = list(answers)

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.answers.pop(0)}


def comparison(expected: list[float], *answers: list[float]) -> Comparison:
    case = Case("c", {"x": torch.ones(1)}, {"y": torch.tensor(expected)})
    session: Any = Fake(*map(torch.tensor, answers))
    (result,) = run_cases(session, [case], rounds=len(answers))
    return result


def test_equal_answers_have_no_error() -> None:
    assert comparison([1.0, -2.0], [1.0, -2.0]) == Comparison("c", "y", 1, 0.0, 0.0, 0.0)


def test_argmax_mismatches_are_counted() -> None:
    case = Case("c", {"x": torch.ones(1)}, {"y": torch.tensor([[1.0, 2.0], [5.0, 3.0], [0.0, 1.0]])})
    session: Any = Fake(torch.tensor([[1.0, 2.0], [5.0, 3.0], [1.1, 1.0]]), case.outputs["y"])
    (result,) = run_cases(session, [case], rounds=2)
    assert (result.rows, result.argmax_mismatches) == (3, 1)


def test_errors_are_relative_to_the_whole_output() -> None:
    result = comparison([3.0, -4.0], [3.0, -3.0])
    assert result.max_abs_error == pytest.approx(1.0)
    assert result.max_error == pytest.approx(1 / 4)
    assert result.rms_error == pytest.approx(1 / 5)


def test_the_worst_call_counts() -> None:
    result = comparison([1.0], [1.0], [1.5], [1.0])
    assert (result.calls, result.max_abs_error) == (3, pytest.approx(0.5))  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_fails(wrong: float) -> None:
    result = comparison([1.0, 2.0], [1.0, wrong])
    assert math.isinf(result.max_error)
    assert not result.within(Tolerance(1e9, 1e9))


def test_a_nan_in_only_one_call_fails() -> None:
    assert math.isinf(comparison([1.0], [math.nan], [1.0]).max_error)


def test_equal_infinities_are_no_error() -> None:
    assert comparison([1.0, -math.inf], [1.0, -math.inf]).max_error == 0


def test_an_infinity_that_should_be_there_and_is_not_fails() -> None:
    assert math.isinf(comparison([1.0, -math.inf], [1.0, 0.0]).max_error)


def test_an_output_of_zeros_is_compared_absolutely() -> None:
    assert comparison([0.0, 0.0], [0.5, 0.0]).max_error == pytest.approx(0.5)


def test_both_bounds_count() -> None:
    result = Comparison("c", "y", 3, 1.0, 0.05, 0.02)
    assert result.within(Tolerance(0.05, 0.02))
    assert not result.within(Tolerance(0.04, 0.02))
    assert not result.within(Tolerance(0.05, 0.01))


def test_another_shape_is_refused() -> None:
    with pytest.raises(CheckFailedError, match=r"shape \[2\]; expected shape \[1\]"):
        comparison([1.0], [1.0, 1.0])


def test_a_model_that_writes_to_its_inputs_is_refused() -> None:
    def overwrite(x: torch.Tensor) -> dict[str, torch.Tensor]:
        x += 1
        return {"y": torch.ones(1)}

    session: Any = overwrite
    with pytest.raises(CheckFailedError, match="wrote to its caller's input 'x'"):
        run_cases(session, [Case("c", {"x": torch.ones(1)}, {"y": torch.ones(1)})])


def test_a_failed_call_costs_its_own_case_alone() -> None:
    """A session that failed once always fails, so other cases run in a new one. A wrong shape is a failure too."""

    class Spoilt:
        def __init__(self) -> None:
            self.failed = False

        def __call__(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            self.failed |= len(x) == 3
            if self.failed:
                raise ArtifactFailedError("the model failed")
            return {"y": x[:4] * 2}

    opened: list[Spoilt] = []

    def reopen() -> Any:
        opened.append(Spoilt())
        return opened[-1]

    cases = [Case(str(size), {"x": torch.ones(size)}, {"y": torch.ones(size) * 2}) for size in (2, 3, 4, 5)]
    errors = {comparison.case: comparison.max_error for comparison in run_cases(reopen(), cases, reopen=reopen)}
    assert errors == {"2": 0.0, "3": math.inf, "4": 0.0, "5": math.inf}
    assert len(opened) == 2
    with pytest.raises(ArtifactFailedError):
        run_cases(reopen(), cases)


def calls_of(sizes: dict[str, int], wrong: str = "") -> dict[str, list[str]]:
    """The names of the cases in the order of their calls, by order; the case `wrong` has another output."""
    cases = [
        Case(name, {"x": torch.full((1, size), number)}, {"y": torch.ones(2)})
        for number, (name, size) in enumerate(sizes.items())
    ]
    called: list[str] = []

    def session(x: torch.Tensor) -> dict[str, torch.Tensor]:
        called.append(cases[int(x[0, 0])].name)
        return {"y": torch.ones(2) + (called[-1] == wrong)}

    # Whose operators are listed.
    session._module = torch.jit.script(torch.nn.Identity())  # type: ignore[attr-defined]
    opened: Any = lambda: session  # noqa: E731
    found, _ = run_orders(opened, cases, tolerance=Tolerance(1e-3, 1e-3))
    return {"orders": list(found), "called": called}


def test_cases_of_much_data_are_called_once_per_order() -> None:
    found = calls_of({"small": 10, "middle": LARGE + 1, "large": LARGE + 2, "larger": LARGE + 3})
    assert found["orders"] == ["batch-1-first", "largest-first", "two-threads"]
    first = [*("small", "middle", "large", "larger"), *("small", "middle") * 2]
    assert found["called"][:8] == first
    # In the second order the same, backwards; then from two threads, where each has one of the large cases.
    assert found["called"][8:16] == ["larger", "large", "middle", "small", *("middle", "small") * 2]
    assert sorted(found["called"][16:]) == sorted(["small", "middle", "small", "middle", "large", "larger"])


def test_what_is_wrong_is_called_no_further() -> None:
    found = calls_of({"a": 1, "b": 2, "c": 3}, wrong="b")
    assert found == {"orders": ["batch-1-first"], "called": ["a", "b", "c"]}


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


def test_large_outputs_are_stored_as_samples() -> None:
    whole = torch.rand(3, SAMPLE)
    case = Case("a", {"x": torch.ones(1)}, {"y": whole, "z": torch.ones(2)})
    (back,) = parse_cases(dump_cases([sampled(case)]), "f")
    assert back.strides == {"y": 3}
    assert torch.equal(back.outputs["y"], whole.flatten()[::3]) and torch.equal(back.outputs["z"], torch.ones(2))
    wrong = whole.clone()
    wrong[0, 3] += 1
    answers: Any = lambda x: {"y": wrong, "z": torch.ones(2)}  # noqa: E731, ARG005
    by_output = {comparison.output: comparison for comparison in run_cases(answers, [back], rounds=1)}
    assert by_output["y"].max_abs_error == pytest.approx(1.0) and by_output["z"].max_error == 0


def test_every_recorded_error_can_be_reproduced(minilm_bf16: Path) -> None:
    """The stored cases have the verified shapes, and the same orders give the errors that were recorded."""
    manifest, results = check_golden(minilm_bf16)
    assert {(result.case, result.output) for result in results} == {(p.case, p.output) for p in manifest.verified}
    recorded = {(point.case, point.output): point for point in manifest.verified}
    for result in results:
        point = recorded[result.case, result.output]
        assert result.calls >= 3
        assert result.within(manifest.tolerance)
        # Threads share out sums in another way from run to run; bf16 shows that in the last bits.
        assert result.max_error == pytest.approx(point.max_error, rel=0.2)
        assert result.rms_error == pytest.approx(point.rms_error, rel=0.2)
