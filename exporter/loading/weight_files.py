"""The weight files of a model folder: check them before they are loaded, and read those of single modules.

Pickles that were not allowed, indexes that point outside the folder, and damaged files are refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from exporter.loading.hub import ModelFiles
from runtime.errors import CheckpointError, PickledWeightsError

INDEX = "model.safetensors.index.json"
_CONVERT = "convert them, or give --allow-pickle if you trust the file: unpickling runs the code it holds"


def check_weight_files(files: ModelFiles, allow_pickle: bool) -> None:
    """Check the weight files of a local folder: transformers' own messages about them are long and unclear.

    Raises:
        CheckpointError: there are none, some are missing, or the index names files outside the folder.
        PickledWeightsError: all are pickled.
    """
    folder = files.folder
    if folder is None or (folder / "model.safetensors").is_file():
        return
    index = files.read_json(INDEX)
    if index is not None:
        _check_index(files, index)
        return
    if files.in_folder("*.safetensors"):
        return
    pickles = files.in_folder("pytorch_model*.bin")
    if not pickles:
        raise CheckpointError(
            f"{folder} holds no weights",
            "model.safetensors",
            "copy the weights there, or give --random-weights for a trial",
        )
    if not allow_pickle:
        raise PickledWeightsError(
            f"{folder} holds its weights only as a pickle ({pickles[0].name})", "model.safetensors", _CONVERT
        )


def random_tensors(sizes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Seeded random weights of these sizes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def read_tensors(
    files: ModelFiles,
    path: str,
    allow_pickle: bool,
    names: tuple[str, str] = ("model.safetensors", "pytorch_model.bin"),
) -> dict[str, torch.Tensor]:
    """The weights of one module of a sentence-transformers folder, or of an adapter.

    Args:
        files: the whole model.
        path: the module's folder in it; "" for the model's own.
        allow_pickle: read a pickle if there is nothing else.
        names: of the safetensors file and of the pickle.

    Raises:
        CheckpointError: there are none, or they are damaged.
        PickledWeightsError: there is only a pickle, which was not allowed.
    """
    folder, place = (f"{path}/", f"{path} of {files.id}") if path else ("", files.id)
    stored = files.find(folder + names[0])
    with _named_damage(place):
        if stored is not None:
            return dict(load_file(stored))
    stored = files.find(folder + names[1])
    if stored is None:
        raise CheckpointError(f"{place} holds no weights", names[0], "copy the whole folder again")
    if not allow_pickle:
        raise PickledWeightsError(
            f"{place} holds its weights only as a pickle ({stored.name})",
            names[0],
            _CONVERT,
        )
    return load_pickled(files, folder + names[1])


def read_all_tensors(files: ModelFiles) -> dict[str, torch.Tensor]:
    """All weights of a model in safetensors, of one file or of those that an index names.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    index = files.read_json(INDEX)
    if index is not None:
        _check_index(files, index)
    names = ["model.safetensors"] if index is None else sorted(set(index["weight_map"].values()))
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        path = files.find(name)
        if path is None:
            raise CheckpointError(f"{files.id} holds no weights", name, "copy the whole folder again")
        with _named_damage(f"{name} of {files.id}"):
            tensors |= load_file(path)
    return tensors


def load_pickled(files: ModelFiles, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a pickled file that is there; anything in it but tensors by name is refused, and nothing runs.

    Raises:
        CheckpointError: it holds something else, or is damaged.
    """
    stored = files.find(name)
    assert stored is not None
    with _named_damage(f"{name} of {files.id}"):
        found = dict(torch.load(stored, map_location="cpu", weights_only=True))
        if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in found.items()):
            raise TypeError("it holds something else than tensors by name")
    return found


@contextmanager
def _named_damage(place: str) -> Iterator[None]:
    """What reading a damaged file raises becomes a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, TypeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot read the weights in {place}: {reason}", "", "copy the whole folder again"
        ) from error


def _check_index(files: ModelFiles, index: object) -> None:
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(
            f"{INDEX} of {files.id} is damaged", "weight_map: the file of each weight", "copy it again"
        )
    for name in sorted(set(named.values())):
        windows = PureWindowsPath(name)
        if windows.anchor or ".." in windows.parts or PurePosixPath(name).is_absolute() or "\0" in name:
            raise CheckpointError(
                f"{INDEX} of {files.id} names {name!r}"[:200],
                "files inside the model's folder",
                "copy the weights there, and correct the index",
            )
        if files.find(name) is None:
            raise CheckpointError(
                f"{INDEX} of {files.id} names {name}, which is not there",
                "all files of weights that the index names",
                "copy the whole folder again",
            )
