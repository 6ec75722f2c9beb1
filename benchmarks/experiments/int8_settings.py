"""What IPEX's int8 settings cost in accuracy: one export of a model each, as docs/decisions/int8.md tells of.

Usage: python -m benchmarks.experiments.int8_settings MODEL CALIBRATION

Prints for each setting the accuracy on held-out samples, and the error at the shapes that are verified (of random ids,
up to the longest that the model admits). Settings that no export has are set from outside. Nothing is timed.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from benchmarks.harness import tables
from exporter import ExportRequest, export
from exporter.backends.ipex import backend, int8
from exporter.calibration import sampling
from exporter.config.tolerances import TOLERANCES
from runtime.format.manifest import Tolerance

SETTINGS = {
    "as exported": {},
    "one scale for all channels": {"smooth": False},
    "smoothed by 0.5": {"alpha": 0.5},
    "smoothed by 0.6": {"alpha": 0.6},
    "smoothed by 0.8": {"alpha": 0.8},
    "attention's products in int8": {"products": ()},
    "the rest in fp32": {"bf16": False},
    "no lengths added to the samples": {"unseen": False},
}


@contextmanager
def settings(
    smooth: bool = True,
    alpha: float = int8.ALPHA,
    products: tuple[str, ...] = int8.PRODUCTS,
    bf16: bool | None = None,
    unseen: bool = True,
) -> Iterator[None]:
    wide = dict.fromkeys((key for key in TOLERANCES if key[0] == "int8"), Tolerance(1.0, 1.0))
    with (
        patch.dict(TOLERANCES, wide),
        patch.object(int8, "ALPHA", alpha),
        patch.object(int8, "PRODUCTS", products),
        patch.object(int8, "_reuses", int8._reuses if smooth else lambda *_: True),
        patch.object(backend, "_native_bf16", backend._native_bf16 if bf16 is None else lambda: bf16),
        patch.object(sampling, "_unseen", sampling._unseen if unseen else lambda *_: []),
    ):
        yield


def main(model: str, samples: str) -> None:
    body = []
    with tempfile.TemporaryDirectory() as folder:
        for name, changed in SETTINGS.items():
            request = ExportRequest(
                model, Path(folder) / "m.pt", precision="int8", calibration=samples, backend="ipex", force=True
            )
            with settings(**changed):  # type: ignore[arg-type]
                manifest = export(request).manifest
            for one in manifest.accuracy:
                errors = " ".join(
                    f"{'x'.join(map(str, point.shape.values()))}:{point.max_error:.2f}"
                    for point in manifest.verified
                    if point.output == one.output
                )
                body.append([name, one.output, f"{one.mean_cosine:.4f}", f"{one.least_cosine:.4f}", errors])
            print(f"exported: {name}", flush=True)
    words = ["output", "max error at each shape"]
    print(tables.plain(["setting", "output", "cosine", "least", "max error at each shape"], body, words))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
