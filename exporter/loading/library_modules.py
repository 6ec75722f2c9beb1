"""Modules of a sentence-transformers folder that are the model's own code: loaded, and run, by the library.

They are read only if the user lets the model's code run. What they compute is traced as it is, and verified like the
rest.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.config.request import ExportRequest
from exporter.loading.hub import ModelFiles
from exporter.loading.pooling import SentenceHead
from runtime.errors import CheckpointError, ExtraMissingError


def load_library_modules(files: ModelFiles, request: ExportRequest, truncate: int | None) -> LibraryHead:
    """All modules behind the transformer.

    Args:
        files: the whole model folder.
        request: where the model is, and whether its code may run.
        truncate: how many numbers of a vector are kept; None: all.

    Raises:
        CheckpointError: the library cannot load them, or one leaves a prompt's tokens out.
        ExtraMissingError: the library is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ExtraMissingError(
            f"modules.json of {files.id} names modules that sentence-transformers loads, which is not installed",
            "the package sentence-transformers",
            "pip install sentence-transformers",
        ) from None
    options: dict[str, Any] = {
        "trust_remote_code": request.trust_remote_code,
        "local_files_only": files.folder is not None or request.local_files_only,
        "model_kwargs": {"dtype": torch.float32},
        "device": "cpu",
    }
    if files.folder is None:
        options |= {"revision": request.revision, "cache_folder": request.cache_dir}
    with files.named_errors():
        loaded = SentenceTransformer(files.reference, **options)
    modules = list(loaded.eval().children())[1:]
    if not all(getattr(module, "include_prompt", True) for module in modules):
        raise CheckpointError(
            f"a module of {files.id} leaves a prompt's tokens out (include_prompt)",
            "own code behind a pooling of all tokens",
            "this model is not supported",
        )
    return LibraryHead(modules, truncate, files.id)


class LibraryHead(SentenceHead):
    """A vector per text by the library's modules, which read and write a dictionary of features."""

    def __init__(self, modules: list[torch.nn.Module], truncate: int | None, place: str) -> None:
        torch.nn.Module.__init__(self)
        self.behind = torch.nn.Sequential(*modules)
        self._truncate = truncate
        self._place = place

    @property
    def normalizes(self) -> bool:
        """Whether the last module is the library's Normalize."""
        last = type(self.behind[-1])
        return last.__name__ == "Normalize" and last.__module__.startswith("sentence_transformers.")

    @property
    def include_prompt(self) -> bool:
        """True: other modules are refused."""
        return True

    def forward(self, vectors: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The vector of each row."""
        weights = next(self.behind.parameters(), None)
        vectors = vectors.float() if weights is None else vectors.to(weights.dtype)
        features: Any = {"token_embeddings": vectors, "attention_mask": mask}
        for module in self.behind:
            features = module(features)
        found = features.get("sentence_embedding") if isinstance(features, dict) else None
        if not isinstance(found, torch.Tensor) or found.dim() != 2:
            raise CheckpointError(
                f"the modules of {self._place} make no sentence_embedding of a vector per text",
                "modules that end in one",
                "this model is not supported",
            )
        return (found[:, : self._truncate].float(),)
