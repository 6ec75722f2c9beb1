"""The result types of `session.audio`. Times are in seconds from the sound's beginning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """A word or character of a transcript, and when it is heard."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Transcript:
    """What was said, whole and in parts."""

    text: str
    chunks: tuple[Chunk, ...]
