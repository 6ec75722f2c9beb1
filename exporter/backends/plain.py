"""The backend `plain`: TorchScript of stock PyTorch, with the weights in the requested precision."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from exporter.backends.bf16 import to_bf16
from exporter.shapes.example_inputs import ExampleInputs
from runtime.format.manifest import Backend, Fusion, Precision, Requirements
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule

# The instructions that oneDNN needs for bf16 products; without them PyTorch uses a slow reference loop.
BF16_FLAGS = ("avx512bw", "avx512vl", "avx512dq")
# Without these instructions oneDNN adds pairs of int8 products in 16 bits, which overflow: outputs are wrong, not slow.
INT8_FLAGS = (*BF16_FLAGS, "avx512_vnni")


class PlainBackend:
    """Needs only torch; loads wherever TorchScript does."""

    name: Backend = "plain"
    kernels = "PyTorch's own"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    optimised_at_run = False

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """This torch or a newer one: TorchScript reads older archives."""
        return Requirements(str(environment.torch), "at-least-minor", None, BF16_FLAGS if precision == "bf16" else ())

    def optimise(self, module: torch.nn.Module, precision: Precision) -> torch.nn.Module:
        """bf16 converts the weights."""
        return to_bf16(module) if precision == "bf16" else module

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """None needed: the weights have the precision."""
        return nullcontext()

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """Nothing to do."""
        return ""

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """TorchScript's own fusion groups, if it makes any."""
        return tuple(
            Fusion("TorchScript fusion group", name, count)
            for name, count in sorted(operators.items())
            if name.startswith("prim::") and name.endswith("Group")
        )
