"""What the code of models raises, and how it becomes a named error.

In: a call of the original model. Out: its answer. Refuses (ModelFailedError) a model that fails by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.errors import ModelFailedError

# What models' own code raises for inputs that it was not made for; anything else is a defect of this project.
FAILURES = (RuntimeError, TypeError, ValueError, NameError, LookupError, AttributeError, AssertionError)


@contextmanager
def failing_by_name(shape: str) -> Iterator[None]:
    """Around a call of the original model: what its code raises becomes a ModelFailedError."""
    try:
        yield
    except FAILURES as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if "padding token" in reason:
            raise ModelFailedError(
                f"config.json names no pad_token_id, without which the model classifies one text at a time ({reason})",
                "the id that shorter texts of a batch are filled up with",
                "add pad_token_id to config.json, or a padding token to the tokenizer",
            ) from error
        raise ModelFailedError(
            f"the original model fails on inputs of {shape} ({reason})",
            "a model that answers any batch and length that its configuration admits",
            "this architecture is not supported yet",
        ) from error
