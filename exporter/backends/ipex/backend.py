"""The backend `ipex`: Intel Extension for PyTorch (IPEX).

The caller has compared its version with torch's, because
importing a version that does not fit ends the process.

IPEX rewrites the TorchScript graph at the second call of the loaded file, so what it fused is read from the executed
graph in the verifying process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from exporter.backends.ipex.int8 import quantise
from exporter.backends.ipex.modules import prepare_modules
from exporter.backends.ipex.package import import_ipex
from exporter.backends.plain import BF16_FLAGS, INT8_FLAGS
from exporter.shapes.example_inputs import ExampleInputs
from runtime.errors import BackendError
from runtime.format.manifest import Backend, Fusion, Precision, Requirements
from runtime.host import ipex_library
from runtime.host.requirements import Environment, detect
from runtime.host.torchscript import ScriptModule, with_python_warnings

# Operator → what it fuses. The names are those in `torch.jit.last_executed_optimized_graph()` with IPEX 2.8.0, without
# suffixes such as `_v2`.
FUSIONS = {
    "ipex::LlgaFusionGroup": "int8 group compiled by oneDNN",
    "ipex::mha_scores_calc": "attention scores",
    "ipex::distil_mha_scores_calc": "attention scores",
    "ipex::bert_flash_mha": "attention",
    "ipex::matmul_outtrans": "attention product with transposed output",
    "ipex::split_tensor": "joined query-key-value linear",
    "ipex::add_layernorm": "add+layer norm",
    "ipex::add_softmax": "add+softmax",
    "ipex_prepack::linear_add_run": "linear+add",
    "ipex_prepack::linear_add_add_run": "linear+add+add",
    "ipex_prepack::linear_gelu_run": "linear+gelu",
    "ipex_prepack::linear_relu_run": "linear+relu",
    "ipex_prepack::linear_silu_run": "linear+silu",
    "ipex_prepack::linear_tanh_run": "linear+tanh",
    "ipex_prepack::linear_sigmoid_run": "linear+sigmoid",
    "ipex_prepack::linear_mul_run": "linear+mul",
    "ipex_prepack::linear_run": "prepacked linear",
    "ipex_prepack::mkl_sgemm_run": "prepacked linear",
    "ipex_prepack::convolution_run": "prepacked convolution",
}


class IpexBackend:
    """Fused attention, linears and layer norms; the artifact needs the same IPEX at run time."""

    name: Backend = "ipex"
    kernels = "default kernels (auto_kernel_selection off)"
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
    optimised_at_run = True

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """The same IPEX and its torch: the operators are a library compiled for that release."""
        flags = {"fp32": ("avx2",), "bf16": BF16_FLAGS, "int8": INT8_FLAGS}[precision]
        return Requirements(str(environment.torch), "same-minor", environment.ipex, flags)

    def optimise(self, module: torch.nn.Module, precision: Precision) -> torch.nn.Module:
        """`ipex.optimize` with its default kernels.

        `auto_kernel_selection` stays off: with it, fp32 `linear(h) + h` is wrong from the second call on, because the
        sum is accumulated into `h` while `h` is read.

        Raises:
            BackendError: IPEX cannot prepare the module.
        """
        _prepare(module)
        ipex = import_ipex()
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            options = {"dtype": dtype, "inplace": True, "auto_kernel_selection": False}
            optimised: torch.nn.Module = with_python_warnings(lambda: ipex.optimize(module, **options))
        # What its own checks and rewrites raise for modules that they do not know.
        except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, NotImplementedError) as error:
            raise BackendError(f"ipex.optimize failed: {error}") from error
        return optimised

    def quantise(
        self,
        module: torch.nn.Module,
        samples: Sequence[Mapping[str, torch.Tensor]],
        example: ExampleInputs,
        progress: Callable[[int], None],
    ) -> tuple[torch.nn.Module, str]:
        """Static int8 with ranges fitted to the samples; the rest is in the precision that `autocast` chooses.

        Raises:
            BackendError: IPEX cannot do that.
        """
        _prepare(module)
        converted, summary = with_python_warnings(
            lambda: quantise(module, samples, example, self.autocast("int8"), progress)
        )
        return converted, f"{summary}, the rest in {'bf16' if _native_bf16() else 'fp32'}"

    def autocast(self, precision: Precision) -> AbstractContextManager[Any]:
        """bf16 is traced under CPU autocast, without its cache: cached casts would become constants.

        So is the part of an int8 model that is not int8, if the processor has bf16 instructions: attention's products,
        half of the work for long texts, then take two thirds of the time, and the errors are not larger.
        """
        bf16 = precision == "bf16" or (precision == "int8" and _native_bf16())
        return _Tracing(bf16)

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """Nothing to do: IPEX rewrites the graph when the file runs."""
        return ""

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """Every operator of IPEX in the graph; those that `FUSIONS` does not list are `other`."""
        return tuple(
            Fusion(FUSIONS.get(_family(name), "other"), name, count)
            for name, count in sorted(operators.items())
            if name.startswith("ipex")
        )


class _Tracing(AbstractContextManager[None]):
    """The context of a trace; it can be entered several times."""

    def __init__(self, bf16: bool) -> None:
        self._bf16 = bf16
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._stack.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=self._bf16, cache_enabled=False))
        self._stack.enter_context(_Fusible())

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _native_bf16() -> bool:
    """Whether this processor has instructions for bf16; others convert to fp32 and back."""
    flags = detect().cpu_flags or frozenset()
    return "avx512_bf16" in flags


def _prepare(module: torch.nn.Module) -> None:
    """Run before IPEX's package is imported."""
    # Registering the operators first, by the runtime's own module, keeps PyTorch's notices off the screen.
    ipex_library.register_ipex()
    # Importing IPEX imports torch's compiler, which would start worker processes that are never used.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    prepare_modules(module)


# What attention does with its scores before softmax; IPEX's fusions look for exactly these operators.
_ARITHMETIC = re.compile(
    r"_*i?(?:add|sub|mul|(?:true)?div|masked_fill|where|matmul|bmm|baddbmm|einsum|clamp|max|float|to)_*"
)


class _Fusible(TorchFunctionMode):
    """While tracing, change three things into a form that IPEX computes correctly.

    The input of softmax is made contiguous unless it comes from arithmetic. IPEX replaces PyTorch's softmax by its own
    one, which fails at run time for other memory layouts ("Expected contiguous tensor input!"). Which tensors have one
    is only known after IPEX's passes; a linear whose output a model reshapes (deformable attention) is an example.

    If attention scores are scaled by a tensor (Swin v2 has a scale per head), the scale becomes the first factor. As
    the second factor, IPEX's fusion of attention takes it for a number and fails at the second call ("a Tensor with 3
    elements cannot be converted to Scalar"); as the first factor the fusion does not match.

    Query, key and value of PyTorch's own attention with separate weights become three tensors, even if a model passes
    the same one three times. IPEX joins linears of the same input, and the parts of the joint output do not have the
    memory layout that the attention's `view` needs (WavLM).
    """

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in ("softmax", "log_softmax") and arguments:
            origin = getattr(arguments[0], "_origin", "")
            if not _ARITHMETIC.fullmatch(origin):
                arguments = (arguments[0].contiguous(), *arguments[1:])
        if name in ("mul", "__mul__") and getattr(arguments[0], "_origin", "").strip("_") in _PRODUCTS:
            scale = arguments[1]
            if isinstance(scale, torch.Tensor) and scale.numel() > 1:
                function, arguments = torch.mul, (scale, arguments[0])
        if name == "multi_head_attention_forward" and (keywords or {}).get("use_separate_proj_weight"):
            arguments = (*_separate_tensors(*arguments[:3]), *arguments[3:])
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor):
            result._origin = name  # type: ignore[attr-defined]  # read above
        return result


_PRODUCTS = ("matmul", "bmm")


def _separate_tensors(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Three tensors, made by three different operators, since TorchScript merges equal ones."""
    return query.contiguous(), key.clone(), value.clone(memory_format=torch.contiguous_format)


def _family(operator: str) -> str:
    head, _, tail = operator.rpartition("_v")
    return head if head and tail.isdigit() else operator
