"""Rewrite modules that IPEX computes wrongly or cannot take, into equivalent ones."""

from __future__ import annotations

import torch


def prepare_modules(module: torch.nn.Module) -> None:
    """Change a module in place into a form that IPEX computes correctly."""
    _untie(module)
    _drop_none_submodules(module)
    _explicit_padding(module)


def _untie(module: torch.nn.Module) -> None:
    """Give every linear a weight and a bias of its own.

    IPEX does not prepare a linear whose weight is also an embedding's (masked language models). Its JIT pass then packs
    that weight for the sizes of one call, and the outputs at other sizes are wrong: measured with a tied BERT decoder
    in bf16 (tests/test_traps.py).
    """
    owners: dict[int, int] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for part in module.modules():
        if not isinstance(part, torch.nn.Linear):
            continue
        for name, parameter in list(part.named_parameters(recurse=False)):
            if owners[id(parameter)] > 1:
                owners[id(parameter)] -= 1
                setattr(part, name, torch.nn.Parameter(parameter.detach().clone(), requires_grad=False))


def _explicit_padding(module: torch.nn.Module) -> None:
    """Pad in front of convolutions that keep the length: IPEX pads both sides equally, wrong for even kernels."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if not isinstance(child, torch.nn.Conv1d) or child.padding != "same" or child.padding_mode != "zeros":
                continue
            whole = child.dilation[0] * (child.kernel_size[0] - 1)
            child.padding = (0,)
            setattr(
                part, name, torch.nn.Sequential(torch.nn.ConstantPad1d((whole // 2, whole - whole // 2), 0.0), child)
            )


def _drop_none_submodules(module: torch.nn.Module) -> None:
    """Turn submodules that are None into plain attributes: IPEX asks every submodule for its parameters."""
    for part in list(module.modules()):
        for name in [name for name, child in part._modules.items() if child is None]:
            del part._modules[name]
            object.__setattr__(part, name, None)
