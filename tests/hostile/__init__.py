"""Hostile files: artifacts whose digests fit and whose content lies. Made by a script, never stored.

`python -m tests.hostile FOLDER` writes them all, with `cases.json` beside them: for each file its kind, what it is, and
how a reader has to take it. The tests of Python and of C++ run the same files.
"""

from __future__ import annotations

from .case import CASES, Case

__all__ = ["CASES", "Case", "all_cases"]


def all_cases() -> list[Case]:
    """Every case, in a fixed order."""
    from . import archives, arguments, generation, manifests, operators, pickles  # noqa: F401 - each registers its own

    return CASES
