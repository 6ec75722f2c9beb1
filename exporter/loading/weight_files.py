"""The files of weights in a model folder: which there are, and those of a sentence-transformers module.

In: where the model is. Out: tensors by name. Refuses pickles that were not allowed, indexes that point elsewhere, and
damaged files.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from exporter.loading.hub import Location, find, read_json
from runtime.errors import CheckpointError, PickledWeightsError

INDEX = "model.safetensors.index.json"
_CONVERT = "convert them, or give --allow-pickle if you trust the file: unpickling runs the code it holds"


def check_weight_files(location: Location, allow_pickle: bool) -> None:
    """Say plainly, before transformers does at length, what is wrong with the files of a local folder's weights.

    Raises:
        CheckpointError: there are none, some are missing, or the index names files elsewhere.
        PickledWeightsError: there are pickled ones alone.
    """
    folder = location.folder
    if folder is None or (folder / "model.safetensors").is_file():
        return
    index = read_json(location, INDEX)
    if index is not None:
        _check_index(location, index)
        return
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.glob("*.bin") if path.name.startswith("pytorch_model"))
    if not pickles:
        raise CheckpointError(
            f"{folder} holds no weights",
            "model.safetensors",
            "copy the weights there, or give --random-weights for a trial",
        )
    if not allow_pickle:
        raise PickledWeightsError(
            f"{folder} holds its weights only as a pickle ({pickles[0]})", "model.safetensors", _CONVERT
        )


def random_tensors(sizes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Seeded random weights of these sizes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def read_tensors(location: Location, path: str, allow_pickle: bool) -> dict[str, torch.Tensor]:
    """The weights of one module of a sentence-transformers folder.

    Args:
        location: where the model is.
        path: the module's folder in it.
        allow_pickle: read a pickle where there is nothing else.

    Raises:
        CheckpointError: there are none, or they are damaged.
        PickledWeightsError: there is a pickle alone, which is not allowed.
    """
    stored = find(location, f"{path}/model.safetensors")
    try:
        if stored is not None:
            return dict(load_file(stored))
        stored = find(location, f"{path}/pytorch_model.bin")
        if stored is None:
            raise CheckpointError(
                f"{path} of {location.id} holds no weights", "model.safetensors", "copy the whole folder again"
            )
        if not allow_pickle:
            raise PickledWeightsError(
                f"{path} of {location.id} holds its weights only as a pickle ({stored.name})",
                "model.safetensors",
                _CONVERT,
            )
        return dict(torch.load(stored, map_location="cpu", weights_only=True))
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, TypeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot read the weights in {path} of {location.id}: {reason}", "", "copy the whole folder again"
        ) from error


def _check_index(location: Location, index: object) -> None:
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(
            f"{INDEX} of {location.id} is damaged", "weight_map: the file of each weight", "copy it again"
        )
    for name in sorted(set(named.values())):
        windows = PureWindowsPath(name)
        if windows.anchor or ".." in windows.parts or PurePosixPath(name).is_absolute() or "\0" in name:
            raise CheckpointError(
                f"{INDEX} of {location.id} names {name!r}"[:200],
                "files inside the model's folder",
                "copy the weights there, and mend the index",
            )
        if find(location, name) is None:
            raise CheckpointError(
                f"{INDEX} of {location.id} names {name}, which is not there",
                "all files of weights that the index names",
                "copy the whole folder again",
            )
