"""Where a model is, and how its files are found and read: in a local folder, or on the model hub.

Errors of transformers and of the hub become this project's own ones here, so that no other module needs to know them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from exporter.config.model_aliases import SHORT_NAMES, ShortName
from exporter.config.request import ExportRequest
from exporter.loading.gguf_file import gguf_name
from runtime.errors import (
    CheckpointError,
    ExportedModelError,
    HubUnreachableError,
    ModelNotFoundError,
    PickledWeightsError,
    RemoteCodeError,
)
from runtime.printing import printable

# NAME or OWNER/NAME; whatever else there is in MODEL, it names a folder.
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


class AttentionError(CheckpointError):
    """The model does not know the form of attention that was asked for."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model, in a local folder or on the hub.

    `reference` is what transformers takes (a folder or a hub id). `id` is what the manifest says: a folder's own name,
    never its path. `folder` is None for a model on the hub. `short_name` is set if the user gave a short name.
    `options` are the hub options of transformers' `from_pretrained`.
    """

    reference: str
    id: str
    folder: Path | None
    short_name: ShortName | None
    options: dict[str, Any]

    def inside(self, path: str) -> ModelFiles:
        """The same model, its files read from a folder inside it; `path` is "" for the model's own folder."""
        if not path:
            return self
        if self.folder is None:
            return dataclasses.replace(self, options=self.options | {"subfolder": path})
        return dataclasses.replace(self, reference=str(self.folder / path), folder=self.folder / path)

    @property
    def gguf(self) -> str | None:
        """The name of the GGUF file to read the model from, if it is not read from config.json and safetensors."""
        name: str | None = self.options.get("gguf_file")
        return name

    def find(self, name: str) -> Path | None:
        """The local path of one of the files, or None if the model has no file of that name."""
        if self.folder is not None:
            path = self.folder / name
            return path if path.is_file() else None
        with self.named_errors():
            found = cached_file(
                self.reference,
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **self.options,
            )
        return Path(found) if found is not None else None

    def has(self, name: str) -> bool:
        """Whether the model has a file of that name."""
        return self.find(name) is not None

    def in_folder(self, pattern: str) -> list[Path]:
        """The files that match a pattern, sorted. The hub is not asked: empty for a model there."""
        return [] if self.folder is None else sorted(self.folder.glob(pattern))

    def read_json(self, name: str) -> Any | None:
        """The content of a JSON file, or None if the model has no file of that name.

        Raises:
            CheckpointError: the file cannot be read.
        """
        path = self.find(name)
        if path is None:
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"cannot read {path}: {error}", "a JSON file", "download or copy the model again"
            ) from error

    def load(self, auto_class: Any, **options: Any) -> Any:
        """What `auto_class.from_pretrained` gives for this model.

        Raises:
            ExportError: one of its branches, whatever transformers or the hub raised.
        """
        with self.named_errors():
            return auto_class.from_pretrained(self.reference, **self.options, **options)

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Around code of transformers or the hub: turn what it raises into one of this project's errors."""
        try:
            yield
        except ExportedModelError:
            raise
        # transformers, and the formats it reads, raise whatever a damaged file leads them to: KeyError, TypeError,
        # EOFError, UnpicklingError, a bare Exception. Only their code runs inside.
        except Exception as error:  # noqa: BLE001
            raise _named(self, error) from error


def locate(request: ExportRequest) -> ModelFiles:
    """Resolve MODEL: an existing folder first, then a short name, then a hub id.

    Raises:
        ModelNotFoundError: a path that does not exist, or a file.
    """
    folder = Path(request.model).expanduser()
    if folder.is_dir():
        # A folder's name may hold any character; a manifest must not hold one that controls a terminal.
        reader = {} if request.gguf is None else {"gguf_file": gguf_name(folder, request.gguf)}
        return ModelFiles(str(folder), printable(folder.resolve().name), folder, None, reader)
    if request.gguf is not None:
        raise ModelNotFoundError(
            f"there is no folder {request.model}", f"the folder that holds {request.gguf}", "download the file first"
        )
    short_name = SHORT_NAMES.get(request.model)
    looks_like_path = request.model.startswith(".") or not HUB_ID.fullmatch(request.model)
    if folder.exists() or (looks_like_path and short_name is None):
        found = f"{request.model} is a file" if folder.exists() else f"there is no folder {request.model}"
        raise ModelNotFoundError(
            found,
            "a folder with config.json and weights, a hub id, or one of " + ", ".join(SHORT_NAMES),
            "check the path",
        )
    options = {
        "revision": request.revision or "main",
        "cache_dir": request.cache_dir,
        "local_files_only": request.local_files_only,
    }
    reference = short_name.hub_id if short_name else request.model
    return ModelFiles(reference, reference, None, short_name, options)


def _named(files: ModelFiles, error: Exception) -> Exception:
    text = str(error)
    first = f"{type(error).__name__}: {' '.join(text.split())[:300]}"
    kinds = {type(cause).__name__ for cause in _chain(error)}
    if "trust_remote_code" in text:
        return RemoteCodeError(
            f"{files.id} brings its own Python code",
            "the option --trust-remote-code, which lets it run here with your rights",
            "read that code first",
        )
    if files.folder is None and kinds & {
        "RepositoryNotFoundError",
        "GatedRepoError",
        "HFValidationError",
        "RevisionNotFoundError",
    }:
        return ModelNotFoundError(
            f"the hub has no model {files.reference} that you may read ({first})",
            "",
            "check the name and --revision",
        )
    if files.folder is None and kinds & {
        "LocalEntryNotFoundError",
        "ConnectionError",
        "ConnectError",
        "OfflineModeIsEnabled",
    }:
        asked = "was not asked (--local-files-only)" if files.options["local_files_only"] else "cannot be reached"
        return HubUnreachableError(
            f"the model hub {asked} for {files.reference}, and the local cache does not hold it",
            "a connection, or a folder with config.json and model.safetensors",
            "give a folder instead of a name, or a short name with --random-weights for a trial",
        )
    if isinstance(error, ImportError):
        return CheckpointError(f"{files.id} needs a package that is not installed: {first}", "", "install it")
    if "safetensors" in text and "does not appear to have a file" in text:
        return PickledWeightsError(
            f"{files.id} has no weights in .safetensors",
            "model.safetensors",
            "convert them, or give --allow-pickle if you trust the file: unpickling runs the code it holds",
        )
    if "attn_implementation" in text or "scaled_dot_product_attention" in text:
        return AttentionError(f"{files.id} cannot be loaded with this form of attention: {first}", "another form")
    if "ignore_mismatched_sizes" in text:
        return CheckpointError(
            f"{files.id} has weights of other shapes than its config.json says",
            "weights and configuration of the same model",
            "copy both again",
        )
    return CheckpointError(
        f"cannot load {files.id}: {first}", "a complete model folder", "download or copy the model again"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
