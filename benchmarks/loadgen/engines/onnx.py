"""ONNX Runtime with the file `onnx`, optimised by its transformers optimiser: one session, one thread per stream."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import onnxruntime

from benchmarks.loadgen.engines import Job
from benchmarks.loadgen.queueing import Done, Query, Queue
from benchmarks.loadgen.samples import padded
from benchmarks.loadgen.systems import Strategy


class Onnx:
    """A session, and each sample's arrays."""

    def __init__(self, job: Job, rows: Sequence[dict[str, Any]]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(job.files["onnx"], options, providers=["CPUExecutionProvider"])
        self.streams = job.streams
        names = [spec.name for spec in self.session.get_inputs()]
        self.rows = [{name: row[name] for name in names} for row in rows]

    def answer(self, number: int) -> Any:
        """One sample at once: logits of one row."""
        return self.session.run(None, self.rows[number])[0][0]

    def service(self, strategy: Strategy) -> InThreads:
        """What answers with that strategy."""
        return InThreads(self, strategy)


class InThreads:
    """Threads that take batches from one queue."""

    def __init__(self, engine: Onnx, strategy: Strategy) -> None:
        self._engine, self._multiple = engine, strategy.multiple
        self._queue = Queue(strategy.max_tokens)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(engine.streams)]
        for thread in self._threads:
            thread.start()

    def submit(self, number: int, done: Done) -> None:
        """Queue a sample."""
        self._queue.put(Query(number, self._engine.rows[number]["input_ids"].shape[1], done))

    def close(self) -> None:
        """End when all is answered."""
        self._queue.close()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._queue.take():
            try:
                feed = padded(self._engine.rows, [query.number for query in batch], self._multiple)
                answers = self._engine.session.run(None, feed)[0]
            # Whatever it was is told to the queries: a thread that ends unseen would leave them waiting for ever.
            except Exception as error:  # noqa: BLE001
                for query in batch:
                    query.done(error)
                continue
            for query, answer in zip(batch, answers, strict=True):
                query.done(answer)


def engine(job: Job, rows: Sequence[dict[str, Any]]) -> Onnx:
    return Onnx(job, rows)
