"""Give a random model weights that reveal mistakes: all finite, none constant. The model is changed in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Of what a batch norm gives.
_TOO_LARGE = 1e6
# Not what inherits from them: some add one to their weights.
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.GroupNorm, torch.nn.LayerNorm)


@torch.no_grad()
def enliven(model: torch.nn.Module) -> None:
    """Replace what is degenerate in a fresh model: unset memory, zero matrices, norms that change nothing."""
    normed = any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
    for module in model.modules():
        if isinstance(module, torch.nn.modules.conv._ConvNd):
            _widen(module, 2.0 if normed else 1.0)
        elif type(module) in _NORMS:
            _center(module)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            _enliven(name, parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2)


@torch.no_grad()
def settle(model: torch.nn.Module, inputs: torch.Tensor) -> None:
    """If numbers grow beyond all bounds, give batch norms the mean and variance of what reaches them, as training does.

    With random ones the sums of parallel branches grow from layer to layer, in PP-OCR's mobile detector to 1e13: all
    outputs are then 0 or 1, a mistake does not show, and rounding turns one into the other. Other models stay below
    1e5, and a few images are no good measure for them: small variances make rounding large.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if _largest(model, norms, inputs) < _TOO_LARGE:
        return
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        model(inputs)
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.eval()
            norm.momentum = momentum


def _largest(model: torch.nn.Module, norms: Sequence[torch.nn.Module], inputs: torch.Tensor) -> float:
    """The largest number that one of the norms gives."""
    found = [0.0]
    handles = [
        norm.register_forward_hook(lambda _, __, output: found.append(float(output.abs().max()))) for norm in norms
    ]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return max(found)


def _carry(weight: torch.Tensor) -> None:
    """Make a layer's weights as large as a signal needs to come through: initial ones let images fade to a constant."""
    inputs = weight[0].numel()
    wanted = ((2 if weight.dim() > 2 else 1) / inputs) ** 0.5
    spread = float(weight.std())
    if weight.shape[0] > 1 and 0 < spread < wanted:
        weight *= wanted / spread


def _widen(layer: torch.nn.modules.conv._ConvNd, gain: float) -> None:
    """Convolutions of the usual 0.02 let an image fade to nothing; batch norms of random statistics do not help."""
    weight = layer._parameters.get("weight")
    if weight is None or weight.numel() < 2 or not torch.isfinite(weight).all():
        return
    inputs = weight.numel() // (weight.shape[1] if layer.transposed else weight.shape[0])
    wanted = (gain / inputs) ** 0.5
    if 0 < float(weight.std()) < wanted / 2:
        weight.mul_(wanted / weight.std())


def _center(norm: torch.nn.Module) -> None:
    """Norms that a constructor draws around zero let nothing through; trained ones lie around one."""
    weight = norm._parameters.get("weight")
    if weight is not None and not float(weight.abs().mean()) > 0.5:
        weight.normal_(1, 0.05)


def _enliven(name: str, parameter: torch.Tensor) -> None:
    if parameter.numel() == 0:
        return
    if not torch.isfinite(parameter).all():
        parameter.normal_(0, 0.02)
    if parameter.dim() >= 2:
        if (parameter == parameter.flatten()[0]).all():
            # Zeros, or another constant such as a layer's scale of 1e-6 that would hide the layer.
            constant = float(parameter.flatten()[0])
            parameter.normal_(1.0 if constant == 1.0 else 0.0, 0.05)
        if name.endswith("weight") and "embed" not in name:
            _carry(parameter)
    elif parameter.dim() == 1 and parameter.numel() > 1 and (parameter == parameter[0]).all():
        constant = float(parameter[0])
        # A layer's scale close to zero (1e-6) would hide the layer.
        middle = 0.5 if 0 < abs(constant) < 1e-2 else constant
        parameter.copy_(middle + 0.05 * torch.randn_like(parameter))
