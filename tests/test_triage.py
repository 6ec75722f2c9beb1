"""What the tracer remarked: kinds, places, verdicts, and where a user sees them."""

from __future__ import annotations

import inspect
import json
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.trace import trace
from exporter.tracing.tracer_warnings import _RULES, Finding, triage
from tests.conftest import BIN, run

EXAMPLE = ExampleInputs({"a": torch.ones(2, 3)})
# The line that compares the lengths of mask and keys: every model of transformers with such a mask passes it.
MASK_LINE = "if (padding_length := kv_length + kv_offset - attention_mask.shape[-1]) > 0:"


def findings_of(function: Callable[[torch.Tensor], Any]) -> tuple[Finding, ...]:
    class Module(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> tuple[torch.Tensor]:
            return (function(a),)

    return trace(Module().eval(), EXAMPLE, "dict", nullcontext()).findings


def record(message: str, filename: str, lineno: int) -> warnings.WarningMessage:
    return warnings.WarningMessage(TracerWarning(message), TracerWarning, filename, lineno)


def branches(a: torch.Tensor) -> torch.Tensor:
    if a.sum() > 0:
        return a + 1
    return a - 1


def rounds(a: torch.Tensor) -> torch.Tensor:
    return a * int(a.sum())


def widens(a: torch.Tensor) -> torch.Tensor:
    return a * float(a.sum())


def takes(a: torch.Tensor) -> torch.Tensor:
    return a * a.sum().item()


def counts(a: torch.Tensor) -> torch.Tensor:
    return a * len(a)


def iterates(a: torch.Tensor) -> torch.Tensor:
    return torch.stack([row + 1 for row in a])


def copies(a: torch.Tensor) -> torch.Tensor:
    return a * torch.tensor(2)


def lists(a: torch.Tensor) -> torch.Tensor:
    return a + sum(a.sum(1).tolist())  # type: ignore[no-any-return]


def test_a_branch_on_a_tensor_is_baked_in_with_its_line() -> None:
    (finding,) = findings_of(branches)
    first = inspect.getsourcelines(branches)[1]
    assert finding.kind == "python boolean"
    assert finding.place == f"tests/test_triage.py:{first + 1}"
    assert finding.line == "if a.sum() > 0:"
    assert finding.verdict == "baked in" and "verification shows" in finding.reason


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (rounds, "python integer"),
        (counts, "python integer"),
        (widens, "python float"),
        (takes, "python number"),
        (iterates, "iteration over tensor"),
        (copies, "constant from tensor"),
        (lists, "constant from tensor"),
    ],
)
def test_kinds(function: Callable[[torch.Tensor], torch.Tensor], kind: str) -> None:
    found = {finding.kind: finding for finding in findings_of(function)}
    assert kind in found
    assert found[kind].line == inspect.getsourcelines(function)[0][1].strip()
    assert {finding.verdict for finding in found.values()} == {"baked in"}


def test_a_remark_that_is_not_known_is_kept() -> None:
    (finding,) = triage([record("Something new", "/nowhere/at/all/model.py", 3)])
    assert (finding.kind, finding.place, finding.line, finding.verdict) == ("other", "model.py:3", "", "baked in")
    assert "source not available" in str(finding)


def test_each_finding_is_told_once() -> None:
    def twice(a: torch.Tensor) -> torch.Tensor:
        return branches(branches(a))

    assert len(findings_of(twice)) == 1
    text = "Converting a tensor to a Python boolean might cause"
    places = [finding.place for finding in triage([record(text, "/x/m.py", line) for line in (7, 5, 7, 7, 5)])]
    assert places == ["m.py:7", "m.py:5"]


def test_a_rule_needs_both_the_file_and_the_line(tmp_path: Path) -> None:
    """The same line in a file of the model's own, below a folder with the package's name, is not excused."""
    other = tmp_path / "transformers" / "masking_utils.py"
    other.parent.mkdir()
    other.write_text(MASK_LINE + "\n")
    (finding,) = triage([record("Converting a tensor to a Python boolean might", str(other), 1)])
    assert (finding.line, finding.verdict) == (MASK_LINE, "baked in")
    import transformers.masking_utils as masks

    text = Path(str(masks.__file__)).read_text().splitlines()
    elsewhere = next(number for number, line in enumerate(text, 1) if line.startswith("def "))
    (finding,) = triage([record("Converting a tensor to a Python boolean might", str(masks.__file__), elsewhere)])
    assert finding.place == f"transformers/masking_utils.py:{elsewhere}" and finding.verdict == "baked in"


def test_every_rule_still_finds_its_line() -> None:
    """A rule without a line would be dead; more than a few lines would be too wide a rule."""
    site = Path(torch.__file__).parent.parent
    for rule in _RULES:
        lines = [line for line in (site / rule.file).read_text().splitlines() if re.search(rule.line, line)]
        assert 1 <= len(lines) <= 3, rule
        assert rule.reason


def test_the_mask_of_bert_is_harmless(tiny_folder: Callable[..., Path], exported: Callable[..., Any]) -> None:
    report = exported(tiny_folder("bert", "text-classification", num_labels=3), backend="plain")
    (finding,) = report.findings
    assert re.fullmatch(r"transformers/masking_utils\.py:\d+", finding.place)
    assert (finding.kind, finding.line, finding.verdict) == ("python boolean", MASK_LINE, "harmless")
    (told,) = report.as_dict()["findings"]
    assert json.loads(json.dumps(told))["reason"].startswith("mask as long as the keys: ")


def test_only_what_is_baked_in_is_logged_and_quietly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "exporter"):
        (finding,) = findings_of(branches)
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (logging.INFO, f"tracer: {finding}")


def test_explain_prints_choices_and_findings(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_folder("roberta", "token-classification", type_vocab_size=1)
    done = run([BIN / "export-model", folder, "--explain", "--tune", "off", "-o", tmp_path / "m.pt"])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    summary = next(number for number, line in enumerate(lines) if line.startswith("tolerance: "))
    choices = [line.removeprefix("choice: ") for line in lines[summary + 1 :] if line.startswith("choice: ")]
    findings = [line.removeprefix("finding: ") for line in lines[summary + 1 :] if line.startswith("finding: ")]
    assert len(choices) + len(findings) == len(lines) - summary - 1
    for start in (
        "task token-classification: config.json",
        "inputs input_ids, attention_mask: ",
        "input token_type_ids dropped: the model has 1 token types",
        "sequences up to ",
        "chosen: ipex with eager attention",
        "attention eager: explicit",
        "kernels of ipex: default kernels (auto_kernel_selection off)",
        "example inputs traced as a dict",
    ):
        assert sum(choice.startswith(start) for choice in choices) == 1, start
    assert any(finding.startswith("harmless: transformers/masking_utils.py:") for finding in findings)
    assert any(MASK_LINE in finding for finding in findings)


def test_explain_changes_nothing_in_json(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    done = run(
        [BIN / "export-model", tiny_folder(), "--explain", "--json", "--backend", "plain", "-o", tmp_path / "m.pt"]
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [finding["verdict"] for finding in report["findings"]] == ["harmless"]
    assert "kernels of plain: PyTorch's own" in report["choices"]
