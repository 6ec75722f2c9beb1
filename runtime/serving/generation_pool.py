"""Write the texts of many requests together: they share calls, and join and leave between calls.

    with GenerationPool(runtime.load("model.pt")) as pool:
        for piece in pool.submit("Once upon a time", max_new_tokens=50):
            print(piece, end="")

A request is either refused before it is queued (PoolFullError, PoolClosedError, ForkError, InputError), or its handle
gets its text or its error. Its tokens are those that `session.text.generate` writes for it alone.

One thread makes all calls; each computes with the session's threads. Requests get rows of the cache in the order of
their arrival (`runtime.generation.scheduler`).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from typing import Any

import torch

from runtime.errors import PoolClosedError, PoolError, PoolFullError
from runtime.generation.row import Row
from runtime.generation.scheduler import Scheduler
from runtime.host import allocator, forking
from runtime.printing import shown
from runtime.serving.generation_request import Generation, GenerationRequest
from runtime.serving.metrics import GenerationCounters, GenerationStatistics
from runtime.serving.request_queue import RequestQueue
from runtime.session import Session
from runtime.text.generation import TextGenerator, expect_one_beam, is_conversation, make_request
from runtime.text.results import Generated
from runtime.text.tokenizer import InvalidText

# Tokens that the cache holds, if the caller names no number and the artifact's rows are not longer.
CACHE_TOKENS = 8192
# Seconds between returns of unused memory to the system (docs/pool.md).
_TRIM_INTERVAL_S = 5.0


class GenerationPool:
    """A session that writes many texts at once.

    Args:
        session: of an artifact for text-generation.
        rows: how many texts are written at the same time.
        max_tokens: how many tokens of prompts are read between two tokens of a text that is written; `rows` at least.
            More of them read prompts faster, and let the others wait longer.
        cache_tokens: how many tokens, prompts and texts together, the cache has room for. Its memory is taken at once.
            None: 8,192, or one row of the artifact's longest if that is more.
        capacity: how many requests may wait before they are refused.

    Raises:
        PoolError: an argument that is not a whole number, or too small.
        InputTaskError: the artifact does not generate text.
        ArtifactFailedError: there is no memory for the cache.
    """

    def __init__(
        self,
        session: Session,
        *,
        rows: int = 16,
        max_tokens: int = 128,
        cache_tokens: int | None = None,
        capacity: int = 1024,
    ) -> None:
        self._rows, self._max_tokens, self._cache_tokens, self._capacity = rows, max_tokens, cache_tokens, capacity
        _check("rows", rows, 1)
        _check("max_tokens", max_tokens, rows)
        _check("capacity", capacity, 1)
        self._process = forking.process()
        self._session, self._generator = session, self._checked(session)
        # The thread's own: the rows, and the generator that writes them.
        self._writer, self._scheduler = self._generator, self._new_scheduler(self._generator)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # The limit of tokens in a batch is not used: requests are taken one by one.
        self._queue: RequestQueue[GenerationRequest] = RequestQueue(1)
        self._closed = False
        self._counters = GenerationCounters()
        self._trimmed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        # Accepted requests are answered even if nobody closes the pool.
        atexit.register(self.close)
        self._thread.start()

    @property
    def session(self) -> Session:
        """The session that writes for new requests."""
        return self._session

    def replace(self, session: Session) -> None:
        """Write for new requests with another session, once the old one has answered what was accepted before.

        The old session is released with the first new request.

        Raises:
            PoolError, InputTaskError: as for a new pool.
        """
        generator = self._checked(session)
        with self._lock:
            self._session, self._generator = session, generator

    def submit(self, prompt: Any, /, *, deadline_s: float | None = None, **options: Any) -> Generation:
        """Queue a request.

        Args:
            prompt: a text, or the messages of a conversation.
            deadline_s: seconds from now; a request that still waits then, or whose text is not complete, fails with
                DeadlineError.
            **options: arguments of `session.text.generate` that concern one text: `max_new_tokens`, `temperature`,
                `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`, `stop`, `logprobs`.

        Raises:
            InputError: a prompt or an option that does not fit.
            ExtraMissingError: messages without the package jinja2.
            PoolFullError, PoolClosedError, ForkError: the request was not queued.
        """
        forking.check_pool(self._process)
        if deadline_s is not None and not (isinstance(deadline_s, (int, float)) and deadline_s == deadline_s):
            raise PoolError(f"deadline_s is {shown(deadline_s)}", "seconds from now")
        generator = self._generator
        wanted = make_request(generator.info.defaults, **options)
        expect_one_beam(wanted, "a pool")
        (text,) = generator.texts([prompt], wanted)
        if isinstance(text, InvalidText):
            raise text.error("the conversation" if is_conversation(prompt) else "the prompt")
        row = Row(0, text.prompt, text.most, wanted.settings, generator.info.stop_ids, logprobs=wanted.logprobs)
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        request = GenerationRequest(generator, text, row, deadline, self._counters)
        # A weak reference avoids a cycle of the request and its future. The queue keeps a waiting request alive.
        known = weakref.ref(request)
        request.handle.future.add_done_callback(lambda future: self._forget(known()) if future.cancelled() else None)
        self._enqueue(request)
        return request.handle

    def __call__(self, prompt: Any, /, **options: Any) -> Generated:
        """Queue a request, wait for its text and return it, or raise its error; arguments as for `submit`."""
        return self.submit(prompt, **options).result()

    async def answer(self, prompt: Any, /, **options: Any) -> Generated:
        """The same for asyncio; cancelling the task cancels the request."""
        return await asyncio.wrap_future(self.submit(prompt, **options).future)

    def statistics(self) -> GenerationStatistics:
        """What the pool has done so far; raises ForkError as `submit` does."""
        forking.check_pool(self._process)
        scheduler = self._scheduler
        return self._counters.statistics(
            queued=len(self._queue),
            writing=len(scheduler.requests),
            cache_bytes=scheduler.cache_bytes,
            **vars(scheduler.work),
        )

    def close(self) -> None:
        """Accept no more requests, write those that were accepted, and end the thread; no effect in a forked child.

        Do not call it in a signal handler, which may have interrupted `submit`: set an event there.
        """
        if self._process != forking.process():
            return  # the thread is in the parent, and may have held the lock at the fork
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():  # a future's callback may close the pool
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> GenerationPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self, session: Session) -> TextGenerator:
        """What writes with a session; the cache has room for its longest row."""
        generator = session.text.generator()
        if self._cache_tokens is not None:
            _check("cache_tokens", self._cache_tokens, max(generator.info.longest, self._rows))
        return generator

    def _new_scheduler(self, generator: TextGenerator) -> Scheduler[GenerationRequest]:
        tokens = self._cache_tokens or max(CACHE_TOKENS, generator.info.longest, self._rows)
        return Scheduler(generator.decode, generator.info, self._rows, tokens, self._max_tokens)

    def _enqueue(self, request: GenerationRequest) -> None:
        late: list[GenerationRequest] = []
        try:
            with self._lock:
                if self._closed:
                    raise PoolClosedError("the pool is closed", "", "make another pool")
                if len(self._queue) >= self._capacity:
                    late = self._queue.expired(time.monotonic())
                if len(self._queue) >= self._capacity:
                    self._counters.add("refused")
                    raise PoolFullError(
                        f"the queue holds {len(self._queue)} requests", f"at most {self._capacity}", "try again later"
                    )
                self._queue.add(request)
                self._counters.add("requests")
                self._changed.notify()
        finally:
            for one in late:
                one.expire()

    def _run(self) -> None:
        # The first call of this in a thread applies the process's thread count to the thread; oneDNN does not do it.
        torch.get_num_threads()
        while True:
            try:
                if not self._turn():
                    return
            # If the thread ended here, the requests would wait for ever.
            except BaseException as error:  # noqa: BLE001
                self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        requests = self._scheduler.requests
        self._scheduler.clear()
        for request in requests:
            request.fail(error)

    def _turn(self) -> bool:
        """One step of all texts; False at the end."""
        with self._lock:
            while not self._queue and not self._scheduler.requests:
                if self._closed:
                    return False
                self._changed.wait()
            late = self._queue.expired(time.monotonic())
        for request in late:
            request.expire()
        self._drop_ended()
        self._admit()
        if self._scheduler.requests:
            self._scheduler.step()
        if time.monotonic() - self._trimmed_at > _TRIM_INTERVAL_S:
            self._trimmed_at = time.monotonic()
            allocator.give_back_memory()
        return True

    def _drop_ended(self) -> None:
        """Take the rows of requests that were cancelled or whose deadline has passed."""
        now = time.monotonic()
        for request in self._scheduler.requests:
            if request.handle.future.cancelled():
                self._scheduler.drop(request)
                request.settles()
            elif request.deadline is not None and request.deadline < now:
                self._scheduler.drop(request)
                request.expire()

    def _admit(self) -> None:
        """Give rows to the oldest requests; none overtakes, so that one that needs much room gets it in the end."""
        while True:
            with self._lock:
                if not self._queue:
                    return
                request = self._queue.oldest
                other = request.generator is not self._writer
                if self._scheduler.requests if other else not self._scheduler.fits(request):
                    return
                self._queue.remove(request)
            if request.handle.future.cancelled():
                request.settles()
                continue
            try:
                if other:
                    self._scheduler.release()
                    self._writer, self._scheduler = request.generator, self._new_scheduler(request.generator)
                request.begin()
                self._scheduler.add(request)
            except BaseException as error:
                request.fail(error)
                raise

    def _forget(self, request: GenerationRequest | None) -> None:
        """Remove a cancelled request; None: it no longer exists."""
        self._counters.add("cancelled")
        with self._lock:
            if request is None or request not in self._queue:
                return  # the thread has taken it, and will see that it was cancelled
            self._queue.remove(request)
        request.settles()


def _check(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise PoolError(f"{name} is {shown(value)}", f"a whole number, at least {least}")
