"""Modules that IPEX gets wrong, written down in another form: the same answers, before it takes them.

In: a module. Out: the module, changed in place. Refuses nothing.
"""

from __future__ import annotations

import torch


def suit(module: torch.nn.Module) -> None:
    """Change what IPEX would fail on or answer wrongly."""
    _untie(module)
    _drop_absent(module)
    _pad_apart(module)


def _untie(module: torch.nn.Module) -> None:
    """Give every linear a weight and a bias of its own.

    IPEX leaves a linear alone whose weight is an embedding's too (masked language models), and its JIT
    pass then packs that weight for the sizes of the call it happens in: at other sizes the answers were
    garbage, measured with a tied BERT decoder in bf16 (tests/test_traps.py).
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


def _pad_apart(module: torch.nn.Module) -> None:
    """Pad before convolutions that keep the length: IPEX pads both sides alike, even where the kernel is even."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if not isinstance(child, torch.nn.Conv1d) or child.padding != "same" or child.padding_mode != "zeros":
                continue
            whole = child.dilation[0] * (child.kernel_size[0] - 1)
            child.padding = (0,)
            setattr(
                part, name, torch.nn.Sequential(torch.nn.ConstantPad1d((whole // 2, whole - whole // 2), 0.0), child)
            )


def _drop_absent(module: torch.nn.Module) -> None:
    """Make plain attributes of submodules that are None: IPEX asks every submodule for its parameters."""
    for part in list(module.modules()):
        for name in [name for name, child in part._modules.items() if child is None]:
            del part._modules[name]
            object.__setattr__(part, name, None)
