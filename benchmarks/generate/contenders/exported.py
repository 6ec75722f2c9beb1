"""This project's file, run by its own runtime: the loop behind `session.text.generate`, without the tokenizer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from benchmarks.generate.contenders import Write, Writers, Written
from benchmarks.generate.rows import Job
from runtime import load
from runtime.generation.loop import Loop
from runtime.generation.settings import Settings


def writers(job: Job) -> Writers:
    return {"as it is": lambda: _load(job)}


def _load(job: Job) -> Write:
    session = load(job.path, threads=job.threads)
    assert session.manifest.generation is not None
    info = dataclasses.replace(session.manifest.generation, stop_ids=())

    def write(prompts: Sequence[Sequence[int]], count: int) -> Written:
        start = time.perf_counter()
        loop = Loop(session.decode, info, prompts, [count] * len(prompts), Settings())
        written = Written([[] for _ in prompts], [[] for _ in prompts])
        for steps in loop.steps():
            now = time.perf_counter() - start
            for step in steps:
                written.ids[step.row].append(step.token)
                written.moments[step.row].append(now)
        return written

    return write
