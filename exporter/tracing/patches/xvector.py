"""Speaker vectors: statistics over each row's frames in a loop over the batch → masked sums.

The original cuts every row to its length in a Python loop, so a trace keeps the batch size of its example. Here mean
and standard deviation run over all frames, with a weight of zero for padding.
"""

from __future__ import annotations

from typing import Any

import torch

from exporter.tracing.patches.replacement import replace

WHAT = "statistics of speaker vectors as masked sums: the original loops over the rows"


def repair(model: torch.nn.Module) -> bool:
    """Replace the forward of wav2vec 2.0 and the models that share its head."""
    if not type(model).__name__.endswith("ForXVector") or not hasattr(model, "tdnn"):
        return False
    replace(model, "forward", _forward)
    return True


def _forward(self: Any, input_values: torch.Tensor | None = None, **inputs: Any) -> dict[str, torch.Tensor]:
    """Logits [batch, speaker] and embeddings [batch, embedding]."""
    weighted = bool(self.config.use_weighted_layer_sum)
    if input_values is not None:
        inputs["input_values"] = input_values
    outputs = getattr(self, self.base_model_prefix)(**inputs, **({"output_hidden_states": True} if weighted else {}))
    hidden = outputs.last_hidden_state
    if weighted:
        shares = torch.softmax(self.layer_weights, dim=-1).view(-1, 1, 1)
        hidden = (torch.stack(tuple(outputs.hidden_states), dim=1) * shares).sum(dim=1)
    hidden = self.projector(hidden)
    for layer in self.tdnn:
        hidden = layer(hidden)
    real = torch.ones_like(hidden[..., :1])
    mask = inputs.get("attention_mask")
    if mask is not None:
        lengths = self._get_tdnn_output_lengths(self._get_feat_extract_output_lengths(mask.sum(dim=1)))
        real = (torch.arange(hidden.shape[1])[None, :] < lengths[:, None]).to(hidden.dtype)[..., None]
    count = real.sum(dim=1)
    mean = (hidden * real).sum(dim=1) / count
    variance = (((hidden - mean[:, None]) * real) ** 2).sum(dim=1) / (count - 1)
    embeddings = self.feature_extractor(torch.cat([mean, variance.sqrt()], dim=-1))
    return {"logits": self.classifier(embeddings), "embeddings": embeddings}
