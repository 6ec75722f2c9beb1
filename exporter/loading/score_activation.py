"""A classifier's labels, and the activation that turns its logits into scores.

For a cross encoder these are the scores of `CrossEncoder.predict`; for other classifiers those of transformers'
pipelines.
"""

from __future__ import annotations

from typing import Any

from runtime.errors import CheckpointError
from runtime.format.manifest import Activation

# The library's names of activations → the format's.
ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.Identity": "none",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.Tanh": "tanh",
}
# The key of config.json that sentence-transformers wrote before its release 4.
_OLD_KEY = "sbert_ce_default_activation_function"


def labels_of(config: Any) -> tuple[str, ...]:
    """The names of the classes, in order.

    Raises:
        CheckpointError: they are not numbered 0, 1, 2, … without a gap.
    """
    names = config.id2label or {}
    if sorted(names) != list(range(len(names))):
        raise CheckpointError(
            f"config.json: id2label numbers its labels {', '.join(map(str, sorted(names)))}"[:200],
            f"0 to {len(names) - 1}, without a gap",
            "correct config.json",
        )
    return tuple(str(names[index]) for index in sorted(names))


def ranks_pairs(config: Any, modules: bool) -> bool:
    """Whether a text classifier is a reranker: it has one label, and is not made for regression.

    Published cross encoders often do not say that they are ones. The scores of other classifiers of one label are the
    same as those of a cross encoder, except for a regression's.

    Args:
        config: the model's configuration.
        modules: whether `modules.json` makes it a cross encoder.
    """
    if getattr(config, "num_labels", None) != 1:
        return False
    own = isinstance(getattr(config, "sentence_transformers", None), dict) or getattr(config, _OLD_KEY, None)
    return modules or bool(own) or getattr(config, "problem_type", None) != "regression"


def activation_of(config: Any, count: int, named: str | None, cross_encoder: bool) -> tuple[Activation, str]:
    """The activation, and why it was chosen.

    Args:
        config: the model's configuration.
        count: how many labels there are.
        named: the activation that config_sentence_transformers.json names.
        cross_encoder: whether `modules.json` or the task makes it a cross encoder.

    Raises:
        CheckpointError: the activation has no name in the format.
    """
    own = getattr(config, "sentence_transformers", None)
    old = getattr(config, _OLD_KEY, None)
    place, name = "config_sentence_transformers.json", named
    if name is None and isinstance(own, dict) and "activation_fn" in own:
        place, name = "config.json, under sentence_transformers,", own["activation_fn"]
    elif name is None:
        place, name = f"{_OLD_KEY} of config.json", old
    if name is not None:
        known = ACTIVATIONS.get(name) if isinstance(name, str) else None
        if known is None:
            raise CheckpointError(
                f"{place} names the activation {name!r}"[:200],
                f"one of {', '.join(sorted({full.rpartition('.')[2] for full in ACTIVATIONS}))} of torch.nn",
                "remove the setting, and apply the activation to the scores yourself",
            )
        return known, f"{place} names {name}"
    if cross_encoder or isinstance(own, dict):
        one = count == 1
        return ("sigmoid", "a cross encoder with one label") if one else ("none", "a cross encoder with several labels")
    # As transformers' pipelines choose: the problem type first, then the number of labels.
    if config.problem_type == "regression":
        return "none", "a regression"
    if config.problem_type == "multi_label_classification" or count == 1:
        return "sigmoid", "one label, or several at once"
    return "softmax", "one label of several"


def sound_activation(config: Any) -> tuple[Activation, str]:
    """The activation of a classifier of sounds, and why: that of transformers' pipeline."""
    if config.problem_type == "regression":
        return "none", "a regression"
    if config.problem_type == "multi_label_classification":
        return "sigmoid", "several labels at once"
    return "softmax", "one label of several"
