"""Short names for well-known models, as pure data.

Each has its hub id and, for `--random-weights` without a hub, the values of the hub's `config.json` that differ from
the model type's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ShortName:
    """A model with a short name. `config` are keyword arguments for the model type's configuration."""

    hub_id: str
    model_type: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)


_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_XLM_ROBERTA = _ROBERTA | {"vocab_size": 250002}

SHORT_NAMES: dict[str, ShortName] = {
    "bert-base": ShortName("google-bert/bert-base-uncased", "bert", "BertForMaskedLM"),
    "bert-base-cased": ShortName("google-bert/bert-base-cased", "bert", "BertForMaskedLM", {"vocab_size": 28996}),
    "bert-large": ShortName("google-bert/bert-large-uncased", "bert", "BertForMaskedLM", _LARGE),
    "distilbert": ShortName("distilbert/distilbert-base-uncased", "distilbert", "DistilBertForMaskedLM"),
    "roberta-base": ShortName("FacebookAI/roberta-base", "roberta", "RobertaForMaskedLM", _ROBERTA),
    "roberta-large": ShortName("FacebookAI/roberta-large", "roberta", "RobertaForMaskedLM", _ROBERTA | _LARGE),
    "xlm-roberta-base": ShortName("FacebookAI/xlm-roberta-base", "xlm-roberta", "XLMRobertaForMaskedLM", _XLM_ROBERTA),
    "minilm": ShortName("sentence-transformers/all-MiniLM-L6-v2", "bert", "BertModel", _MINILM),
}
