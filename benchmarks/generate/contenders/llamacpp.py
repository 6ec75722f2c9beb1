"""llama.cpp: its server inside of this process, a slot per row. Rows are requests of their own, which it batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.generate.contenders import Write, Writers, Written
from benchmarks.generate.rows import COMPARED, LONG_PROMPT, NEW, ROWS_TOGETHER, Job

# Each row's share of the cache: the longest prompt and what is written behind it.
_ROOM = LONG_PROMPT + max(NEW, COMPARED) + 32


def writers(job: Job) -> Writers:
    return {"as it is": lambda: _load(job)}


def _load(job: Job) -> Write:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = job.path
    parameters.n_parallel = ROWS_TOGETHER
    parameters.n_ctx = ROWS_TOGETHER * _ROOM
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = job.threads
    server = xllamacpp.Server(parameters)

    def write_one(prompt: Sequence[int], count: int, start: float) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        moments: list[float] = []

        def take(part: Any) -> None:
            for one in part if isinstance(part, list) else [part]:
                if "error" in one:
                    raise RuntimeError(str(one["error"]))
                # A chunk is a token; the last one has none.
                for token in one["__verbose"]["tokens"]:
                    ids.append(token)
                    moments.append(time.perf_counter() - start)

        options: dict[str, Any] = {"n_predict": count, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        # `verbose` brings the ids, without the cost of probabilities.
        options |= {"return_tokens": True, "verbose": True, "stream": True}
        server.handle_completions({"prompt": list(prompt), **options}, take)
        return ids, moments

    def write(prompts: Sequence[Sequence[int]], count: int) -> Written:
        start = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as threads:
            found = list(threads.map(lambda prompt: write_one(prompt, count, start), prompts))
        return Written([ids for ids, _ in found], [moments for _, moments in found])

    return write
