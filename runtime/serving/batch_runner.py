"""A batch of requests in, each one's future settled: with its answer, or with the error that is its own.

In: a session; requests as inputs by name; batches of them. Out: `Request` values to queue; settled futures. Refuses
(InputError) inputs that the artifact does not admit. Whatever is raised meanwhile goes to the requests it belongs to
and never to the thread that computes them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from runtime import input_validation
from runtime.errors import DeadlineError, PoolError
from runtime.printing import shown
from runtime.serving.batching import Batcher
from runtime.serving.metrics import Counters
from runtime.serving.request_queue import Request
from runtime.session import Session


class Model:
    """A session, and how its requests are put together."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._batcher = Batcher(session.manifest)

    def request(self, inputs: Mapping[str, Any], max_wait: float, deadline_s: float | None) -> Request:
        """A request that waits for others at most `max_wait` seconds, and at most half of the way to its deadline.

        Raises:
            InputError: the artifact does not admit the inputs.
            PoolError: the deadline is no number.
        """
        if deadline_s is not None and not (isinstance(deadline_s, (int, float)) and deadline_s == deadline_s):
            raise PoolError(f"deadline_s is {shown(deadline_s)}", "seconds from now")
        # Copies: what the caller writes into its tensors afterwards was not checked.
        tensors = [tensor.clone() for tensor in input_validation.arrange(self.session.manifest.inputs, inputs)]
        now = time.monotonic()
        return Request(
            tensors,
            rows=self._batcher.rows(tensors),
            length=self._batcher.length(tensors),
            # Requests of two sessions never share a batch.
            key=(self, self._batcher.key(tensors)),
            most_rows=self._batcher.most_rows,
            compute=self._compute,
            arrived=now,
            until=now + (max_wait if deadline_s is None else min(max_wait, deadline_s / 2)),
            deadline=None if deadline_s is None else now + deadline_s,
        )

    def _compute(self, requests: Sequence[Sequence[torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        return self._batcher.parted(self.session(**self._batcher.merged(requests)), requests)


def answer(batch: Sequence[Request], counters: Counters) -> None:
    """Compute a batch whose futures are running, and settle these; where it fails, halves of it, down to one."""
    begun = time.monotonic()
    try:
        answers = batch[0].compute([request.tensors for request in batch])
    # Not Exception alone: a thread that ends leaves the others' requests waiting.
    except BaseException as error:  # noqa: BLE001
        if len(batch) == 1:
            counters.add("failed")
            _settle(batch[0].future.set_exception, error)
            # The error's traceback holds this frame: the request and it would keep each other.
            batch = []
            return
    else:
        counters.answered(batch, begun, time.monotonic())
        for request, outputs in zip(batch, answers, strict=True):
            _settle(request.future.set_result, outputs)
        return
    # Whichever it was fails alone; and where memory ran out, half as many may fit.
    answer(batch[: len(batch) // 2], counters)
    answer(batch[len(batch) // 2 :], counters)


def expire(late: Sequence[Request], counters: Counters) -> None:
    """Fail requests whose deadline passed before their turn."""
    for request in late:
        # False: it was cancelled just now.
        if request.future.set_running_or_notify_cancel():
            counters.add("failed", "late")
            waited = time.monotonic() - request.arrived
            _settle(
                request.future.set_exception,
                DeadlineError(f"the request waited {waited:.3f} s", "its turn before the deadline"),
            )


def _settle(setter: Callable[[Any], None], value: Any) -> None:
    """Set a future's result or exception, whatever its callbacks raise: they are the caller's code."""
    try:
        setter(value)
    except BaseException:  # noqa: BLE001
        logging.getLogger(__name__).exception("a callback of a request's future failed")
