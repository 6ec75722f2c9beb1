"""Attention, norms and linears by this project's own operators (`runtime/kernels/`).

The file needs the library of these operators, which is built for each minor release of torch. The graph is rewritten as
the onednn backend does, with other functions where the operators are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch

from exporter.backends.native.attention import ATTEND_CACHED, ATTENTION, NativeRagged, place_native_attention
from exporter.backends.native.gated import GATED, place_gates
from exporter.backends.native.halves import halve_between_linears
from exporter.backends.native.joined_attention import ATTEND_JOINED, place_joined_attention
from exporter.backends.native.linears import LINEAR, LINEAR_INT8, NORM_INT8, place_native_linears
from exporter.backends.native.no_ops import leave_out_no_ops
from exporter.backends.native.norms import ADD_RMS_NORM, NORM, RMS_NORM, place_native_norms
from exporter.backends.native.rotary import ROTATE, place_rotations
from exporter.backends.onednn.backend import OnednnBackend, simplify
from exporter.backends.onednn.padding import PlaceAttention
from exporter.shapes.example_inputs import ExampleInputs
from exporter.tracing.graphs.graph import Shapes, dtypes
from exporter.tracing.graphs.graph_functions import PREFIX
from exporter.tracing.graphs.ir import graph_of
from runtime.errors import BackendError
from runtime.format.manifest import Backend, Fusion, Precision, Requirements
from runtime.host.native_library import register_native
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule


class NativeBackend(OnednnBackend):
    """Own attention, norms and linears; in fp32 and bf16 oneDNN's linears on processors where those are faster."""

    name: Backend = "native"
    kernels = "this project's attention, norms and linears, with weights packed after loading"
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
    attends_caches = True

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """The library of operators, for this torch or a newer one; of the processor what each of its levels has.

        Raises:
            NativeLibraryError: it is not there.
        """
        return Requirements(str(environment.torch), "at-least-minor", None, ("avx2", "fma"), native=register_native())

    def quantise(
        self,
        module: torch.nn.Module,
        samples: Sequence[Mapping[str, torch.Tensor]],
        example: ExampleInputs,
        progress: Callable[[int], None],
    ) -> tuple[torch.nn.Module, str]:
        """The module as it is: ranges are taken at run time, so there is nothing to fit to samples."""
        summary = "linears in int8, weights with a scale per output and inputs with a scale per token at run time"
        return module, summary + (", not fitted to the samples" if samples else "")

    def ragged_attention(self, precision: Precision) -> PlaceAttention:
        """By an operator that knows where rows begin and end."""
        return NativeRagged(_coarse(precision))

    def rewrite(self, module: ScriptModule, example: ExampleInputs, precision: Precision) -> str:
        """As for onednn; what changes nothing is left out of a decoder first.

        Raises:
            BackendError: as for `place`.
        """
        graph = graph_of(module)
        notes = []
        if any(node.kind() == ATTEND_CACHED for node in graph.nodes()):
            notes = simplify(module)
            notes.append(f"{leave_out_no_ops(graph, dtypes(module, example))} operators that change nothing left out")
        return "; ".join([*notes, super().rewrite(module, example, precision)])

    def place(self, module: ScriptModule, sizes: Shapes, precision: Precision) -> Counter[str]:
        """As for onednn, with other attention, norms and linears.

        Raises:
            BackendError: there is nothing to place.
        """
        # Before the linears, which would take the additions.
        known = dict(sizes)
        norms = place_native_norms(graph_of(module), known)
        rotations = place_rotations(graph_of(module), sizes)
        joined = place_joined_attention(graph_of(module), sizes)
        gates = place_gates(graph_of(module), sizes, self.may_join)
        placed = self.place_linears(module, known, precision)
        placed["attention"] = place_native_attention(module, sizes, _coarse(precision))
        placed["norm"] = norms
        placed["gated form"] = gates
        if precision == "int8":
            placed["linear to bf16"] = halve_between_linears(graph_of(module))
        placed["rotation"] = rotations
        placed["joined attention over a cache"] = joined
        if not placed.total():
            raise BackendError("nothing for this project's operators in the model", "an attention, a norm or a linear")
        return placed

    def may_join(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether linears of one input with these weights may become one linear."""
        return True

    def place_linears(self, module: ScriptModule, sizes: Shapes, precision: Precision) -> Counter[str]:
        """Replace the linears and define `prepare`; how often each kind of them was placed.

        Raises:
            BackendError: int8 is asked for and there is none.
        """
        placed = place_native_linears(module, sizes, precision == "int8")
        if precision == "int8" and not any(kind.endswith(" in int8") for kind in placed):
            raise BackendError("no linear for int8 in the model", "at least one with constant weights")
        return placed

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """Own operators in the executed graph, and the functions of the file that call them."""
        kinds = {
            **{PREFIX + name: (ATTENTION, "attention") for name in ("native_attend", "native_attend_ragged")},
            ATTEND_CACHED: (ATTEND_CACHED, "attention over a cache"),
            ATTEND_JOINED: (ATTEND_JOINED, "attention over a cache with what is before it"),
            ROTATE: (ROTATE, "rotary positions"),
            GATED: (GATED, "gated form"),
            NORM: (NORM, "layer norm with addition"),
            RMS_NORM: (RMS_NORM, "RMS norm"),
            ADD_RMS_NORM: (ADD_RMS_NORM, "RMS norm with addition"),
            NORM_INT8: (NORM_INT8, "layer norm with addition and codes"),
            PREFIX + "native_linear": (LINEAR, "linear"),
            PREFIX + "native_linear_int8": (LINEAR_INT8, "linear in int8"),
        }
        return tuple(
            Fusion(kinds[kind][1] + (f"+{what}" if what not in ("", "none") else ""), kinds[kind][0], count)
            for name, count in sorted(operators.items())
            for kind, _, what in [name.rstrip("]").partition("[")]
            if kind in kinds
        )


def _coarse(precision: Precision) -> bool:
    """Whether attention may round fp32 to bf16: beside linears of 8 bits that is not seen in the answers."""
    return precision == "int8"
