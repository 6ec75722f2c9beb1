"""Find modules by the name of their class, and replace methods of single instances.

Classes stay unchanged, so that no other model of the process is affected. Names are compared because importing hundreds
of model files would take longer than the export.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch


def modules_named(model: torch.nn.Module, *names: str) -> list[torch.nn.Module]:
    """The modules whose class, or a base of it, has one of these names."""
    return [module for module in model.modules() if {kind.__name__ for kind in type(module).__mro__} & set(names)]


def replace(module: torch.nn.Module, name: str, method: Callable[..., Any]) -> None:
    """Give this instance another method."""
    setattr(module, name, MethodType(method, module))
