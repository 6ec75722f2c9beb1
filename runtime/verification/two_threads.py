"""Compare in two threads at the same time: what a session's callers do, and what shows state that calls share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from runtime.errors import ExportedModelError
from runtime.format.golden import Case
from runtime.verification.compare import Comparison


def in_two_threads(
    run: Callable[[Sequence[Case]], Iterable[Comparison]], one: Sequence[Case], other: Sequence[Case]
) -> list[Comparison]:
    """What `run` finds for each of the two orders, each in a thread of its own.

    Raises:
        ExportedModelError: the first that either thread raised, when both have ended.
    """
    found: list[Comparison] = []
    failures: list[ExportedModelError] = []

    def work(ordered: Sequence[Case]) -> None:
        try:
            found.extend(run(ordered))
        except ExportedModelError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(ordered,)) for ordered in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return found
