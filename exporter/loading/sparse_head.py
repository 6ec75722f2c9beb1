"""Read the pooling of a SPLADE model: how the scores of its tokens become one weight per entry of the vocabulary."""

from __future__ import annotations

from exporter.loading import known_settings
from exporter.loading.pooling import SpladeHead
from exporter.loading.sentence_modules import Modules
from exporter.loading.settings import Settings
from runtime.errors import CheckpointError

STRATEGIES = ("max", "sum")
ACTIVATIONS = ("relu", "log1p_relu")


def read_sparse_head(settings: Settings, modules: Modules | None) -> SpladeHead:
    """The pooling of the folder's modules; without modules the library's usual one, `max` of `relu`.

    Raises:
        CheckpointError: it lacks its settings, or one of them is not supported.
    """
    if modules is None:
        return SpladeHead("max", twice=False)
    place = modules.listed[1].config
    found = settings.read(place, known_settings.SPLADE_POOLING)
    if found is None:
        raise CheckpointError(
            f"{settings.files.id} has no {place}", "the configuration of its pooling", "copy the whole folder again"
        )
    strategy = found.get("pooling_strategy", "max")
    if strategy not in STRATEGIES:
        raise settings.refusal(place, "pooling_strategy", strategy, f"known are {', '.join(STRATEGIES)}")
    activation = found.get("activation_function", "relu")
    if activation not in ACTIVATIONS:
        raise settings.refusal(place, "activation_function", activation, f"known are {', '.join(ACTIVATIONS)}")
    return SpladeHead(strategy, twice=activation == "log1p_relu")
