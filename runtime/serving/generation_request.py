"""One request for a text: the handle that the caller gets, and what the pool's thread knows of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from runtime.errors import DeadlineError
from runtime.generation.row import Row
from runtime.serving.batch_runner import settle
from runtime.serving.metrics import GenerationCounters
from runtime.text.generation import TextGenerator
from runtime.text.results import Generated
from runtime.text.written_text import WrittenText


class _Pieces:
    """Pieces of a text on their way from the pool's thread to one reader, in a thread or in asyncio."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._ended = False
        self._readers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def put(self, piece: str) -> None:
        """Add one."""
        self._change(piece)

    def end(self) -> None:
        """There are no more."""
        self._change(None)

    def get(self) -> str | None:
        """The next one, once it is there; None at the end."""
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    async def get_async(self) -> str | None:
        """The same for asyncio."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._waiting or self._ended:
                    return self._waiting.popleft() if self._waiting else None
                changed = loop.create_future()
                self._readers.append((loop, changed))
            await changed

    def _change(self, piece: str | None) -> None:
        with self._changed:
            if piece is None:
                self._ended = True
            else:
                self._waiting.append(piece)
            self._changed.notify_all()
            readers, self._readers = self._readers, []
        for loop, changed in readers:
            # A loop that was closed meanwhile has no reader any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, changed)


def _wake(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)


class Generation(Iterator[str], AsyncIterator[str]):
    """A text that a pool writes. Iterate over it for its pieces, or wait for its result.

        for piece in pool.submit("…"): ...
        async for piece in pool.submit("…"): ...
        pool.submit("…").result()
        await pool.submit("…")

    No piece ends within a character. Behind the last one the iteration ends, or raises the request's error.

    Attributes:
        future: of the result. Cancelling it, waiting or half written, is `cancel`.
    """

    def __init__(self) -> None:
        self.future: Future[Generated] = Future()
        self._pieces = pieces = _Pieces()
        self.future.add_done_callback(lambda _: pieces.end())

    def cancel(self) -> bool:
        """Write it no further; False if it has ended already."""
        return self.future.cancel()

    def done(self) -> bool:
        """Whether it has ended: written, failed or cancelled."""
        return self.future.done()

    def result(self, timeout: float | None = None) -> Generated:
        """The whole text, as `session.text.generate` gives it.

        Args:
            timeout: seconds to wait; then TimeoutError is raised, and the text is written on. None: no limit.

        Raises:
            ExportedModelError: the request's error.
            concurrent.futures.CancelledError: it was cancelled.
        """
        return self.future.result(timeout)

    def __await__(self) -> Generator[Any, None, Generated]:
        """The result, in asyncio; cancelling the task cancels the request."""
        return asyncio.wrap_future(self.future).__await__()

    def __next__(self) -> str:
        """The next piece."""
        piece = self._pieces.get()
        if piece is None:
            self.future.result()
            raise StopIteration
        return piece

    async def __anext__(self) -> str:
        """The next piece, in asyncio."""
        piece = await self._pieces.get_async()
        if piece is None:
            self.future.result()
            raise StopAsyncIteration
        return piece

    def put(self, piece: str) -> None:
        """Give out a piece; for the pool's thread."""
        if piece:
            self._pieces.put(piece)


class GenerationRequest:
    """What the pool's thread knows of a request: `runtime.generation.scheduler.Writing`, and `Queued` for the queue.

    Args:
        generator: of the session that writes it.
        text: the prompt, and what is written behind it.
        row: its token ids.
        deadline: in seconds of `time.monotonic`; None: none.
        counters: of the pool.
    """

    rows = 1
    key = None
    most_rows = None

    def __init__(
        self,
        generator: TextGenerator,
        text: WrittenText,
        row: Row,
        deadline: float | None,
        counters: GenerationCounters,
    ) -> None:
        self.generator, self.deadline = generator, deadline
        self.handle = Generation()
        self._text, self._row, self._counters = text, row, counters
        self._arrived = time.monotonic()
        self._begun: float | None = None
        self._settled = False

    @property
    def length(self) -> int:
        """For the queue."""
        return self._row.prompt

    @property
    def ids(self) -> Sequence[int]:
        """The prompt and what has been written behind it."""
        return self._row.ids

    @property
    def prompt(self) -> int:
        """How many of them are the prompt's."""
        return self._row.prompt

    @property
    def needs(self) -> int:
        """How many tokens there can be at most."""
        return self._row.prompt + self._text.most

    def begin(self) -> None:
        """It has got a row."""
        self._begun = time.monotonic()
        self._counters.add_time("queue", self._begun - self._arrived)

    def take(self, logits: torch.Tensor) -> bool:
        """Add a token; whether it was the last one."""
        first = len(self._row.ids) == self._row.prompt
        self._text.take(self._row.take(logits))
        if first:
            self._counters.add_time("first_token", time.monotonic() - self._arrived)
        self.handle.put(self._text.piece())
        if self._text.finish is None:
            return False
        if self.settles():
            self._counters.add("answered")
            self._counters.add_time("latency", time.monotonic() - self._arrived)
            settle(self.handle.future.set_result, self._text.result())
        return True

    def settles(self) -> bool:
        """Whether the future gets a result or an error now: not if it was cancelled, or has one already."""
        if self._settled:
            return False
        self._settled = True
        return self.handle.future.set_running_or_notify_cancel()

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if self.settles():
            self._counters.add("failed")
            settle(self.handle.future.set_exception, error)

    def expire(self) -> None:
        """End because its deadline has passed."""
        if self.settles():
            self._counters.add("failed", "late")
            passed = time.monotonic() - self._arrived
            written = len(self._row.ids) - self._row.prompt
            found = f"the request waited {passed:.3f} s"
            if self._begun is not None:
                found = f"{written} tokens were written within {passed:.3f} s"
            settle(self.handle.future.set_exception, DeadlineError(found, "the whole text before the deadline"))
