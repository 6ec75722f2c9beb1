"""How a model's folder wants text to be generated: stop tokens, sampling, chat template; and which models cannot.

The settings are those of `generation_config.json`, or what transformers makes of `config.json` where there is none. One
that changes which tokens are written, and that `session.text.generate` does not follow, is refused: ignored, it would
give another text than transformers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from exporter.loading.decoder_cache import RecordingCache, masks_by_position
from exporter.loading.model_errors import FAILURES
from exporter.loading.tokenizer import TokenizerPart
from runtime.errors import CheckpointError, TaskError
from runtime.format.manifest import BeamDefaults, ChatTemplate, SamplingDefaults, TokenRules
from runtime.format.validation import MAX_BEAMS, MAX_TEMPLATE

# What transformers takes where the folder says nothing.
_TEMPERATURE, _TOP_K = 1.0, 50
# Layers by the kinds of `config.layer_types` that keep nothing but keys and values, one per token.
_KEPT = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
# Settings that change which tokens are written and are not followed → the values that change nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "num_beam_groups": (None, 1),
    "num_return_sequences": (None, 1),
    "penalty_alpha": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "sequence_bias": (None,),
    "guidance_scale": (None, 1, 1.0),
    "top_h": (None,),
    "stop_strings": (None, []),
    "watermarking_config": (None,),
}
_EARLY_STOPPING: dict[Any, Literal["no", "yes", "never"]] = {None: "no", False: "no", True: "yes", "never": "never"}


@dataclass(frozen=True)
class GenerationSettings:
    """What the file says about generation, besides its caches."""

    stop_ids: tuple[int, ...]
    defaults: SamplingDefaults
    chat: ChatTemplate | None


@dataclass(frozen=True)
class CacheSizes:
    """Heads and width of the keys and of the values of one layer."""

    layer: int
    keys: tuple[int, int]
    values: tuple[int, int]


def read_generation(model: Any, tokenizer: TokenizerPart, vocabulary: int, id: str) -> tuple[GenerationSettings, str]:
    """The settings, and a note for people.

    Raises:
        CheckpointError: a setting that is not followed, or that makes no sense.
    """
    found = getattr(model, "generation_config", None) or GenerationConfig()
    for name, same in _REFUSED.items():
        value = getattr(found, name, None)
        if value not in same:
            raise CheckpointError(
                f"generation_config.json of {id} sets {name} to {value!r}"[:200],
                "settings that session.text.generate follows",
                f"remove {name} from generation_config.json, if its text may differ by that",
            )
    stop = found.eos_token_id
    stops = tuple(stop) if isinstance(stop, (list, tuple)) else () if stop is None else (stop,)
    if not all(isinstance(one, int) and 0 <= one < vocabulary for one in stops):
        raise CheckpointError(
            f"eos_token_id of {id} is {stop!r}"[:200], f"ids below {vocabulary}", "correct generation_config.json"
        )
    chat = _chat(tokenizer, id)
    note = f"generation stops at {', '.join(map(str, stops)) or 'no token'}"
    return GenerationSettings(stops, read_sampling(found, id, vocabulary), chat), note + (
        "; chat template" if chat is not None else ""
    )


@contextmanager
def without_settings(model: Any) -> Iterator[None]:
    """While a model generates, its folder's settings do not hold."""
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


def read_sampling(found: Any, id: str, vocabulary: int) -> SamplingDefaults:
    """How the next token is chosen, from transformers' `GenerationConfig`.

    Raises:
        CheckpointError: a setting that makes no sense, or two that cannot be followed together.
    """
    return _Reader(found, id, vocabulary).sampling()


class _Reader:
    """Reads settings of one `generation_config.json`, each of its kind."""

    def __init__(self, found: Any, id: str, vocabulary: int) -> None:
        self._found, self._id, self._vocabulary = found, id, vocabulary

    def sampling(self) -> SamplingDefaults:
        """All settings that say how the next token is chosen."""
        temperature, top_k = self._number("temperature", _TEMPERATURE), self._number("top_k", _TOP_K)
        sample, beams = bool(getattr(self._found, "do_sample", False)) and temperature != 0, self._beams()
        if sample and beams.count > 1:
            raise CheckpointError(
                f"generation_config.json of {self._id} sets do_sample and {beams.count} beams",
                "one of the two",
                "remove do_sample or num_beams from generation_config.json",
            )
        return SamplingDefaults(
            # A temperature of 0 is no sampling, whatever else is set.
            sample=sample,
            temperature=temperature or _TEMPERATURE,
            top_k=None if top_k is None else int(top_k),
            top_p=self._number("top_p", None),
            min_p=self._number("min_p", None),
            repetition_penalty=self._number("repetition_penalty", 1.0) or 1.0,
            typical_p=self._number("typical_p", None),
            epsilon_cutoff=self._number("epsilon_cutoff", None),
            eta_cutoff=self._number("eta_cutoff", None),
            rules=self._rules(),
            beams=beams,
        )

    def _beams(self) -> BeamDefaults:
        penalty, early = getattr(self._found, "length_penalty", None), getattr(self._found, "early_stopping", None)
        if isinstance(penalty, bool) or not isinstance(penalty, (int, float, type(None))):
            raise self._wrong("length_penalty", "a number")
        if not isinstance(early, (bool, str, type(None))) or early not in _EARLY_STOPPING:
            raise self._wrong("early_stopping", "true, false or never")
        count = self._whole("num_beams") or 1
        if count > MAX_BEAMS:
            raise self._wrong("num_beams", f"at most {MAX_BEAMS}")
        return BeamDefaults(count, 1.0 if penalty is None else float(penalty), _EARLY_STOPPING[early])

    def _rules(self) -> TokenRules:
        decay = getattr(self._found, "exponential_decay_length_penalty", None)
        start, factor = (0, 1.0) if decay is None else decay if isinstance(decay, (list, tuple)) else (-1, 0)
        if not (isinstance(start, int) and start >= 0 and isinstance(factor, (int, float)) and factor > 0):
            raise self._wrong("exponential_decay_length_penalty", "a number of tokens, and a factor above 0")
        words = getattr(self._found, "bad_words_ids", None)
        if words is not None and not isinstance(words, (list, tuple)):
            raise self._wrong("bad_words_ids", "lists of ids")
        first = self._ids("forced_bos_token_id")
        return TokenRules(
            no_repeat_ngram_size=self._whole("no_repeat_ngram_size"),
            bad_words_ids=tuple(self._checked("bad_words_ids", word) for word in words or ()),
            min_length=self._whole("min_length"),
            min_new_tokens=self._whole("min_new_tokens"),
            forced_bos_token_id=first[0] if first else None,
            forced_eos_token_ids=self._ids("forced_eos_token_id"),
            decay_start=start,
            decay_factor=float(factor),
            suppress_tokens=self._ids("suppress_tokens"),
            begin_suppress_tokens=self._ids("begin_suppress_tokens"),
        )

    def _number(self, name: str, usual: float | None) -> float | None:
        value = getattr(self._found, name, None)
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise self._wrong(name, "a number")
        return float(value)

    def _whole(self, name: str) -> int:
        value = getattr(self._found, name, None)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "a whole number")
        return value

    def _ids(self, name: str) -> tuple[int, ...]:
        value = getattr(self._found, name, None)
        if value is None:
            return ()
        return self._checked(name, value if isinstance(value, (list, tuple)) else [value], least=0)

    def _checked(self, name: str, ids: Any, *, least: int = 1) -> tuple[int, ...]:
        known = isinstance(ids, (list, tuple)) and len(ids) >= least
        if not known or not all(type(one) is int and 0 <= one < self._vocabulary for one in ids):
            raise self._wrong(name, f"ids below {self._vocabulary}")
        return tuple(ids)

    def _wrong(self, name: str, expected: str) -> CheckpointError:
        value = getattr(self._found, name, None)
        return CheckpointError(
            f"generation_config.json of {self._id} sets {name} to {value!r}"[:200], expected, "correct it"
        )


def _chat(tokenizer: TokenizerPart, id: str) -> ChatTemplate | None:
    template = getattr(tokenizer.fast, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        return None
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        raise CheckpointError(f"the chat template of {id} is too long", f"at most {MAX_TEMPLATE} characters")
    named = {name: str(token) for name, token in tokenizer.fast.special_tokens_map.items() if isinstance(token, str)}
    return ChatTemplate(template, named)


def cache_sizes(model: Any) -> list[CacheSizes]:
    """The sizes of what each layer of a decoder keeps, found by calling it once.

    Raises:
        TaskError: it keeps something else than keys and values, or nothing.
    """
    remedy = "choose --task text-generation-scoring, which computes one pass without a cache"
    what = f"model type {model.config.model_type!r}"
    kept = "keys and values of each token, which text-generation keeps in a cache"
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - _KEPT
    if getattr(model, "_is_stateful", False) or kinds:
        layers = f" ({', '.join(sorted(map(str, kinds)))})" if kinds else ""
        raise TaskError(f"{what} keeps a state from token to token{layers}", kept, remedy)
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise TaskError(f"{what} takes no past_key_values", kept, remedy)
    cache, tokens = RecordingCache(), torch.tensor([[0, 1, 2], [2, 1, 0]])
    positions = torch.arange(3).expand(2, 3)
    try:
        with torch.no_grad(), masks_by_position(positions):
            logits = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits
        with torch.no_grad():
            whole, part = model(input_ids=tokens).logits[:, :2], model(input_ids=tokens[:, :2]).logits
    except FAILURES as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TaskError(f"{what} cannot be called with a cache of our own ({reason})", kept, remedy) from error
    if not torch.allclose(whole, part, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
        raise TaskError(
            f"{what} lets a token see those behind it", "a model that reads from left to right", "set is_decoder"
        )
    found = []
    for layer, (keys, values) in sorted(cache.sizes.items()):
        if any(len(shape) != 4 or (shape[0], shape[2]) != (2, 3) for shape in (keys, values)):
            raise TaskError(
                f"layer {layer} of {what} keeps tensors of {list(keys)} and {list(values)} for 2 rows of 3 tokens",
                "[rows, heads, tokens, width]",
                remedy,
            )
        found.append(CacheSizes(layer, (keys[1], keys[3]), (values[1], values[3])))
    if not found:
        raise TaskError(f"{what} keeps nothing from token to token", kept, remedy)
    return found
