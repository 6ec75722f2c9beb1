"""How exact an artifact has to be, by precision and kind of output; wider for models that amplify rounding errors."""

from __future__ import annotations

from exporter.config.tasks import OutputKind
from runtime.format.manifest import Precision, Tolerance

# Bounds on the relative errors that `runtime.verification.compare` defines, against eager fp32 of the original model.
# fp32: only the order of additions differs. Errors of 1e-6 were measured over 12 layers; the bound is a hundred times
# that, for deeper models and other kernels, and far below every wrong output seen. bf16 keeps 8 bits: each rounding
# errs by up to 2**-9 of a number, and a layer rounds about ten times. Vectors come from a normalisation, which keeps
# their errors even; scores are differences of larger numbers, so their errors are larger. int8 has 256 steps for the
# range of a tensor while calibrating, so errors are relative to its largest number, and add up over the layers. For
# vectors of length 1, an rms error of 0.17 is a cosine of 0.985. Wrong outputs begin at 0.3.
# docs/decisions/verification.md has the measured errors.
TOLERANCES: dict[tuple[Precision, OutputKind], Tolerance] = {
    ("fp32", "vectors"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("fp32", "scores"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("bf16", "vectors"): Tolerance(max_error=0.05, rms_error=0.03),
    ("bf16", "scores"): Tolerance(max_error=0.08, rms_error=0.04),
    ("int8", "vectors"): Tolerance(max_error=0.25, rms_error=0.17),
    ("int8", "scores"): Tolerance(max_error=0.25, rms_error=0.17),
}

# Logits of files that generate text. Only weights are rounded, and inputs and sums stay in fp32. Each weight of int8
# errs by up to a 254th of its row's largest number, of int4 by up to a 30th of its group's range. How much of that
# reaches the logits depends on the model, and whether it matters is for `--evaluate` to say; these bounds only refuse
# what is no longer the model. Faults are found by the comparison with the rounded model, whose bounds are those of fp32
# (docs/decisions/generation.md).
GENERATED: dict[Precision, Tolerance] = {
    "int8": Tolerance(max_error=0.25, rms_error=0.17),
    "int4": Tolerance(max_error=1.0, rms_error=0.6),
}


def usual_tolerance(precision: Precision, kind: OutputKind, generates: bool) -> Tolerance:
    """The bounds before a model's own rounding errors are looked at."""
    if generates and precision in GENERATED:
        return GENERATED[precision]
    return TOLERANCES[precision, kind]


# Some models amplify rounding errors, deep stacks of convolutions a thousandfold. If the outputs of the original fp32
# model differ between two of PyTorch's own kernels by more than an eighth of a bound, the bound becomes eight times
# that difference, up to the widest one. A model that needs more is refused in fp32, although neither of its outputs is
# the right one. Every wrong output seen was a hundred times above the widest bound.
HEADROOM = 8
WIDEST = Tolerance(max_error=1e-3, rms_error=5e-4)


def widened(usual: Tolerance, rounding: Tolerance) -> Tolerance:
    """The fp32 bounds for one model.

    Args:
        usual: the bounds of its kind of output.
        rounding: the errors between two of PyTorch's own kernels (`exporter.verification.noise_floor`).
    """
    return Tolerance(
        max(usual.max_error, min(HEADROOM * rounding.max_error, WIDEST.max_error)),
        max(usual.rms_error, min(HEADROOM * rounding.rms_error, WIDEST.rms_error)),
    )
