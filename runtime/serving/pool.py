"""Serve many requests with one copy of the weights: batches by a token budget, several threads, a bounded queue.

    with Pool(runtime.load("model.pt", threads=1)) as pool:
        outputs = await pool.answer({"input_ids": ids}, deadline_s=0.5)

A request is either refused before it is queued (PoolFullError, PoolClosedError, ForkError, InputError), or its future
gets its outputs or its error.

A worker takes the oldest request, and then requests of similar length as long as rows x longest length stays within
`max_tokens`. If the batch is not full, it waits for more requests, at most until the oldest is `max_wait_ms` old. Only
one worker, the leader, collects a batch at a time; the other idle workers sleep until the leader has taken its batch.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import torch

from runtime.errors import PoolClosedError, PoolError, PoolFullError
from runtime.host import allocator, forking
from runtime.host.requirements import usable_processors
from runtime.printing import shown
from runtime.serving.batch_runner import BatchRunner, expire, run_batch
from runtime.serving.metrics import Counters, Statistics
from runtime.serving.request_queue import Outputs, Request, RequestQueue
from runtime.session import Session

Inputs = Mapping[str, Any] | Callable[[Session], Mapping[str, Any]]

# Seconds between returns of unused memory to the system: batches of changing sizes leave gaps (docs/pool.md).
_TRIM_INTERVAL_S = 5.0


class Pool:
    """A session shared by several threads.

    Args:
        session: computes the batches; each call uses its thread count (`runtime.load(path, threads=1)`).
        workers: how many batches are computed at once; None: the processors that this process may use, divided by
            the session's threads.
        max_tokens: limit of a batch's rows times its longest length. A larger request is a batch of its own.
        max_wait_ms: how long a request waits for others to share its batch.
        capacity: how many rows may wait before requests are refused; a larger request is accepted if none waits.

    Raises:
        PoolError: an argument that is not a number, or too small.
    """

    def __init__(
        self,
        session: Session,
        *,
        workers: int | None = None,
        max_tokens: int = 4096,
        max_wait_ms: float = 2.0,
        capacity: int = 1024,
    ) -> None:
        self.workers = max(1, usable_processors() // torch.get_num_threads()) if workers is None else workers
        for name, value, least in (("workers", self.workers, 1), ("max_tokens", max_tokens, 1),
                                   ("max_wait_ms", max_wait_ms, 0), ("capacity", capacity, 1)):  # fmt: skip
            kinds = int if least else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool) or not value >= least:
                raise PoolError(f"{name} is {shown(value)}", f"a {'whole ' * least}number, at least {least}")
        self._process, self._runner = forking.process(), BatchRunner(session)
        self._max_wait, self._capacity = max_wait_ms / 1000, capacity
        # Idle workers wait on `_idle` for a first request; the leader waits on `_joining` for others to join its batch.
        self._lock = threading.Lock()
        self._idle, self._joining = threading.Condition(self._lock), threading.Condition(self._lock)
        self._queue: RequestQueue[Request] = RequestQueue(max_tokens)
        self._has_leader, self._closed = False, False
        self._trimmed_at = time.monotonic()
        self._counters = Counters()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.workers)]
        # Accepted requests are answered even if nobody closes the pool.
        atexit.register(self.close)
        for thread in self._threads:
            thread.start()

    @property
    def session(self) -> Session:
        """The session that answers new requests."""
        return self._runner.session

    def replace(self, session: Session) -> None:
        """Answer new requests with another session.

        The old session answers the requests that were accepted before, and is then released.
        """
        self._runner = BatchRunner(session)

    def submit(self, inputs: Inputs, *, deadline_s: float | None = None) -> Future[Outputs]:
        """Queue a request. Its future can be cancelled while the request waits, which frees its place in the queue.

        Args:
            inputs: as for `Session`, one row or several; copied. Or a function that makes them for the session that
                will answer: `pool.submit(lambda session: session.text.encode([text]))`.
            deadline_s: seconds from now; a request that still waits then fails with DeadlineError.

        Raises:
            InputError: the artifact does not admit the inputs.
            PoolFullError, PoolClosedError, ForkError: the request was not queued.
        """
        forking.check_pool(self._process)
        runner = self._runner
        tensors = inputs(runner.session) if callable(inputs) else inputs
        request = runner.request(tensors, self._max_wait, deadline_s)
        # A weak reference avoids a cycle of the request and its future. The queue keeps a waiting request alive.
        known = weakref.ref(request)
        request.future.add_done_callback(lambda future: self._forget(known()) if future.cancelled() else None)
        late: list[Request] = []
        try:
            with self._lock:
                if self._closed:
                    raise PoolClosedError("the pool is closed", "", "make another pool")
                if self._is_full(request):
                    late = self._queue.expired(time.monotonic())
                if self._is_full(request):
                    self._counters.add("refused")
                    queued = self._queue.rows
                    raise PoolFullError(
                        f"the queue holds {queued} rows", f"at most {self._capacity}", "try again later"
                    )
                self._queue.add(request)
                self._counters.add("requests")
                (self._joining if self._has_leader else self._idle).notify()
        finally:
            expire(late, self._counters)
        return request.future

    def __call__(self, /, **inputs: Any) -> Outputs:
        """Queue a request, wait for its outputs and return them, or raise the error of its future."""
        return self.submit(inputs).result()

    async def answer(self, inputs: Inputs, *, deadline_s: float | None = None) -> Outputs:
        """The same for asyncio; cancelling the task cancels the request."""
        return await asyncio.wrap_future(self.submit(inputs, deadline_s=deadline_s))

    def statistics(self) -> Statistics:
        """What the pool has done so far; raises ForkError as `submit` does."""
        forking.check_pool(self._process)
        return self._counters.statistics(len(self._queue))

    def close(self) -> None:
        """Accept no more requests, answer those that were accepted, and end the threads; no effect in a forked child.

        Do not call it in a signal handler, which may have interrupted `submit`: set an event there.
        """
        if self._process != forking.process():
            return  # the threads are in the parent, and one of them may have held the lock at the fork
        with self._lock:
            self._closed = True
            self._idle.notify_all()
            self._joining.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():  # a future's callback may close the pool
                thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_full(self, request: Request) -> bool:
        return bool(self._queue) and self._queue.rows + request.rows > self._capacity

    def _work(self) -> None:
        # The first call of this in a thread applies the process's thread count to the thread; oneDNN does not do it.
        torch.get_num_threads()
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Compute one batch; False at the end. A method of its own, so that no batch is referred to while waiting."""
        taken = self._next()
        if taken is None:
            return False
        batch, late = taken
        expire(late, self._counters)
        wanted = [request for request in batch if request.future.set_running_or_notify_cancel()]
        if wanted:
            run_batch(wanted, self._counters)
        if time.monotonic() - self._trimmed_at > _TRIM_INTERVAL_S:
            self._trimmed_at = time.monotonic()
            allocator.give_back_memory()
        return True

    def _next(self) -> tuple[list[Request], list[Request]] | None:
        """Take a batch, or the expired requests, from the queue; None if the pool is closed and the queue empty."""
        with self._lock:
            while self._has_leader or not self._queue:
                if self._closed and not self._queue:
                    return None
                self._idle.wait()
            self._has_leader = True
            try:
                return self._collect()
            finally:
                self._has_leader = False
                self._idle.notify(self.workers if self._closed else 1)

    def _collect(self) -> tuple[list[Request], list[Request]]:
        """The oldest request with those that arrive in time to join it; or the expired requests."""
        while True:
            late = self._queue.expired(time.monotonic())
            if late or not self._queue:
                return [], late
            batch, full = self._queue.batch()
            left = min(request.flush_at for request in batch) - time.monotonic()
            if full or self._closed or left <= 0:
                for request in batch:
                    self._queue.remove(request)
                return batch, []
            self._joining.wait(left)

    def _forget(self, request: Request | None) -> None:
        """Remove a cancelled request; None: it no longer exists."""
        self._counters.add("cancelled")
        with self._lock:
            if request is None or request not in self._queue:
                return  # a worker has taken it, and will notify those who wait for its future
            self._queue.remove(request)
        request.future.set_running_or_notify_cancel()
