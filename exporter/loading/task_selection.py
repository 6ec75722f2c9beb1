"""Choose the task: the one that the user names, or the one that follows from configuration and folder.

A task for which the model type has no class is refused; the message names those that it has.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from exporter.config.tasks import DECODER_RERANKING, TASKS, Task
from exporter.loading.own_code import needs_own_code
from exporter.loading.prompts import PROMPTED
from exporter.loading.score_activation import ranks_pairs
from exporter.loading.sentence_modules import Modules
from exporter.loading.towers import has_towers
from runtime.errors import CheckpointError, RemoteCodeError, TaskError

# The architecture in folders of Stanford's ColBERT, which is no class of transformers.
_STANFORD = "HF_ColBERT"


def choose_task(config: Any, requested: str, modules: Modules | None, trusted: bool = False) -> tuple[Task, str]:
    """The task, and why it was chosen.

    Args:
        config: the model's configuration.
        requested: a task's name, or `auto`.
        modules: of a sentence-transformers folder, or None.
        trusted: whether the model's own code may run.

    Raises:
        TaskError: the model has no class for the task, or no task follows.
        RemoteCodeError: the architecture is the model's own code, and may not run.
        CheckpointError: a damaged configuration.
    """
    architectures = architectures_of(config)
    own = sorted(set(_own_classes(config).values()) & set(architectures))
    if own and not trusted and (why := needs_own_code(config, own)) is not None:
        raise RemoteCodeError(
            f"the architecture {', '.join(own)} is Python code that the model brings along{why}",
            "the option --trust-remote-code, which lets it run here with your rights",
            "read that code first",
        )
    if _scores_tokens(architectures, requested, modules):
        if not classes(config, DECODER_RERANKING):
            raise TaskError(
                f"model type {config.model_type!r} has no class that generates text",
                "one, for a reranker whose modules.json lists LogitScore",
                "correct modules.json",
            )
        if modules is None:
            return DECODER_RERANKING, "as requested; config.json names a decoder, which says yes or no"
        return DECODER_RERANKING, "modules.json describes a CrossEncoder that is a decoder"
    one_label = getattr(config, "num_labels", None) == 1
    # Pooling needs the folder's modules, and reranking a single label; without them these tasks are not offered.
    possible = [
        task.name
        for task in TASKS.values()
        if classes(config, task)
        and (not task.pooled or (modules is not None and modules.task == task.name))
        and (one_label or not task.single_label)
    ]
    if requested != "auto":
        task = TASKS[requested]
        if not classes(config, task):
            raise TaskError(
                f"model type {config.model_type!r} has no class for {requested}",
                f"one of its tasks: {', '.join(possible) or 'none that this exporter knows'}",
                "choose another --task",
            )
        if task.pooled and modules is not None and modules.task != task.name:
            raise TaskError(
                f"modules.json describes a {modules.model_type}, for {modules.task}",
                f"the modules of a model for {task.name}",
                f"leave --task {requested} out",
            )
        if task.pooled and modules is None and not task.usual_head:
            raise TaskError(
                "the model has no modules.json, which says how to pool its token vectors",
                "a sentence-transformers folder",
                "choose --task feature-extraction and pool yourself",
            )
        if task.single_label and not one_label:
            raise TaskError(
                f"the model has {getattr(config, 'num_labels', 'no')} labels",
                f"one label, whose score ranks documents, for {requested}",
                "choose --task text-classification for the scores of all labels",
            )
        return task, "as requested"
    if modules is not None:
        # Any other task would leave out modules.
        task = choose_task(config, modules.task, modules, trusted)[0]
        reason = f"modules.json describes a {modules.model_type}"
        if modules.towers:
            reason += " for texts and images, and this is its part for texts; --task image-embedding is the other"
        return _reranking(config, task, reason, True)
    for name in architectures:
        for task in TASKS.values():
            if not (task.pooled or task.tower) and name in classes(config, task):
                return _reranking(config, task, f"config.json names the architecture {name}", False)
    if _STANFORD in architectures:
        raise TaskError(
            f"config.json names the architecture {_STANFORD}: a folder of Stanford's ColBERT, which keeps its "
            "projection and its settings in files of its own",
            "a folder that sentence-transformers or PyLate saved",
            'load it with sentence-transformers\' MultiVectorEncoder("FOLDER"), call its save_pretrained("OTHER"), and '
            "export OTHER",
        )
    found = f"config.json names the architectures {', '.join(architectures) or '(none)'}"
    if not possible:
        raise TaskError(
            f"{found}, and this exporter has no task for the model type {config.model_type!r}",
            "a model of one of its tasks, which all answer in one step",
            "of a model that writes a text word by word, save the encoder as a folder and export that",
        )
    raise TaskError(f"{found}, from which no task follows", f"--task with one of {', '.join(possible)}", "choose one")


def _scores_tokens(architectures: list[str], requested: str, modules: Modules | None) -> bool:
    """Whether a decoder reranks: its modules say so, or the user, of a folder that holds nothing but a decoder."""
    if modules is not None:
        return modules.scores_tokens and requested in ("auto", "reranking")
    return requested == "reranking" and architectures[:1] != [] and architectures[0].endswith("ForCausalLM")


def _reranking(config: Any, task: Task, reason: str, modules: bool) -> tuple[Task, str]:
    """The task and the reason; a text classifier whose one score ranks pairs of texts becomes a reranker."""
    if task.classifies_texts and ranks_pairs(config, modules):
        return TASKS["reranking"], f"{reason}; it has one label, whose score ranks pairs of texts"
    return task, reason


def architectures_of(config: Any) -> list[str]:
    """The class names in `config.json`.

    Raises:
        CheckpointError: they are not a list of names.
    """
    names = config.architectures or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"config.json: architectures is {names!r}"[:200], "a list of class names", "correct config.json"
        )
    return list(names)


def tasks_of_checkpoint(config: Any) -> list[str]:
    """The tasks whose head the checkpoint was saved with, and those that need no head."""
    architectures = architectures_of(config)
    return [
        task.name
        for task in TASKS.values()
        if not task.pooled
        and (task.auto_class == "AutoModel" or any(name in classes(config, task) for name in architectures))
        if classes(config, task)
    ]


def classes(config: Any, task: Task) -> tuple[str, ...]:
    """The classes for a task, by name: the folder's own, or its encoder alone, then those of transformers' table."""
    own = _own_classes(config).get(task.auto_class) or encoder_alone(config, task)
    entry = getattr(modeling_auto, task.mapping, {}).get(config.model_type, ())
    known = (entry,) if isinstance(entry, str) else tuple(entry)
    if task.tower:
        return tuple(name for name in known if has_towers(name, task.tower))
    if task.prompted:
        return tuple(name for name in known if name in PROMPTED)
    return known if own is None else (own, *known)


def encoder_alone(config: Any, task: Task) -> str | None:
    """The class of a folder that holds the encoder of an encoder-decoder model alone (T5EncoderModel).

    transformers' tables do not list these classes: they have the whole model, whose decoder the folder lacks.
    """
    if task.name not in ("feature-extraction", "sentence-embedding", "token-embedding"):
        return None
    for name in architectures_of(config):
        kind = getattr(transformers, name, None) if name.endswith("EncoderModel") else None
        if kind is not None and isinstance(config, getattr(kind, "config_class", None) or ()):
            return name
    return None


def _own_classes(config: Any) -> dict[str, str]:
    """Auto class → the name of the class in the model's own code."""
    own = getattr(config, "auto_map", None) or {}
    if not isinstance(own, dict):
        raise CheckpointError(f"config.json: auto_map is {own!r}"[:200], "an object", "correct config.json")
    return {name: str(path).rsplit(".", 1)[-1] for name, path in own.items()}
