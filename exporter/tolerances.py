"""How exact an artifact has to be.

In: precision, kind of output, and how far the model's own answers depend on rounding. Out: a `Tolerance`. Refuses
nothing.
"""

from __future__ import annotations

from exporter.tasks import OutputKind
from runtime.manifest import Precision, Tolerance

# Bounds on the relative errors that `runtime.check` defines, against eager fp32 of the original model.
# fp32: only the order of additions differs. Errors of 1e-6 were measured over 12 layers; a hundredfold leaves room for
# deeper models and other kernels, and lies far below any wrong answer seen.
# bf16 keeps 8 bits: each rounding errs by up to 2**-9 of a number, and a layer rounds some ten times. Vectors come out
# of a normalisation, which keeps their errors even; scores are differences of larger numbers, so theirs are larger.
# int8 has 256 steps for all that a tensor held while it was calibrated, so an error is a share of the largest number,
# and layers add them up. Of vectors of length 1, an rms error of 0.17 is a cosine of 0.985. Wrong answers begin at 0.3.
# docs/decisions/verification.md has the errors measured.
TOLERANCES: dict[tuple[Precision, OutputKind], Tolerance] = {
    ("fp32", "vectors"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("fp32", "scores"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("bf16", "vectors"): Tolerance(max_error=0.05, rms_error=0.03),
    ("bf16", "scores"): Tolerance(max_error=0.08, rms_error=0.04),
    ("int8", "vectors"): Tolerance(max_error=0.25, rms_error=0.17),
    ("int8", "scores"): Tolerance(max_error=0.25, rms_error=0.17),
}

# A deep stack of convolutions may multiply rounding errors a thousandfold. Where two of PyTorch's own kernels give
# answers of the original fp32 model that differ by more than a bound's eighth, no file can be held to that bound: eight
# times that difference is asked for instead, up to the widest. Beyond it the model is refused in fp32, although nobody
# could say which of its answers is the right one. Every wrong answer seen lay a hundredfold above the widest.
HEADROOM = 8
WIDEST = Tolerance(max_error=1e-3, rms_error=5e-4)


def widened(usual: Tolerance, rounding: Tolerance) -> Tolerance:
    """The fp32 bounds for one model.

    Args:
        usual: the bounds of its kind of output.
        rounding: the differences between two of PyTorch's own kernels (`exporter.rounding`), as the errors are.
    """
    return Tolerance(
        max(usual.max_error, min(HEADROOM * rounding.max_error, WIDEST.max_error)),
        max(usual.rms_error, min(HEADROOM * rounding.rms_error, WIDEST.rms_error)),
    )
