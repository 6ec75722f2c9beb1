"""What was measured of an artifact, as its manifest holds it (`runtime.format.manifest`, of which this is a part).

In: numbers. Out: frozen values. Refuses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VerifiedCase:
    """The largest error of any call at one shape, measured on the written file in a fresh process.

    `case` is its name among the golden cases. `shape` maps axis names to sizes; `padded` says whether rows of
    several lengths were tried. `max_abs_error` is in the output's own units; the other two are relative (see
    `runtime.verification.compare`). For outputs that are scores of classes, `argmax_mismatches` says in how many of
    `rows` the class with the largest score was another one than the model's in any call; else it is None.
    """

    case: str
    shape: dict[str, int]
    padded: bool
    output: str
    calls: int
    max_abs_error: float
    max_error: float
    rms_error: float
    rows: int
    argmax_mismatches: int | None


@dataclass(frozen=True)
class Accuracy:
    """One output against eager fp32 on samples of real data that nothing was fitted to, by the file in a fresh process.

    A row is what stands along the output's last axis: an embedding, the scores of one text or token; padding is left
    out. Cosines are those of rows, `max_error` is the largest of any sample (see `runtime.verification.compare`). For
    outputs that are scores of classes, `argmax_matches` says in how many of `rows` the largest score stayed where it
    was; else it is None.
    """

    output: str
    samples: int
    rows: int
    mean_cosine: float
    least_cosine: float
    max_error: float
    argmax_matches: int | None

    @property
    def words(self) -> str:
        """For people."""
        text = f"{self.output}: cosine {self.mean_cosine:.4f} in the mean, {self.least_cosine:.4f} at least; "
        if self.argmax_matches is not None:
            text += f"winner kept in {self.argmax_matches} of {self.rows} rows; "
        return text + f"largest error {self.max_error:.1e}; {self.samples} held-out samples"


@dataclass(frozen=True)
class Timing:
    """How fast a candidate was when the exporter chose: the median milliseconds of a call at one shape.

    With `padded`, the rows' lengths were spread evenly up to the whole: of B rows 1/B, 2/B and so on; else all were
    full. `candidate` says how it computes (`onednn with eager attention`), `threads` how many it had; the file holds
    the one that is `chosen`. Of use for comparison alone: the machine was the exporter's.
    """

    candidate: str
    chosen: bool
    shape: dict[str, int]
    threads: int
    milliseconds: float
    padded: bool = False
