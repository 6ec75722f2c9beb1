"""The pairs of model type and task in transformers' auto tables, in a fixed order, and seeded samples of them."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from transformers.models.auto import modeling_auto

from exporter.config.tasks import TASKS
from tests.model_matrix.tiny import pairs as classes_of

Kind = Literal["encoder", "generator", "other"]

# Tasks whose tables list encoders and generators alike, so that standing there says nothing.
_COMMON = {"feature-extraction", "text-generation", "text-generation-scoring", "text2text-scoring"}
# The tables of models that write text or sound.
_GENERATORS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES",
)


@dataclass(frozen=True)
class Pair:
    """One task of one model type: the class that transformers has for it, and the kind of the model type.

    `encoder`: a table of an encoder's task lists the model type, and none of text and sound generators does; or it is
    listed for masked language modelling, whatever else it can do. `generator`: one of those tables lists it. `other`:
    AutoModel alone knows it (parts of larger models, codecs, time series).
    """

    model_type: str
    task: str
    architecture: str
    kind: Kind

    @property
    def name(self) -> str:
        """For people, files and sorting."""
        return f"{self.model_type} {self.task}"

    def blank(self) -> dict[str, Any]:
        """Its row before anything is known."""
        return asdict(self) | {"max_error": None, "seconds": None}


@lru_cache(maxsize=1)
def all_pairs() -> tuple[Pair, ...]:
    """Every pair, sorted by name.

    Sentence embeddings are left out: they are a folder's, not a model type's. So are reranking, which is text
    classification with one label, the towers of a model, whose table lists all models, encoders that could be made
    decoders by a setting, and what takes prompts, whose table lists models with prompts that are not known.
    """
    tables = {
        task.name: dict(classes_of(task.mapping))
        for task in TASKS.values()
        if not task.pooled and not task.single_label and not task.tower and not task.prompted
    }
    kinds = _kinds({name: set(table) for name, table in tables.items()})
    found = [
        Pair(model_type, task, architecture, kinds.get(model_type, "other"))
        for task, table in tables.items()
        for model_type, architecture in table.items()
        if not TASKS[task].generates or kinds.get(model_type) == "generator"
    ]
    return tuple(sorted(found, key=lambda pair: pair.name))


def _kinds(tables: dict[str, set[str]]) -> dict[str, Kind]:
    generators = {name for table in _GENERATORS for name in getattr(modeling_auto, table, {})}
    listed = set().union(*(table for task, table in tables.items() if task not in _COMMON))
    kinds: dict[str, Kind] = {}
    kinds |= dict.fromkeys(generators, "generator")
    kinds |= dict.fromkeys(listed - generators | tables["fill-mask"], "encoder")
    return kinds


def sample(count: int, seed: int) -> tuple[Pair, ...]:
    """So many pairs of encoders, the same for the same seed and the same transformers."""
    encoders = [pair for pair in all_pairs() if pair.kind == "encoder"]
    chosen = random.Random(seed).sample(encoders, min(count, len(encoders)))  # noqa: S311 (no secret)
    return tuple(sorted(chosen, key=lambda pair: pair.name))
