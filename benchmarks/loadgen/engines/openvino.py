"""OpenVINO with the file `ir`: its AsyncInferQueue, with as many streams and requests as the layout has.

Several streams use the throughput hint and one uses the latency hint, as OpenVINO's guide to hints says.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import openvino

from benchmarks.loadgen.engines import Job
from benchmarks.loadgen.queueing import Done, Query, Queue
from benchmarks.loadgen.samples import padded
from benchmarks.loadgen.systems import Strategy


class OpenVino:
    """A compiled model, and each sample's arrays."""

    def __init__(self, job: Job, rows: Sequence[dict[str, Any]]) -> None:
        core = openvino.Core()
        model = core.read_model(job.files["ir"])
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if job.streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": job.streams,
            "INFERENCE_NUM_THREADS": job.streams * job.threads,
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[job.precision],
        }
        self.compiled = core.compile_model(model, "CPU", settings)
        self.streams = job.streams
        self._request = self.compiled.create_infer_request()
        names = [port.any_name for port in model.inputs]
        self.rows = [{name: row[name] for name in names} for row in rows]

    def answer(self, number: int) -> Any:
        """One sample at once: logits of one row."""
        # Sharing, the fastest way in and out; the answer is copied before the next call.
        return self._request.infer(self.rows[number], share_inputs=True, share_outputs=True)[0][0].copy()

    def service(self, strategy: Strategy) -> InQueue:
        """What answers with that strategy."""
        return InQueue(self, strategy)


class InQueue:
    """A thread that takes a batch whenever one of the asynchronous requests is idle."""

    def __init__(self, engine: OpenVino, strategy: Strategy) -> None:
        self._rows, self._multiple = engine.rows, strategy.multiple
        self._queue = Queue(strategy.max_tokens)
        self._requests = openvino.AsyncInferQueue(engine.compiled, engine.streams)
        self._requests.set_callback(_tell)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, number: int, done: Done) -> None:
        """Queue a sample."""
        self._queue.put(Query(number, self._rows[number]["input_ids"].shape[1], done))

    def close(self) -> None:
        """End when all is answered."""
        self._queue.close()
        self._thread.join()

    def _work(self) -> None:
        while True:
            # First a free request, then the batch: what arrives meanwhile can still share it.
            self._requests.get_idle_request_id()
            batch = self._queue.take()
            if not batch:
                break
            try:
                feed = padded(self._rows, [query.number for query in batch], self._multiple)
                # The arrays are shared, and nothing of OpenVINO's keeps them until the answer: the userdata does.
                self._requests.start_async(feed, userdata=(batch, feed), share_inputs=True)
            # Whatever it was is told to the queries: a thread that ends unseen would leave them waiting for ever.
            except Exception as error:  # noqa: BLE001
                for query in batch:
                    query.done(error)
        self._requests.wait_all()


def _tell(request: Any, userdata: tuple[list[Query], dict[str, Any]]) -> None:
    batch, _ = userdata
    for query, answer in zip(batch, request.get_output_tensor(0).data.copy(), strict=True):
        query.done(answer)


def engine(job: Job, rows: Sequence[dict[str, Any]]) -> OpenVino:
    return OpenVino(job, rows)
