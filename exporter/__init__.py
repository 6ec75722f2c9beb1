"""Export Hugging Face transformer models to TorchScript files that run without transformers.

from exporter import ExportRequest, export

report = export(ExportRequest(model="bert-base", output="model.pt", precision="bf16"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.config.request import ExportRequest

if TYPE_CHECKING:
    from exporter.packaging.report import Report
    from exporter.pipeline import export

__all__ = ["ExportRequest", "Report", "export"]


def __getattr__(name: str) -> Any:
    # Lazy (PEP 562): the pipeline imports torch and transformers, which `export-model --help` can do without.
    if name == "export":
        from exporter.pipeline import export

        return export
    if name == "Report":
        from exporter.packaging.report import Report

        return Report
    raise AttributeError(f"module 'exporter' has no attribute {name!r}")
