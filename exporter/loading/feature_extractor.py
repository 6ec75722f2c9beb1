"""A model folder's own feature extractor: loaded, and called as transformers' pipelines call it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoFeatureExtractor

from exporter.config.request import ExportRequest
from exporter.loading.hub import ModelFiles
from runtime.errors import ExportedModelError


@dataclass(frozen=True)
class FeatureExtractor:
    """`own` is the object of transformers; `kind` is its class, or None if that is not a class of transformers."""

    own: Any
    kind: str | None

    @property
    def rate(self) -> int | None:
        """The rate of its sounds in Hz."""
        found = getattr(self.own, "sampling_rate", None)
        return found if isinstance(found, int) else None

    def __call__(self, samples: torch.Tensor, mask: bool) -> dict[str, torch.Tensor]:
        """The inputs that it makes of one sound, by name; `mask` asks for an attention mask."""
        # Asked for by the pipeline for speech recognition; that for classification leaves it to the extractor.
        asked = {"return_attention_mask": True} if mask else {}
        made = self.own(samples.numpy(), sampling_rate=self.rate, return_tensors="pt", **asked)
        return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}

    def frames(self, seconds: float) -> int | None:
        """How many frames it makes of a sound of this length; None if it makes none, or fails."""
        try:
            made = self(torch.zeros(int(seconds * (self.rate or 0))), False).get("input_features")
        # The settings of a folder may be anything, and the code its own.
        except Exception:  # noqa: BLE001
            return None
        return int(made.shape[1]) if made is not None and made.dim() == 3 else None

    def mel_filters(self) -> torch.Tensor:
        """Its filter bank, [frequencies, filters] or [filters, frequencies]."""
        found = getattr(self.own, "mel_filters", None)
        return torch.as_tensor(_kaldi_filters(self.own) if found is None else found)


def load_feature_extractor(files: ModelFiles, request: ExportRequest) -> tuple[FeatureExtractor | None, str]:
    """The folder's feature extractor; or None, and why there is none."""
    if not (files.has("preprocessor_config.json") or files.has("processor_config.json")):
        return None, "the folder has no preprocessor_config.json"
    try:
        # About mel filters that hold zeros only; the numbers are the authors' all the same.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = files.load(AutoFeatureExtractor, trust_remote_code=request.trust_remote_code)
    except ExportedModelError as error:
        return None, f"its feature extractor cannot be loaded ({error.found[:200]})"
    known = type(own).__module__.startswith("transformers.models.")
    return FeatureExtractor(own, type(own).__name__ if known else None), ""


def _kaldi_filters(own: Any) -> Any:
    """What the extractor of spectrogram transformers has unless torchaudio computes for it."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mel_filter_bank(
            num_frequency_bins=257,
            num_mel_filters=own.num_mel_bins,
            min_frequency=20,
            max_frequency=own.sampling_rate // 2,
            sampling_rate=own.sampling_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
