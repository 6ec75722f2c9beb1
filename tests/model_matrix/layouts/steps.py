"""The two steps of a layout: build, ask the authors' library and export; then, in another process, ask the artifact."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import torch

import runtime
from exporter import ExportRequest, export
from runtime.errors import ExportedModelError
from runtime.format.manifest import Precision
from tests.model_matrix.layouts.layout import Layout, Mismatch
from tests.model_matrix.one import line


def export_layout(layout: Layout, precision: Precision, folder: Path) -> dict[str, Any]:
    """The layout's row; unless it is refused, `folder/model.pt` is its artifact, `folder/expected` the answers."""
    row = layout.blank()
    published = folder / "published"
    published.mkdir()
    try:
        layout.build(published)
        if layout.comparison is not None:
            torch.save(layout.comparison.expected(published), folder / "expected")
    except Exception as error:  # noqa: BLE001 (of many libraries: a fault of the layout, which the table has to show)
        return row | {"result": "unbuilt", "reason": line(error)}
    start = time.perf_counter()
    try:
        report = export(ExportRequest(str(published), folder / "model.pt", precision=precision, tune="off", force=True))
    except ExportedModelError as error:
        reason = line(error).replace(str(published), "FOLDER").replace(str(folder), "FOLDER")
        row |= {"seconds": time.perf_counter() - start, "reason": reason}
        clear = not layout.refused or re.search(layout.refused, reason, re.IGNORECASE)
        return row | {"result": "refused" if clear else "unclear"}
    except Exception as error:  # noqa: BLE001 (a defect of the exporter: the table has to show it)
        return row | {"result": "died", "reason": line(error), "seconds": time.perf_counter() - start}
    row |= {"seconds": time.perf_counter() - start, "task": report.manifest.task, "backend": report.manifest.backend}
    if layout.refused:
        return row | {"result": "wrong", "reason": f"a file was written, though {layout.why}"}
    return row | {"result": "right"}


def probe_layout(layout: Layout, folder: Path) -> dict[str, Any]:
    """Compare the artifact's answers with the library's; what that changes in the row."""
    assert layout.comparison is not None  # an artifact of a folder that must be refused is wrong already
    expected = torch.load(folder / "expected", weights_only=False)
    try:
        session = runtime.load(folder / "model.pt")
        return {"max_error": layout.comparison.compare(session, expected)}
    except Mismatch as error:
        return {"result": "wrong", "reason": line(error)}
    except ExportedModelError as error:
        return {"result": "refused", "reason": f"a file was written, which refuses the call: {line(error)}"}
