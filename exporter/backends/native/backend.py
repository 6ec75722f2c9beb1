"""Attention and norms by this project's own operators (`runtime/kernels/`), linears by oneDNN.

The file needs the library of these operators, which is built for each minor release of torch. The graph is rewritten as
the onednn backend does, with other functions where the operators are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from exporter.backends.native.attention import ATTENTION, NativeRagged, place_native_attention
from exporter.backends.native.norms import NORM, place_native_norms
from exporter.backends.onednn.backend import OnednnBackend
from exporter.backends.onednn.fuse import fuse_linears
from exporter.backends.onednn.padding import PlaceAttention
from exporter.tracing.graphs.graph import Shapes
from exporter.tracing.graphs.ir import graph_of
from runtime.errors import BackendError
from runtime.format.manifest import Backend, Fusion, Precision, Requirements
from runtime.host.native_library import register_native
from runtime.host.requirements import Environment
from runtime.host.torchscript import ScriptModule


class NativeBackend(OnednnBackend):
    """Own attention and norms, oneDNN's linears."""

    name: Backend = "native"
    kernels = "this project's attention and norms, oneDNN's linears with weights reordered after loading"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def requirements(self, precision: Precision, environment: Environment) -> Requirements:
        """The library of operators, for this torch or a newer one; of the processor what each of its levels has.

        Raises:
            NativeLibraryError: it is not there.
        """
        return Requirements(str(environment.torch), "at-least-minor", None, ("avx2", "fma"), native=register_native())

    def ragged_attention(self) -> PlaceAttention:
        """By an operator that knows where rows begin and end."""
        return NativeRagged()

    def place(self, module: ScriptModule, sizes: Shapes) -> Counter[str]:
        """As for onednn, with other attention and norms."""
        # Before the linears, which would take the additions.
        norms = place_native_norms(graph_of(module), sizes)
        placed = fuse_linears(graph_of(module), sizes)
        placed["attention"] = place_native_attention(module, sizes)
        placed["norm"] = norms
        if not placed.total():
            raise BackendError("nothing for this project's operators in the model", "an attention, a norm or a linear")
        return placed

    def fusions(self, operators: Mapping[str, int]) -> tuple[Fusion, ...]:
        """Own operators and oneDNN's linears in the executed graph."""
        own = ((ATTENTION, "attention"), (NORM, "layer norm with addition"))
        found = (Fusion(kind, name, operators[name]) for name, kind in own if operators.get(name))
        return (*found, *super().fusions(operators))
