"""One contender of `benchmarks.embed` in a process of its own: it loads, gives its vectors, and is timed on request.

The file of this project runs in this project's environment; the three backends of sentence-transformers in another,
which has neither this project nor IPEX. What a backend converts is kept beside the model, and is not timed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.worker import serve

BATCH_SIZES = (8, 32, 128)
# The sizes are compared on so many texts.
TRIED = 200


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run: `contender` is `file` or `file-PRECISION`, or `BACKEND[-VARIANT]` of sentence-transformers.

    `model` is the file, or the folder; `texts` a file with a list of strings as JSON; `vectors` where to write theirs.
    """

    contender: str
    model: str
    texts: str
    vectors: str
    threads: int


class Worker:
    """A job and what it loaded."""

    def __init__(self, job: Job) -> None:
        # Both tokenize in as many threads as they compute.
        os.environ |= {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(job.threads)}
        self.job = job
        self.texts: list[str] = json.loads(Path(job.texts).read_text())
        self.encode: Callable[[list[str]], Any] = list

    def load(self) -> dict[str, Any]:
        """Load; of several sizes of batches keep the fastest; write the vectors."""
        import numpy
        import torch

        torch.set_num_threads(self.job.threads)
        found = {}
        for name, encode in self._variants():
            self.encode = encode
            found[name] = encode, min(self.time(TRIED)["seconds"] for _ in range(2))
        best = min(found, key=lambda name: found[name][1])
        self.encode = found[best][0]
        numpy.save(self.job.vectors, numpy.stack([numpy.asarray(row) for row in self.encode(self.texts)]))
        return {"variant": best, "variants_s": {name: round(seconds, 2) for name, (_, seconds) in found.items()}}

    def _variants(self) -> Iterable[tuple[str, Callable[[list[str]], Any]]]:
        if self.job.contender.startswith("file"):
            import runtime

            session = runtime.load(self.job.model, threads=self.job.threads)
            # sentence-transformers truncates without being asked.
            yield "as it comes", partial(session.text.embed, truncate=True)
            return
        model = _sentence_transformer(self.job)
        for size in BATCH_SIZES:
            yield f"batches of {size}", partial(model.encode, batch_size=size)

    def time(self, count: int | None = None) -> dict[str, float]:
        """Seconds of all texts once, or of the first ones, and of the processor, all threads together."""
        texts = self.texts[:count]
        wall, processor = time.perf_counter(), time.process_time()
        self.encode(texts)
        return {"seconds": time.perf_counter() - wall, "processor": time.process_time() - processor}


def _sentence_transformer(job: Job) -> Any:
    from sentence_transformers import SentenceTransformer

    backend, _, variant = job.contender.partition("-")
    if backend == "torch":
        return SentenceTransformer(job.model, device="cpu")
    if backend == "openvino":
        settings = {"INFERENCE_NUM_THREADS": str(job.threads), "INFERENCE_PRECISION_HINT": variant or "f32"}
        return SentenceTransformer(job.model, backend="openvino", model_kwargs={"ov_config": settings})
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = job.threads
    options = {"provider": "CPUExecutionProvider", "session_options": session}
    if variant:
        _optimise(job, options, variant)
        options = options | {"file_name": f"onnx/model_{variant}.onnx"}
    return SentenceTransformer(job.model, backend="onnx", model_kwargs=options)


def _optimise(job: Job, options: dict[str, Any], level: str) -> None:
    """The library's own way to a faster file, once."""
    from sentence_transformers import SentenceTransformer, export_optimized_onnx_model

    if not (Path(job.model) / f"onnx/model_{level}.onnx").exists():
        plain = SentenceTransformer(job.model, backend="onnx", model_kwargs=options)
        export_optimized_onnx_model(plain, level, job.model)


def main() -> None:
    serve(lambda options: Worker(Job(**options)), ("load", "time"))


if __name__ == "__main__":
    main()
