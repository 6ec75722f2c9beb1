"""A PEFT adapter: read its settings, and find the model that it was trained for.

An adapter holds small additions to the weights of another model, its base. The base is the model in the same folder if
that holds weights, else what the user names, else what `adapter_config.json` names. What cannot be merged into a base
is refused here by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from exporter.config.request import ExportRequest
from exporter.loading.hub import ModelFiles, locate
from exporter.loading.weight_files import INDEX, read_tensors
from runtime.errors import CheckpointError, HubUnreachableError, ModelNotFoundError, RequestError

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# PEFT puts this before the names that the base's weights have.
_PREFIX = "base_model.model."
# PEFT's name for a task → this exporter's. Language models have several tasks here; their architecture decides.
_TASKS = {
    "FEATURE_EXTRACTION": "feature-extraction",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
}
# Settings that make an adapter depend on more than its weights, each with what it does.
_UNMERGEABLE = {
    "alora_invocation_tokens": "it works only behind certain tokens",
    "layer_replication": "it repeats layers of its base",
    "arrow_config": "it chooses among several adapters for each token",
}


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter and its base.

    `kind` is PEFT's name for it, such as LORA. `task` follows from its settings; None if they do not say. `sizes` are
    the sizes of its weights, by their name in the base. `beside`: the base lies in the same folder.
    """

    files: ModelFiles
    folder: Path
    kind: str
    task: str | None
    base: ModelFiles
    beside: bool
    sizes: Mapping[str, tuple[int, ...]]

    @property
    def named(self) -> str:
        """The adapter, for messages."""
        return f"the {self.kind} adapter of {self.files.id}"

    def labels(self) -> int | None:
        """The number of labels of the classifier among its weights; None if there is none."""
        heads = [
            size[0]
            for name, size in self.sizes.items()
            if len(size) == 2 and name.endswith(("classifier.weight", "score.weight", "classifier.out_proj.weight"))
        ]
        return heads[0] if len(heads) == 1 else None


def find_adapter(files: ModelFiles, request: ExportRequest) -> AdapterFiles | None:
    """The adapter in a model's files, with its base; None if there is none.

    Raises:
        CheckpointError: it is damaged, cannot be merged, or its base cannot be found.
        PickledWeightsError: its weights are a pickle, which was not allowed.
        RequestError: a base is named for a model that is no adapter.
    """
    config = files.read_json(CONFIG)
    if config is None:
        if (stored := files.in_folder("adapter_model.*")) != []:
            raise CheckpointError(
                f"{files.id} holds a PEFT adapter's weights ({stored[0].name}) and no {CONFIG}",
                "both, or neither",
                "copy the whole folder again",
            )
        if request.base_model is not None:
            raise RequestError(f"base_model is {request.base_model!r}, and {files.id} is no PEFT adapter", "one")
        return None
    place = files.find(CONFIG)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or place is None:
        raise CheckpointError(f"{CONFIG} of {files.id} names no peft_type", "the kind of the adapter", "copy it again")
    _expect_mergeable(files, kind, config)
    base, beside = _base(files, kind, config, request)
    tensors = read_tensors(files, "", request.allow_pickle, _WEIGHTS)
    return AdapterFiles(
        files=files,
        folder=place.parent,
        kind=kind,
        task=_TASKS.get(str(config.get("task_type"))),
        base=base,
        beside=beside,
        sizes={name.removeprefix(_PREFIX): tuple(tensor.shape) for name, tensor in tensors.items()},
    )


@contextmanager
def alone(files: ModelFiles) -> Iterator[ModelFiles]:
    """The model without an adapter that lies beside it, which transformers would apply where peft is installed."""
    if files.folder is None:
        yield files
        return
    with TemporaryDirectory() as view:
        for path in files.folder.iterdir():
            if path.name != CONFIG and path.name not in _WEIGHTS:
                (Path(view) / path.name).symlink_to(path.resolve())
        yield dataclasses.replace(files, reference=view, folder=Path(view))


def _expect_mergeable(files: ModelFiles, kind: str, config: Mapping[str, Any]) -> None:
    for key, meaning in _UNMERGEABLE.items():
        if config.get(key):
            raise CheckpointError(
                f"{files.id} holds a PEFT adapter of type {kind} with {key}: {meaning}",
                "an adapter that can be merged into the weights of its base",
                "this adapter cannot be exported",
            )
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in ("gaussian", "orthogonal", "eva"):
        raise CheckpointError(
            f"{files.id} holds a PEFT adapter of type {kind} with init_lora_weights {start!r}, which changes its base",
            "an adapter for the base as it was published",
            "convert it when it is saved: save_pretrained(…, path_initial_model_for_weight_conversion=…)",
        )


def _base(files: ModelFiles, kind: str, config: Mapping[str, Any], request: ExportRequest) -> tuple[ModelFiles, bool]:
    """The files of the base, and whether they are the adapter's own folder."""
    if request.base_model is None and (files.gguf or (files.has("config.json") and _has_weights(files))):
        return files, True
    named = request.base_model or config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CheckpointError(
            f"{files.id} holds a PEFT adapter of type {kind}, and its {CONFIG} names no base",
            "the model that it was trained for",
            "give --base-model FOLDER",
        )
    inside = files.folder / named if files.folder is not None and request.base_model is None else None
    revision = config.get("revision") if request.base_model is None else None
    wanted = dataclasses.replace(
        request,
        gguf=None,
        model=str(inside) if inside is not None and inside.is_dir() else named,
        revision=revision if isinstance(revision, str) else None,
    )
    try:
        base = locate(wanted)
        found = base.has("config.json")
    except (HubUnreachableError, ModelNotFoundError) as error:
        raise _no_base(files, kind, named, error.found) from error
    if not found:
        at_hub = "there is no such folder, and neither the hub nor its cache gives its config.json"
        raise _no_base(files, kind, named, at_hub if base.folder is None else "it has no config.json")
    if base.has(CONFIG):
        raise CheckpointError(
            f"{named}, the base of the PEFT adapter {files.id}, is an adapter too",
            "a model of its own",
            "merge that one first, and give the result as --base-model FOLDER",
        )
    return base, False


def _has_weights(files: ModelFiles) -> bool:
    names = ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
    return any(files.has(name) for name in names)


def _no_base(files: ModelFiles, kind: str, named: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{files.id} holds a PEFT adapter of type {kind} for {named}, which cannot be read: {reason}"[:400],
        "the model that the adapter was trained for",
        "give --base-model FOLDER with that model",
    )
