"""Which exceptions the code of a model raises, and how they become a ModelFailedError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import ModelFailedError

# What a model's code raises for inputs that it does not support; anything else is a defect of this project.
FAILURES = (RuntimeError, TypeError, ValueError, NameError, LookupError, AttributeError, AssertionError)


@contextmanager
def named_model_errors(shape: str) -> Iterator[None]:
    """Around a call of the original model: what its code raises becomes a ModelFailedError."""
    try:
        yield
    except FAILURES as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if "padding token" in reason:
            raise ModelFailedError(
                f"config.json has no pad_token_id, without which the model classifies one text at a time ({reason})",
                "the id with which shorter texts of a batch are padded",
                "add pad_token_id to config.json, or a padding token to the tokenizer",
            ) from error
        raise ModelFailedError(
            f"the original model fails on inputs of {shape} ({reason})",
            "a model that works for every batch and length that its configuration admits",
            "this architecture is not supported yet",
        ) from error
