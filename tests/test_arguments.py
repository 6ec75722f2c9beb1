"""Arguments that operators do not check themselves: what is compared with the list's rules, and that all are known."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from exporter import ExportRequest, export
from runtime import load
from runtime.artifact.argument_check import problems
from runtime.artifact.division_check import division_problems
from runtime.artifact.operator_lists import lists
from runtime.errors import ForbiddenOperatorError, OperatorNotAllowedError
from runtime.host import torchscript
from tests.hostile.builder import forge

TABLES = ("ScalarType", "Layout", "MemoryFormat", "QScheme")
# So many methods that each call the one before twice: inlined, they would make 2^64 calls.
CHAIN = 64


def schemas(operator: str) -> list[Any]:
    return list(torch._C._jit_get_schemas_for_operator(operator))


@pytest.mark.skipif(not hasattr(torch._C.Argument, "real_type"), reason="torch before 2.0 does not tell them from int")
def test_every_argument_that_stands_for_an_entry_of_a_table_is_known() -> None:
    """By the types that PyTorch itself gives the arguments of all operators on the list, whatever their names."""
    found = {
        argument.name
        for operator in lists().operators
        for schema in schemas(operator)
        for argument in schema.arguments
        if any(table in str(argument.real_type) for table in TABLES)
    }
    assert len(found) >= 3
    assert found <= lists().enumerations.keys()


def test_every_rule_is_of_an_argument_that_there_is() -> None:
    """A rule with a misspelt name would never be found out otherwise."""
    known = lists()
    rules = {*known.bounds, *known.exceptions, *known.whole}
    assert len(rules) > 40
    for operator, argument in rules:
        assert operator in known.operators
        assert any(argument == each.name for schema in schemas(operator) for each in schema.arguments), argument


def of_code(module: torch.nn.Module, *inputs: torch.Tensor) -> list[str]:
    """What is wrong with a module that was traced, written and read."""
    buffer = io.BytesIO()
    torchscript.save(torchscript.trace(module.eval(), inputs), buffer, {})
    buffer.seek(0)
    return [problem.found for problem in problems(torchscript.load(buffer), ())]


class Ordinary(torch.nn.Module):
    """What models do with such arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In each kind of rule."""
        y = torch.nn.functional.interpolate(self.convolution(x), scale_factor=2.0, mode="bilinear")
        y = torch.nn.functional.interpolate(y, size=[8, 8], mode="bicubic", antialias=True)
        steps = torch.arange(0, 1, 0.25) + torch.arange(4).to(x.dtype) + torch.arange(8, 0, -2).remainder(3)
        return torch.pixel_shuffle(y, 2).sum(dtype=torch.float64) + steps.contiguous()


def test_what_models_do_passes() -> None:
    assert of_code(Ordinary(), torch.ones(1, 3, 8, 8)) == []


class Nested(torch.nn.Module):
    """Another module's part is looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Dividing()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Through a part."""
        found: torch.Tensor = self.inner(x)
        return found + 1


class Dividing(torch.nn.Module):
    """By a number that ends the process where the tensor holds the smallest of all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Down."""
        return torch.floor_divide(x, -1)


def test_parts_of_the_model_are_looked_into() -> None:
    assert of_code(Nested(), torch.ones(2, dtype=torch.int64)) == ["calls aten::floor_divide with other tensor(-1)"]


def test_methods_that_call_each_other_are_not_inlined() -> None:
    """As text they are short; inlined, their code would not end."""
    module = torchscript.trace(Dividing(), (torch.ones(2, dtype=torch.int64),))
    torchscript.define(module, "def m0(self, x):\n    return torch.zeros_like(x, dtype=99)\n")
    for n in range(CHAIN):
        torchscript.define(module, f"def m{n + 1}(self, x):\n    return self.m{n}(x) + self.m{n}(x)\n")
    assert {problem.found for problem in problems(module, ())} == {
        "calls aten::floor_divide with other -1",
        "calls aten::zeros_like with dtype 99",
    }


def test_operators_that_are_allowed_take_any_argument(tiny_artifact: Path, tmp_path: Path) -> None:
    """The caller vouches for them; nothing is run here."""
    path = tmp_path / "forged.pt"
    path.write_bytes(forge(tiny_artifact.read_bytes(), "y = torch.zeros([2, 3], dtype=16)\nreturn (y,)"))
    found = r"forged\.pt: its code calls aten::zeros with dtype 16; expected a constant from 0 to 15; do not run"
    with pytest.raises(OperatorNotAllowedError, match=found):
        load(path, warmup=False)
    with pytest.raises(OperatorNotAllowedError, match=found):
        load(path, warmup=False, allow_operators=["aten::ones"])
    assert load(path, warmup=False, allow_operators=["aten::zeros"]).manifest.labels


@pytest.mark.parametrize("verify", ["off", "quick"])
def test_an_export_that_a_consumer_would_refuse_is_refused(
    tiny_folder: Callable[..., Path], tmp_path: Path, verify: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = BertForSequenceClassification.forward

    def forward(self: Any, input_ids: torch.Tensor, **inputs: Any) -> Any:
        return plain(self, input_ids=-torch.floor_divide(input_ids, -1), **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)
    found = r"the model calls aten::floor_divide with other -1, .* give --allow-operator aten::floor_divide, here and"
    with pytest.raises(ForbiddenOperatorError, match=found) as refused:
        export(ExportRequest(str(tiny_folder()), tmp_path / "m.pt", backend="plain", verify=verify))
    assert refused.value.operators == ("aten::floor_divide",)


FUNCTION = "class A(Module):\n  def forward(self: __torch__.A,\n    x: Tensor,\n    n: int) -> Tensor:\n    {}\n"


@pytest.mark.parametrize(
    "line",
    [
        "y = torch.remainder(x, 5)",
        "y = torch.remainder(5, 3)",
        "y = torch.floordiv(-9223372036854775808, 7)",
        "y = torch.remainder(5, n)",
        "y = torch.remainder(n, -1)",
        "y = torch.remainder(torch.sub(n, 1), torch.add(1, 2))",
        "a = torch.size(x, 0)\n    b = torch.add(a, 5)\n    y = torch.remainder(3, torch.neg(b))",
        "a, b, = torch.size(x)\n    y = torch.remainder(5, b)",
        "a = (self.part).forward(x)\n    y = torch.remainder(1, a)",
        "for i in range(3):\n      y = torch.remainder(1, i)",
        "y = torch.remainder(CONSTANTS.c0, 0)",
        "y = torch.remainder(annotate(int, n), 0)",
        "y = torch.index(torch.remainder(x, n), annotate(List[Optional[Tensor]], [x]))",
    ],
)
def test_divisions_that_wait_for_an_input(line: str) -> None:
    assert list(division_problems(FUNCTION.format(line))) == []


@pytest.mark.parametrize(
    "line",
    [
        "y = torch.remainder(1, 0)",
        "y = torch.remainder(1, -1)",
        "y = torch.remainder(1, 00)",
        "y = ops.aten.remainder(1, 0)",
        "y = torch.floordiv(1, -1)",
        "y = torch.add(x, torch.remainder(1, 0))",
        "if torch.remainder(1, 0):\n      pass",
        "return torch.remainder(1, 0)",
        "a = 0\n    y = torch.remainder(1, a)",
        "a : int = 0\n    y = torch.remainder(1, a)",
        "a = torch.sub(1, 1)\n    y = torch.remainder(1, a)",
        "n = 0\n    y = torch.remainder(1, n)",
        "a = x\n    a = 0\n    y = torch.remainder(1, a)",
        "a = (x, 0)\n    b, c, = a\n    y = torch.remainder(1, c)",
        "y = torch.remainder(1, (x, 0)[1])",
        "y = torch.remainder(1, annotate(int, 0))",
        "Tensor = x\n    y = torch.remainder(1, annotate(Tensor, 0))",
        "y = torch.remainder(1, torch.sub(1, int(isinstance(x, Tensor))))",
        "y = torch.remainder(1, ops.prim.TupleIndex(x, 1))",
        "y = torch.remainder(1, torch.full([1], 0, dtype=n))\n    y = torch.remainder(1, {n: 0}[n])",
    ],
)
def test_divisions_that_are_computed_while_the_code_is_read(line: str) -> None:
    """Each of them ends the process in `torch.jit.load`, or is refused to be on the safe side."""
    assert list(division_problems(FUNCTION.format(line)))
    assert list(division_problems(FUNCTION.format(line), ["aten::remainder", "aten::floordiv"])) == []
