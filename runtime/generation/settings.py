"""What a caller can ask of a generation, checked, with the model's own defaults for the rest."""

from __future__ import annotations

import dataclasses
import math
import secrets
from dataclasses import dataclass
from typing import Any

from runtime.errors import InputTextError
from runtime.format.manifest import BeamDefaults, SamplingDefaults, TokenRules
from runtime.format.validation import MAX_BEAMS
from runtime.printing import shown

# torch.Generator takes a signed integer of 64 bits; rows of a batch add their number to the seed.
MAX_SEED = 2**62
# New tokens, if the caller names no number.
NEW_TOKENS = 256


@dataclass(frozen=True)
class Settings:
    """How the next token is chosen: the largest logit, or drawn if `sample`; or that of the best of several beams.

    The steps `repetition_penalty`, `rules`, `temperature`, `top_k`, `top_p`, `min_p`, `typical_p`, `epsilon_cutoff`,
    `eta_cutoff` are made in this order; None switches one off. The draws of row i begin with `seed` + i.
    """

    sample: bool = False
    repetition_penalty: float | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    rules: TokenRules = TokenRules()
    beams: BeamDefaults = BeamDefaults()


def settings_of(
    defaults: SamplingDefaults,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    num_beams: int | None = None,
) -> Settings:
    """The settings from what was given and the model's defaults.

    It samples if a temperature above 0, `top_k`, `top_p` or `min_p` is given; with temperature 0 it does not; without
    any of them it does what the model's folder says. Beams do not sample.

    Raises:
        InputTextError: a value that makes no sense.
    """
    heat = _number("temperature", temperature, 0.0, math.inf)
    shares = {name: _number(name, value, 0.0, 1.0) for name, value in (("top_p", top_p), ("min_p", min_p))}
    penalty = _number("repetition_penalty", repetition_penalty, 0.0, math.inf)
    if penalty == 0:
        raise InputTextError("repetition_penalty is 0", "a number above 0; 1 changes nothing")
    kept = _whole("top_k", top_k, 0, 2**31)
    number = _whole("seed", seed, 0, MAX_SEED)
    given = any(value is not None for value in (heat, kept, *shares.values()))
    sample = heat != 0 and (given or defaults.sample)
    kept = defaults.top_k if kept is None else kept
    top_share = defaults.top_p if shares["top_p"] is None else shares["top_p"]
    penalty = defaults.repetition_penalty if penalty is None else penalty
    count = _whole("num_beams", num_beams, 1, MAX_BEAMS + 1) or defaults.beams.count
    if sample and count > 1:
        raise InputTextError(
            f"num_beams is {count}, and the text is to be sampled",
            "one of the two",
            "give num_beams=1 or temperature=0",
        )
    return Settings(
        sample=sample,
        repetition_penalty=None if penalty == 1 else penalty,
        temperature=heat or defaults.temperature,
        top_k=kept or None,
        top_p=None if top_share is None or top_share >= 1 else top_share,
        min_p=defaults.min_p if shares["min_p"] is None else shares["min_p"],
        seed=secrets.randbelow(MAX_SEED) if number is None else number,
        typical_p=_below_one(defaults.typical_p),
        epsilon_cutoff=_below_one(defaults.epsilon_cutoff),
        eta_cutoff=_below_one(defaults.eta_cutoff),
        rules=defaults.rules,
        beams=dataclasses.replace(defaults.beams, count=count),
    )


def new_tokens(given: Any) -> int | None:
    """The largest number of new tokens that was asked for; None if none was.

    Raises:
        InputTextError: it is not a whole number from 1.
    """
    return _whole("max_new_tokens", given, 1, 2**31)


def stop_strings(given: Any) -> tuple[str, ...]:
    """The texts that end a generation.

    Raises:
        InputTextError: they are no texts, or one is empty.
    """
    found = (given,) if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) and one for one in found):
        raise InputTextError(f"stop is {shown(given)}", "texts that are not empty")
    return tuple(found)


def _below_one(share: float | None) -> float | None:
    """None for what transformers takes for switched off."""
    return share if share is not None and 0 < share < 1 else None


def _number(name: str, value: Any, least: float, most: float) -> float | None:
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most or math.isinf(value):
        range_ = f"from {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise InputTextError(f"{name} is {shown(value)}", f"a number {range_}")
    return float(value)


def _whole(name: str, value: Any, least: int, most: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < most:
        raise InputTextError(f"{name} is {shown(value)}", f"a whole number from {least} to {most - 1}")
    return value
