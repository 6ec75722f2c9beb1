"""What a folder says of sounds: its feature extractor, and how a speech recogniser's outputs become text."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from exporter.config.request import ExportRequest
from exporter.config.tasks import Task
from exporter.loading.ctc_decoding import read_ctc
from exporter.loading.feature_extractor import FeatureExtractor, load_feature_extractor
from exporter.loading.hub import ModelFiles
from exporter.loading.tokenizer import TokenizerPart
from runtime.format.manifest import CtcInfo


@dataclass(frozen=True)
class SoundSettings:
    """The folder's feature extractor, or why there is none; `ctc` is None if the file cannot make text."""

    extractor: FeatureExtractor | None
    reason: str
    ctc: CtcInfo | None


def read_sounds(
    files: ModelFiles, request: ExportRequest, model: Any, task: Task, tokenizer: TokenizerPart
) -> tuple[SoundSettings | None, list[str]]:
    """The settings and notes on them; None if the model takes no sounds."""
    if not {"input_values", "input_features"} & inspect.signature(model.forward).parameters.keys():
        return None, []
    extractor, reason = load_feature_extractor(files, request)
    if task.name != "automatic-speech-recognition":
        return SoundSettings(extractor, reason, None), []
    ctc, notes = read_ctc(files, request, model.config, tokenizer)
    return SoundSettings(extractor, reason, ctc), notes
