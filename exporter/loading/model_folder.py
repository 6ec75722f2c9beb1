"""Read what a model folder says before its weights: modules, adapter, configuration, and from these the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from exporter.config.request import ExportRequest
from exporter.config.tasks import Task
from exporter.loading.adapter_files import AdapterFiles, find_adapter
from exporter.loading.hub import ModelFiles, locate
from exporter.loading.sentence_modules import Modules, expect_supported, read_modules
from exporter.loading.settings import Settings
from exporter.loading.size_limits import check_sizes
from exporter.loading.task_selection import choose_task
from exporter.loading.text_settings import TextSettings, read_texts
from exporter.loading.unsupported import expect_configuration, expect_plain_weights


@dataclass(frozen=True)
class Folder:
    """What is read of a model folder before its weights, and what it says about the task.

    `files` are those of model and tokenizer, `base` those of the weights: for an adapter the base model's. `modules`
    are None if the folder has none, or if the task leaves them aside. `stored` is false for a model that is made of a
    short name alone.
    """

    settings: Settings
    files: ModelFiles
    base: ModelFiles
    adapter: AdapterFiles | None
    modules: Modules | None
    texts: TextSettings
    config: Any
    task: Task
    task_reason: str
    stored: bool


def read_folder(request: ExportRequest) -> Folder:
    """Find the folder, refuse what its files already show, and choose the task."""
    whole = locate(request)
    stored = not (request.random_weights and whole.folder is None)
    settings = Settings(whole, request.ignore_settings)
    modules = read_modules(settings) if stored else None
    if modules is not None and (request.task == "auto" or modules.computed_by(request.task)):
        expect_supported(whole.id, modules, request.trust_remote_code)
    # Older sentence-transformers folders have config.json, weights and tokenizer in a folder of their own.
    files = whole.inside(modules.model_path if modules is not None else "")
    adapter = find_adapter(files, request) if stored else None
    base = files if adapter is None else adapter.base
    config = _load_config(base, request, stored)
    task, reason = _choose_task(config, request, modules, adapter)
    texts = TextSettings()
    if modules is not None and modules.computed_by(task.name):
        texts = read_texts(settings, files, modules)
    else:
        modules = None
    return Folder(settings, files, base, adapter, modules, texts, config, task, reason, stored)


def _load_config(files: ModelFiles, request: ExportRequest, stored: bool) -> Any:
    """The configuration; a folder that cannot be exported for a reason visible in its files is refused here."""
    if not stored and files.short_name is not None:
        config: Any = AutoConfig.for_model(files.short_name.model_type, **files.short_name.config)
        config.architectures = [files.short_name.architecture]
        return config
    if stored:
        expect_configuration(files)
    check_sizes(files.read_json("config.json"), files.id)
    config = files.load(AutoConfig, trust_remote_code=request.trust_remote_code)
    expect_plain_weights(files, config)
    return config


def _choose_task(
    config: Any, request: ExportRequest, modules: Modules | None, adapter: AdapterFiles | None
) -> tuple[Task, str]:
    """The task and the reason; that of an adapter's settings comes before that of its base."""
    if adapter is not None and adapter.task is not None and modules is None and request.task == "auto":
        task, _ = choose_task(config, adapter.task, None, request.trust_remote_code)
        return task, f"the {adapter.kind} adapter was trained for it"
    return choose_task(config, request.task, modules, request.trust_remote_code)
