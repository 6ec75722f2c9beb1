"""Masks that transformers makes through `vmap`, which the tracer cannot follow, are made by broadcasting in a trace."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.mask_broadcasting import masks_by_broadcasting
from exporter.tracing.trace import trace

transformers = pytest.importorskip("transformers", minversion="4.53", reason="earlier ones make masks in another way")
masking = pytest.importorskip("transformers.masking_utils")


class Hidden(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        # Out of the tracer's sight, which asks every attribute of a module, deprecated ones too.
        self.models = [model.requires_grad_(False)]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.models[0](input_ids=input_ids, attention_mask=attention_mask).last_hidden_state,)


def inputs(rows: int, tokens: int, real: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 60, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    mask[0, real:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_model_with_mask_functions_of_its_own(bidirectional: bool) -> None:
    """The backbone of EmbeddingGemma: it sees both sides, within a window in some layers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Gemma3TextConfig(
        **sizes,
        vocab_size=64,
        head_dim=16,
        num_hidden_layers=2,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        attn_implementation="eager",
        use_cache=False,
    )
    config.use_bidirectional_attention = bidirectional
    model = Hidden(transformers.Gemma3TextModel(config).eval()).eval()
    traced = trace(model, ExampleInputs(inputs(2, 20, 13)), "auto", nullcontext()).module
    with torch.no_grad():
        for rows, tokens, real in ((1, 5, 5), (3, 41, 17)):
            given = inputs(rows, tokens, real)
            seen = given["attention_mask"].bool()
            torch.testing.assert_close(traced(**given)[0][seen], model(**given)[0][seen], rtol=1e-5, atol=1e-5)


def test_outside_of_a_trace_transformers_is_as_it_was() -> None:
    before = dict(vars(masking))
    with pytest.raises(RuntimeError, match="of a model"), masks_by_broadcasting():
        assert vars(masking) != before
        raise RuntimeError("of a model")
    assert vars(masking) == before


@pytest.mark.skipif(not hasattr(masking, "create_bidirectional_mask"), reason="older ones do not repeat such a mask")
@pytest.mark.parametrize(("window", "lines"), [(None, 1), (2, 7)])
def test_a_mask_of_padding_alone_has_one_line_for_all_queries(window: int | None, lines: int) -> None:
    # As where a model is traced: its code is loaded.
    assert transformers.BertModel
    config = transformers.BertConfig(attn_implementation="eager", num_hidden_layers=1)
    config.sliding_window = window
    make = masking.create_bidirectional_mask if window is None else masking.create_bidirectional_sliding_window_mask
    given = {"inputs_embeds": torch.zeros(3, 7, 8), "attention_mask": inputs(3, 7, 4)["attention_mask"]}
    whole = make(config, **given)
    with masks_by_broadcasting():
        found = make(config, **given)
    assert whole.shape == (3, 1, 7, 7) and found.shape == (3, 1, lines, 7)
    assert torch.equal(found.expand_as(whole), whole)
