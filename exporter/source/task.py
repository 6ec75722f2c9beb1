"""Choose the task: what the user said, or what the configuration and the folder say.

In: the configuration, the location, the request. Out: a `Task` and the reason. Refuses a task that the
model type has no class for, naming those it has.
"""

from __future__ import annotations

from typing import Any

from transformers.models.auto import modeling_auto

from exporter.tasks import TASKS, Task
from runtime.errors import TaskError


def choose_task(config: Any, requested: str, modules: Any | None) -> tuple[Task, str]:
    """The task and why.

    Args:
        config: the model's configuration.
        requested: a task's name, or `auto`.
        modules: the content of a sentence-transformers folder's `modules.json`, or None.

    Raises:
        TaskError: nothing fits.
    """
    possible = tasks_of_type(config)
    if requested != "auto":
        task = TASKS[requested]
        if task.name not in possible:
            raise TaskError(
                f"model type {config.model_type!r} has no class for {requested}",
                f"one of its tasks: {', '.join(possible) or 'none that this exporter knows'}",
                "choose another --task",
            )
        if task.pooled and modules is None:
            raise TaskError(
                "the model has no modules.json, so how to pool its token vectors is not known",
                "a sentence-transformers folder",
                "choose --task feature-extraction and pool yourself",
            )
        return task, "as requested"
    if modules is not None and "sentence-embedding" in possible:
        return TASKS["sentence-embedding"], "modules.json describes a sentence-transformers model"
    architectures = list(config.architectures or [])
    for name in architectures:
        for task in TASKS.values():
            if not task.pooled and name in classes(config, task):
                return task, f"config.json names the architecture {name}"
    raise TaskError(
        f"config.json names the architectures {', '.join(architectures) or '(none)'}, from which no task follows",
        f"--task with one of {', '.join(possible) or 'no task that this exporter knows'}",
        "choose one",
    )


def tasks_of_type(config: Any) -> list[str]:
    """The tasks for which transformers, or the model's own code, has a class for this model type."""
    return [task.name for task in TASKS.values() if classes(config, task)]


def tasks_of_checkpoint(config: Any) -> list[str]:
    """The tasks whose head the checkpoint was saved with, and those that need no head."""
    architectures = config.architectures or []
    return [
        task.name
        for task in TASKS.values()
        if not task.pooled
        and (task.auto_class == "AutoModel" or any(name in classes(config, task) for name in architectures))
        if classes(config, task)
    ]


def classes(config: Any, task: Task) -> tuple[str, ...]:
    """The names of the classes for a task: transformers' own table, then the model's `auto_map`."""
    own = (getattr(config, "auto_map", None) or {}).get(task.auto_class)
    if own is not None:
        return (str(own).rsplit(".", 1)[-1],)
    entry = getattr(modeling_auto, task.mapping).get(config.model_type, ())
    return (entry,) if isinstance(entry, str) else tuple(entry)
