"""Find a model and its files: a local folder, a hub id or a short name.

In: an ExportRequest. Out: `Location`, and JSON files by name. Refuses what is not there, and turns the errors of
transformers and the hub into named ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from exporter.config.model_aliases import SHORT_NAMES, ShortName
from exporter.config.request import ExportRequest
from runtime.errors import (
    CheckpointError,
    ExportedModelError,
    HubUnreachableError,
    ModelNotFoundError,
    PickledWeightsError,
    RemoteCodeError,
)
from runtime.printing import printable


@dataclass(frozen=True)
class Location:
    """Where a model is.

    `reference` is what transformers takes (a folder or a hub id); `id` is what the manifest says: a
    folder's own name, never its path. `short` is set where a short name was given.
    """

    reference: str
    id: str
    folder: Path | None
    short: ShortName | None
    options: dict[str, Any]


def locate(request: ExportRequest) -> Location:
    """Resolve MODEL: an existing folder first, then a short name, then a hub id.

    Raises:
        ModelNotFoundError: a path that does not exist, or a file.
    """
    folder = Path(request.model).expanduser()
    if folder.is_dir():
        # A file's name may hold any character; a manifest holds none that would steer a terminal.
        return Location(str(folder), printable(folder.resolve().name), folder, None, {})
    short = SHORT_NAMES.get(request.model)
    looks_like_path = (
        request.model.count("/") > 1 or request.model.startswith((".", "/", "~")) or os.sep + os.sep in request.model
    )
    if folder.exists() or (looks_like_path and short is None):
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
    reference = short.hub_id if short else request.model
    return Location(reference, reference, None, short, options)


def inside(location: Location, path: str) -> Location:
    """The same model, its files read from a folder inside it; `path` is "" for the model's own."""
    if not path:
        return location
    if location.folder is None:
        return dataclasses.replace(location, options=location.options | {"subfolder": path})
    return dataclasses.replace(location, reference=str(location.folder / path), folder=location.folder / path)


def read_json(location: Location, name: str) -> Any | None:
    """A JSON file of the model, or None if it has none of that name.

    Raises:
        CheckpointError: if it is there and cannot be read.
    """
    path = find(location, name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}", "a JSON file", "download or copy the model again"
        ) from error


def has_file(location: Location, name: str) -> bool:
    """Whether the model has a file of that name."""
    return find(location, name) is not None


def find(location: Location, name: str) -> Path | None:
    """The local path of one of the model's files, or None if it has none of that name."""
    if location.folder is not None:
        path = location.folder / name
        return path if path.is_file() else None
    with translated(location):
        found = cached_file(
            location.reference,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **location.options,
        )
    return Path(found) if found is not None else None


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Turn what transformers and the hub raise while loading into one named error."""
    try:
        yield
    except ExportedModelError:
        raise
    # transformers, and the formats it reads, raise whatever a damaged file leads them to: KeyError, TypeError,
    # EOFError, UnpicklingError, a bare Exception. Only their code runs inside.
    except Exception as error:  # noqa: BLE001
        raise _named(location, error) from error


def _named(location: Location, error: Exception) -> Exception:
    text = str(error)
    first = f"{type(error).__name__}: {' '.join(text.split())[:300]}"
    kinds = {type(cause).__name__ for cause in _chain(error)}
    if "trust_remote_code" in text:
        return RemoteCodeError(
            f"{location.id} brings its own Python code",
            "the option --trust-remote-code, which lets it run here with your rights",
            "read that code first",
        )
    if location.folder is None and kinds & {
        "RepositoryNotFoundError",
        "GatedRepoError",
        "HFValidationError",
        "RevisionNotFoundError",
    }:
        return ModelNotFoundError(
            f"the hub has no model {location.reference} that you may read ({first})",
            "",
            "check the name and --revision",
        )
    if location.folder is None and kinds & {
        "LocalEntryNotFoundError",
        "ConnectionError",
        "ConnectError",
        "OfflineModeIsEnabled",
    }:
        asked = "was not asked (--local-files-only)" if location.options["local_files_only"] else "cannot be reached"
        return HubUnreachableError(
            f"the model hub {asked} for {location.reference}, and the local cache does not hold it",
            "a connection, or a folder with config.json and model.safetensors",
            "give a folder instead of a name, or a short name with --random-weights for a trial",
        )
    if isinstance(error, ImportError):
        return CheckpointError(f"{location.id} needs a package that is not installed: {first}", "", "install it")
    if "safetensors" in text and "does not appear to have a file" in text:
        return PickledWeightsError(
            f"{location.id} has no weights in .safetensors",
            "model.safetensors",
            "convert them, or give --allow-pickle if you trust the file: unpickling runs the code it holds",
        )
    if "ignore_mismatched_sizes" in text:
        return CheckpointError(
            f"{location.id} has weights of other shapes than its config.json says",
            "weights and configuration of the same model",
            "copy both again",
        )
    return CheckpointError(
        f"cannot load {location.id}: {first}", "a complete model folder", "download or copy the model again"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
