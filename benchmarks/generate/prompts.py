"""What every contender gets to read, and what it has to write. Needs no package."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from benchmarks.harness import places

# No row is longer, so that no contender keeps room for more.
LONGEST = 1024


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The ids of the prompts, and those that eager fp32 writes behind them; some sizes of the model.

    `short` are `ROWS_TOGETHER` prompts of `PROMPT` tokens, `long` is one of `LONG_PROMPT`; `written` stand behind each
    of the short ones. `streamed` and `head` are the numbers of weights that a token reads, of the layers' linears and
    of the head. `cached` is how many numbers a token of a row adds to the cache.
    """

    short: list[list[int]]
    long: list[int]
    written: list[list[int]]
    streamed: int
    head: int
    cached: int


def prompts_of(model: str) -> Path:
    """Where they lie."""
    return places.INPUTS / f"{model}-prompts.json"


def read_prompts(path: str | Path) -> Prompts:
    return Prompts(**json.loads(Path(path).read_text()))
