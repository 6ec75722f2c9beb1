"""Static int8 by IPEX: linears and convolutions with one scale per row of weights.

A module in which nothing can be computed in int8, or that IPEX cannot follow, is refused (BackendError).

The file holds only standard operators: weights in int8, and quantise and dequantise around float linears. IPEX compiles
these into int8 products by oneDNN when the file runs, for each shape and thread separately.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver, QConfig, QConfigMapping

from exporter.backends.ipex.package import import_ipex
from exporter.shapes.example_inputs import ExampleInputs
from runtime.errors import BackendError
from runtime.host import torchscript

# A few channels of a transformer's activations are a hundred times larger than the others, which a common scale leaves
# only a few steps. SmoothQuant moves the size, to the power ALPHA, into the weights, which have one scale per row.
# docs/decisions/int8.md has the measurements on MiniLM, against plain histograms and other powers.
ALPHA = 0.7
# Products of two activations, which are not computed in int8.
PRODUCTS = ("matmul", "bmm")
_WEIGHTS = PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)


def quantise(
    module: torch.nn.Module,
    samples: Sequence[Mapping[str, torch.Tensor]],
    example: ExampleInputs,
    context: AbstractContextManager[Any],
    progress: Callable[[int], None],
) -> tuple[torch.nn.Module, str]:
    """Observe the samples, then convert under `context`, the one that the trace is made in.

    Raises:
        BackendError: IPEX cannot follow the module, or finds nothing in it to compute in int8.
    """
    ipex = import_ipex()

    _as_linears(module)
    observer = MinMaxObserver.with_args(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    try:
        with torchscript.as_if_tracing(), torch.no_grad():
            smooth = not _reuses(module, example)
            if smooth:
                settings = ipex.quantization.get_smooth_quant_qconfig_mapping(alpha=ALPHA, act_observer=observer)
            else:
                settings = QConfigMapping().set_global(QConfig(activation=observer, weight=_WEIGHTS))
            prepared = ipex.quantization.prepare(
                module, settings, example_kwarg_inputs=example.as_dict(), inplace=True, bn_folding=False
            )
            for number, sample in enumerate(samples, 1):
                prepared(**sample)
                progress(number)
        summary = _choose_operators(prepared)
        with context:
            converted: torch.nn.Module = ipex.quantization.convert(prepared, inplace=True)
    # What its hooks raise for modules that they do not know.
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise BackendError(f"IPEX cannot calibrate this model ({reason})") from error
    return converted.eval(), summary + ("" if smooth else ", not smoothed, because layers are used several times")


def _as_linears(module: torch.nn.Module) -> None:
    """Replace the Conv1D of GPT-2 and similar models by linears: the same with a transposed weight."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child).__name__ == "Conv1D" and type(child).__module__.startswith("transformers."):
                weight, bias = child.get_parameter("weight").detach(), child.get_parameter("bias").detach()
                linear = torch.nn.Linear(*weight.shape)
                linear.weight = torch.nn.Parameter(weight.t().contiguous(), requires_grad=False)
                linear.bias = torch.nn.Parameter(bias, requires_grad=False)
                setattr(part, name, linear.eval())


def _reuses(module: torch.nn.Module, example: ExampleInputs) -> bool:
    """Whether one pass calls a linear more than once (ALBERT), with which IPEX's smoothing cannot be traced."""
    calls: list[torch.nn.Module] = []
    linears = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    hooks = [part.register_forward_pre_hook(lambda part, _: calls.append(part)) for part in linears]
    try:
        module(**example.as_dict())
    finally:
        for hook in hooks:
            hook.remove()
    return len(set(calls)) < len(calls)


def _choose_operators(prepared: Any) -> str:
    """Exclude products of two activations, of which attention consists, from int8; returns what the rest is.

    Attention weights add up to 1: at 512 tokens most are smaller than half of 1/255, and become 0 in int8. Embeddings
    of 512 tokens had an error of 0.45 with these products in int8, and of 0.11 without.

    IPEX's settings per operator can only be changed through a file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "operators.json"
        prepared.save_qconf_summary(str(file))
        summary = json.loads(file.read_text())
        operators = [one for part in summary.values() for one in part.get("q_op_infos", {}).values()]
        parts, weighted, held = dict(prepared.named_modules()), 0, 0
        for operator in operators:
            weights = [info.get("inf_dtype") for info in operator["weight_tensor_infos"] if info]
            if "torch.qint8" in weights:
                weighted += 1
                held += parts[operator["fqn"]].weight.numel()
            if any(product in operator["op_type"] for product in PRODUCTS):
                for info in filter(None, operator["input_tensor_infos"]):
                    info["inf_dtype"] = info["force_dtype"] = info["orig_dtype"]
        if not weighted:
            raise BackendError(
                "nothing in this model can be computed in int8",
                "linears or convolutions, as modules of PyTorch",
            )
        file.write_text(json.dumps(summary))
        prepared.load_qconf_summary(str(file))
    share = held / max(1, sum(parameter.numel() for parameter in prepared.parameters()))
    return f"{weighted} linears and convolutions in int8, with {share:.0%} of the parameters"
