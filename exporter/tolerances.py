"""How exact an artifact has to be, as pure data.

In: nothing. Out: `TOLERANCES`, by precision and by the kind of output.
"""

from __future__ import annotations

from exporter.tasks import OutputKind
from runtime.manifest import Precision, Tolerance

# Bounds on the relative errors that `runtime.check` defines, against eager fp32 of the original model.
# fp32: only the order of additions differs. Errors of 1e-6 were measured over 12 layers; a hundredfold leaves room for
# deeper models and other kernels, and lies far below any wrong answer seen.
# bf16 keeps 8 bits: each rounding errs by up to 2**-9 of a number, and a layer rounds some ten times. Vectors come out
# of a normalisation, which keeps their errors even; scores are differences of larger numbers, so theirs are larger.
# docs/decisions.md has the errors measured.
TOLERANCES: dict[tuple[Precision, OutputKind], Tolerance] = {
    ("fp32", "vectors"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("fp32", "scores"): Tolerance(max_error=1e-4, rms_error=5e-5),
    ("bf16", "vectors"): Tolerance(max_error=0.05, rms_error=0.03),
    ("bf16", "scores"): Tolerance(max_error=0.08, rms_error=0.04),
}
