"""Counters and latencies of the pools."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.serving.request_queue import Request

# Percentiles are those of so many latest requests.
_KEPT = 10_000


@dataclass(frozen=True)
class Statistics:
    """What a pool has done so far; times in milliseconds, percentiles of the latest 10,000 requests.

    `requests` counts the accepted requests: `answered`, `failed` (the future has an error; `late` of these passed
    their deadline), `cancelled`, still waiting (`queued`), or being computed. `refused` counts requests that were not
    accepted because the queue was full. `tokens` counts requested tokens, `computed_tokens` also padding.
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    late: int = 0
    cancelled: int = 0
    refused: int = 0
    batches: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    queued: int = 0
    queue_ms_median: float = 0.0
    latency_ms_median: float = 0.0
    latency_ms_p99: float = 0.0

    @property
    def fill(self) -> float:
        """The share of the computed tokens that was not padding; 1 before the first batch."""
        return self.tokens / self.computed_tokens if self.computed_tokens else 1.0


class _Counts:
    """Thread-safe counters with names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, *names: str) -> None:
        """Increment each of the named counters."""
        with self._lock:
            self._counts.update(names)


class Counters(_Counts):
    """Thread-safe counters with the names of `Statistics`, and the times of the latest requests."""

    def __init__(self) -> None:
        super().__init__()
        self._times: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def add_batch(self, batch: Sequence[Request], begun: float, done: float) -> None:
        """Count a batch that was computed from `begun` to `done`, in seconds of `time.monotonic`."""
        rows, longest = sum(request.rows for request in batch), max(request.length for request in batch)
        tokens = sum(request.rows * request.length for request in batch)
        with self._lock:
            self._counts.update(answered=len(batch), batches=1, tokens=tokens, computed_tokens=rows * longest)
            self._times.extend((1000 * (begun - one.arrived), 1000 * (done - one.arrived)) for one in batch)

    def statistics(self, queued: int) -> Statistics:
        """The values so far; `queued` is the number of waiting requests."""
        with self._lock:
            counts, times = dict(self._counts), list(self._times)
        # Outside the lock, since sorting takes milliseconds.
        waits, latencies = (sorted(column) for column in zip(*times, strict=True)) if times else ([], [])
        return Statistics(
            **counts,
            queued=queued,
            queue_ms_median=percentile(waits, 0.5),
            latency_ms_median=percentile(latencies, 0.5),
            latency_ms_p99=percentile(latencies, 0.99),
        )


@dataclass(frozen=True)
class GenerationStatistics:
    """What a pool for generation has done so far; times in milliseconds, percentiles of the latest 10,000 requests.

    `requests` counts the accepted requests: `answered`, `failed` (`late` of these passed their deadline), `cancelled`,
    still waiting (`queued`), or being written (`writing`). `refused` counts requests that were not accepted because the
    queue was full.

    `prompt_tokens` were read, `reused_tokens` of prompts were taken over from rows that began with the same ones,
    `new_tokens` were written. `calls` of the model had `tokens`, with padding `computed_tokens`. `cache_bytes` is the
    memory of keys and values.
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    late: int = 0
    cancelled: int = 0
    refused: int = 0
    queued: int = 0
    writing: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    tokens: int = 0
    computed_tokens: int = 0
    cache_bytes: int = 0
    queue_ms_median: float = 0.0
    first_token_ms_median: float = 0.0
    first_token_ms_p99: float = 0.0
    latency_ms_median: float = 0.0
    latency_ms_p99: float = 0.0

    @property
    def fill(self) -> float:
        """The share of the computed tokens that was not padding; 1 before the first call."""
        return self.tokens / self.computed_tokens if self.computed_tokens else 1.0


class GenerationCounters(_Counts):
    """Thread-safe counters with the names of `GenerationStatistics`, and the times of the latest requests."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, deque[float]] = {
            name: deque(maxlen=_KEPT) for name in ("queue", "first_token", "latency")
        }

    def add_time(self, name: str, seconds: float) -> None:
        """Add how long a request took: in the queue, to its first token, or altogether."""
        with self._lock:
            self._times[name].append(1000 * seconds)

    def statistics(self, **values: int) -> GenerationStatistics:
        """The values so far; `values` are those that are not counted here."""
        with self._lock:
            counts = dict(self._counts)
            times = {name: list(found) for name, found in self._times.items()}
        # Outside the lock, since sorting takes milliseconds.
        ordered = {name: sorted(found) for name, found in times.items()}
        return GenerationStatistics(
            **counts,
            **values,
            queue_ms_median=percentile(ordered["queue"], 0.5),
            first_token_ms_median=percentile(ordered["first_token"], 0.5),
            first_token_ms_p99=percentile(ordered["first_token"], 0.99),
            latency_ms_median=percentile(ordered["latency"], 0.5),
            latency_ms_p99=percentile(ordered["latency"], 0.99),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The percentile of numbers in ascending order; 0 if there are none."""
    return round(ordered[int(share * (len(ordered) - 1))], 3) if ordered else 0.0
