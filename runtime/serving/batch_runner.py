"""Make requests from inputs, compute batches of them, and settle each request's future.

Inputs that the artifact does not admit are refused at once. An error during the computation goes to the requests that
caused it, never to the thread that computes.
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


class BatchRunner:
    """Makes requests for one session and computes their batches."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._batcher = Batcher(session.manifest)

    def request(self, inputs: Mapping[str, Any], max_wait: float, deadline_s: float | None) -> Request:
        """A request that waits for others at most `max_wait` seconds, and at most half of the time to its deadline.

        Raises:
            InputError: the artifact does not admit the inputs.
            PoolError: the deadline is not a number.
        """
        if deadline_s is not None and not (isinstance(deadline_s, (int, float)) and deadline_s == deadline_s):
            raise PoolError(f"deadline_s is {shown(deadline_s)}", "seconds from now")
        # Copied, since the caller may write into its tensors after they were checked.
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
            flush_at=now + (max_wait if deadline_s is None else min(max_wait, deadline_s / 2)),
            deadline=None if deadline_s is None else now + deadline_s,
        )

    def _compute(self, requests: Sequence[Sequence[torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        return self._batcher.split(self.session(**self._batcher.collate(requests)), requests)


def run_batch(batch: Sequence[Request], counters: Counters) -> None:
    """Compute a batch whose futures are running, and settle them. If it fails, its halves are computed, down to one."""
    begun = time.monotonic()
    try:
        outputs = batch[0].compute([request.tensors for request in batch])
    # Not only Exception: if the worker thread ended here, the queued requests would wait for ever.
    except BaseException as error:  # noqa: BLE001
        if len(batch) == 1:
            counters.add("failed")
            settle(batch[0].future.set_exception, error)
            # The error's traceback refers to this frame, which must not refer to the request: a reference cycle.
            batch = []
            return
    else:
        counters.add_batch(batch, begun, time.monotonic())
        for request, own in zip(batch, outputs, strict=True):
            settle(request.future.set_result, own)
        return
    # Only the request that caused the error fails in the end; and if memory ran out, half the batch may fit.
    run_batch(batch[: len(batch) // 2], counters)
    run_batch(batch[len(batch) // 2 :], counters)


def expire(late: Sequence[Request], counters: Counters) -> None:
    """Fail requests whose deadline passed before their turn."""
    for request in late:
        # False: the caller cancelled it just now.
        if request.future.set_running_or_notify_cancel():
            counters.add("failed", "late")
            waited = time.monotonic() - request.arrived
            settle(
                request.future.set_exception,
                DeadlineError(f"the request waited {waited:.3f} s", "its turn before the deadline"),
            )


def settle(setter: Callable[[Any], None], value: Any) -> None:
    """Set a future's result or exception. Its callbacks are the caller's code, so their errors are only logged."""
    try:
        setter(value)
    except BaseException:  # noqa: BLE001
        logging.getLogger(__name__).exception("a callback of a request's future failed")
