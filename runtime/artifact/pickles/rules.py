"""The rules for pickles in an artifact, as data: what exports contain. Everything else is refused.

TorchScript's unpickler trusts its input: it does not check indices, types or sizes. Each rule below stands for a check
that it does not make. `runtime/cpp` has the same rules.

Derived from what the three backends export with torch 1.13, 2.8 and 2.13.
"""

from __future__ import annotations

import re

# Real files have some thousands: about thirty per tensor.
MAX_OPCODES = 300_000
# Tuples, lists and dicts in one another. A quantised tensor in an object's attributes is five deep.
MAX_DEPTH = 8
# PyTorch has no limit for axes, its kernels have.
MAX_AXES = 16
# Elements that a tensor may show more often than its record holds them (strides of zero): 64 MB in fp32.
MAX_EXPANDED = 2**24
# The unpickler reads a record again each time that it is named: so many times the file's size in all.
MAX_REPEATED = 8

# Storage → bytes per element. PyTorch has more types of numbers; no model does.
DTYPES = {
    **{"Float": 4, "Double": 8, "Half": 2, "BFloat16": 2},
    **{"Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1},
    # In tensors of `_rebuild_qtensor` alone: weights in int8.
    **{"QInt8": 1, "QUInt8": 1},
}
FLOATING = frozenset({"Float", "Double", "Half", "BFloat16"})
QUANTISED = frozenset({"QInt8", "QUInt8"})
# Only the processor's memory; other devices would be read on the processor all the same.
DEVICE = "cpu"
# Names of records: PyTorch numbers them.
KEY = re.compile(r"[0-9]{1,9}", re.ASCII)

# Functions that a pickle may call, by module and name, and what they make.
TENSOR, QUANTISED_TENSOR = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_qtensor"
# The place of backward hooks. Called without arguments.
HOOKS = "collections OrderedDict"
# A list with the type of its elements. Lists without are refused, and dicts as well: nothing says what they hold.
LISTS = {
    "torch.jit._pickle build_tensorlist": "Tensor",
    "torch.jit._pickle build_intlist": "int",
    "torch.jit._pickle build_doublelist": "float",
    "torch.jit._pickle build_boollist": "bool",
}
FUNCTIONS = frozenset({TENSOR, QUANTISED_TENSOR, HOOKS, *LISTS})
PER_TENSOR, PER_CHANNEL = "torch per_tensor_affine", "torch per_channel_affine"

# IPEX's packed weights: the class, and what BUILD gives it. Other classes of libraries are refused: some load code.
IPEX = "__torch__.torch.classes.ipex_prepack"
_WEIGHTS = "Tensor, Optional[Tensor]"
PACKED = {
    f"{IPEX}.LinearOpContext": f"Tuple[{_WEIGHTS}, Optional[int]]",
    f"{IPEX}.MKLOpContext": f"Tuple[{_WEIGHTS}, Optional[int]]",
    # Stride, padding, dilation, groups, channels last, input size.
    f"{IPEX}.ConvolutionOpContext": f"Tuple[{_WEIGHTS}, List[int], List[int], List[int], int, bool, List[int]]",
    # Stride, padding, output padding, groups, dilation, channels last, input size.
    f"{IPEX}.ConvTransposeOpContext": (
        f"Tuple[{_WEIGHTS}, List[int], List[int], List[int], int, List[int], bool, List[int]]"
    ),
}
# Operators that take packed weights as an address: where it stands among the arguments, and the class it has to be of.
HANDLES = {
    "ipex_linear": (3, f"{IPEX}.LinearOpContext"),
    "ipex_linear_eltwise": (4, f"{IPEX}.LinearOpContext"),
    "ipex_MKLSGEMM": (3, f"{IPEX}.MKLOpContext"),
    "convolution_forward": (3, f"{IPEX}.ConvolutionOpContext"),
    "conv_transpose": (3, f"{IPEX}.ConvTransposeOpContext"),
}
# The file's own classes, which its code declares. Those of PyTorch's quantised modules get other attributes than the
# code says.
OWN_CLASS = re.compile(r"__torch__(?!\.torch\.classes\b)(?:\.(?!quantized\b)\w+)+", re.ASCII)

# The version of the format, which PyTorch takes from the first of these that it finds, and reads as a number without
# looking. Before version 3 lists had no types of their own.
VERSION_RECORDS = (".data/version", "version")
VERSION = re.compile(rb"(?:[3-9]|10)\n?")
# The record is newer than torch 1.13; without it numbers are read in this order.
BYTE_ORDER = b"little"
