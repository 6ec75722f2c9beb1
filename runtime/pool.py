"""Many requests, one copy of the weights: batches by a token budget, several threads, a bounded queue.

    with Pool(runtime.load("model.pt", threads=1)) as pool:
        answer = await pool.answer({"input_ids": ids}, deadline_s=0.5)

In: a session; requests as inputs by name. Out: futures of outputs by name. A request is refused before it is queued
(PoolFullError, PoolClosedError, ForkError, InputError); an accepted one is answered, or its future has the error.

A worker takes the oldest request, then those of nearly its length, as many as fit into `max_tokens` (rows x longest).
It waits for more while there is room, at most until the oldest is `max_wait_ms` old. One worker waits for more at a
time; the others sleep until it has taken its batch.
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

from runtime import allocator, forking
from runtime.answering import Model, answer, expire
from runtime.counters import Counters, Statistics
from runtime.environment import usable_processors
from runtime.errors import PoolClosedError, PoolError, PoolFullError
from runtime.printing import shown
from runtime.session import Session
from runtime.waiting import Answer, Request, Waiting

Inputs = Mapping[str, Any] | Callable[[Session], Mapping[str, Any]]

_TIDY_S = 5.0  # between returns of unused memory: batches of ever other sizes leave gaps (docs/pool.md)


class Pool:
    """A session shared by several threads.

    Args:
        session: what answers; its thread count is that of each call (`runtime.load(path, threads=1)`).
        workers: calls at once; None: as many as processors that this process may use, by the session's threads.
        max_tokens: of a batch: rows times the longest of them. A larger request is a batch of its own.
        max_wait_ms: how long a request waits for others to share a batch with.
        capacity: rows in the queue beyond which requests are refused; a larger request is taken when none waits.

    Raises:
        PoolError: a number that is too small, or none.
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
        self._process, self._model = forking.process(), Model(session)
        self._max_wait, self._capacity = max_wait_ms / 1000, capacity
        # One lock, two reasons to wait: for a request to begin with, and for others that join it.
        self._lock = threading.Lock()
        self._idle, self._joining = threading.Condition(self._lock), threading.Condition(self._lock)
        self._waiting: Waiting[Request] = Waiting(max_tokens)
        self._led, self._closed = False, False  # led: a worker waits for requests that join its oldest
        self._tidied = time.monotonic()
        self._counters = Counters()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.workers)]
        # What was accepted is answered, even where nobody closes the pool.
        atexit.register(self.close)
        for thread in self._threads:
            thread.start()

    @property
    def session(self) -> Session:
        """What answers the requests that come from now on."""
        return self._model.session

    def replace(self, session: Session) -> None:
        """Answer requests that come from now on with another session.

        The old one answers those that were accepted before, then the pool lets go of it.
        """
        self._model = Model(session)

    def submit(self, inputs: Inputs, *, deadline_s: float | None = None) -> Future[Answer]:
        """Queue a request; the future can be cancelled until its turn comes, which makes room in the queue.

        Args:
            inputs: as for `Session`, one row or several; copied. Or a function that makes them of the session that
                will answer: `pool.submit(lambda session: session.text.encode([text]))`.
            deadline_s: from now on; a request whose turn has not come by then fails with DeadlineError.

        Raises:
            InputError: the artifact does not admit the inputs.
            PoolFullError, PoolClosedError, ForkError: it is not queued.
        """
        forking.check_pool(self._process)
        model = self._model
        made = inputs(model.session) if callable(inputs) else inputs
        request = model.request(made, self._max_wait, deadline_s)
        # Weak, or the request and its future would keep each other. As long as it waits it is alive.
        known = weakref.ref(request)
        request.future.add_done_callback(lambda future: self._forget(known()) if future.cancelled() else None)
        late: list[Request] = []
        try:
            with self._lock:
                if self._closed:
                    raise PoolClosedError("the pool is closed", "an open one")
                if self._is_full(request):
                    late = self._waiting.expired(time.monotonic())
                if self._is_full(request):
                    self._counters.add("refused")
                    queued = self._waiting.rows
                    raise PoolFullError(
                        f"the queue holds {queued} rows", f"at most {self._capacity}", "ask again later, or elsewhere"
                    )
                self._waiting.add(request)
                self._counters.add("requests")
                (self._joining if self._led else self._idle).notify()
        finally:
            expire(late, self._counters)
        return request.future

    def __call__(self, /, **inputs: Any) -> Answer:
        """Queue a request and wait for its answer; raises what its future holds."""
        return self.submit(inputs).result()

    async def answer(self, inputs: Inputs, *, deadline_s: float | None = None) -> Answer:
        """The same in asyncio; cancelling the task cancels the request."""
        return await asyncio.wrap_future(self.submit(inputs, deadline_s=deadline_s))

    def statistics(self) -> Statistics:
        """Counters so far; ForkError as for `submit`."""
        forking.check_pool(self._process)
        return self._counters.statistics(len(self._waiting))

    def close(self) -> None:
        """Take no more requests, answer all that were accepted, and end the threads; in a forked child, do nothing.

        Not for a signal handler, which may have interrupted `submit`: set an event there.
        """
        if self._process != forking.process():
            return  # the threads, and whoever holds the lock, are in the parent
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
        return bool(self._waiting) and self._waiting.rows + request.rows > self._capacity

    def _work(self) -> None:
        # A thread's first call of this brings the process's thread count to it; oneDNN would not ask for it.
        torch.get_num_threads()
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Answer a batch; False at the end. A method, so that nothing of it is kept while the next is waited for."""
        taken = self._next()
        if taken is None:
            return False
        batch, late = taken
        expire(late, self._counters)
        wanted = [request for request in batch if request.future.set_running_or_notify_cancel()]
        if wanted:
            answer(wanted, self._counters)
        if time.monotonic() - self._tidied > _TIDY_S:
            self._tidied = time.monotonic()
            allocator.give_back_memory()
        return True

    def _next(self) -> tuple[list[Request], list[Request]] | None:
        """A batch, or what came too late, taken out; None when the pool is closed and nothing waits."""
        with self._lock:
            while self._led or not self._waiting:
                if self._closed and not self._waiting:
                    return None
                self._idle.wait()
            self._led = True
            try:
                return self._joined()
            finally:
                self._led = False
                self._idle.notify(self.workers if self._closed else 1)

    def _joined(self) -> tuple[list[Request], list[Request]]:
        """The oldest request with those that come in time to join it."""
        while True:
            late = self._waiting.expired(time.monotonic())
            if late or not self._waiting:
                return [], late
            batch, full = self._waiting.batch()
            left = min(request.until for request in batch) - time.monotonic()
            if full or self._closed or left <= 0:
                for request in batch:
                    self._waiting.remove(request)
                return batch, []
            self._joining.wait(left)

    def _forget(self, request: Request | None) -> None:
        """The request was cancelled; None: it is no longer known here."""
        self._counters.add("cancelled")
        with self._lock:
            if request is None or request not in self._waiting:
                return  # a worker has taken it, and tells those who wait for its end
            self._waiting.remove(request)
        request.future.set_running_or_notify_cancel()
