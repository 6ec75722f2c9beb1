"""The rules for pickles in an artifact, as data: what exports contain. Everything else is refused.

TorchScript's unpickler trusts its input: it does not check indices, types or sizes. Each rule below stands for a check
that it does not make. `runtime/cpp` has the same rules.

Derived from what the three backends export with torch 1.13, 2.8 and 2.13.
"""

from __future__ import annotations

import re

# Real files have some thousands of opcodes, about thirty per tensor.
MAX_OPCODES = 300_000
# The depth of nested tuples, lists and dicts. A quantised tensor in an object's attributes has depth five.
MAX_DEPTH = 8
# PyTorch itself does not limit the number of axes, but its kernels do.
MAX_AXES = 16
# The maximum of elements of a tensor that has more elements than its record (strides of zero): 64 MB in fp32.
MAX_EXPANDED = 2**24
# The unpickler reads a record each time that it is named. All reads together may be so many times the file's size.
MAX_REPEATED = 8

# Storage → bytes per element. PyTorch has more types of numbers; no model does.
DTYPES = {
    **{"Float": 4, "Double": 8, "Half": 2, "BFloat16": 2},
    **{"Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1},
    # Only in tensors made by `_rebuild_qtensor`: weights in int8.
    **{"QInt8": 1, "QUInt8": 1},
}
FLOATING = frozenset({"Float", "Double", "Half", "BFloat16"})
QUANTISED = frozenset({"QInt8", "QUInt8"})
# The only device that exports name; others would be loaded to the CPU as well.
DEVICE = "cpu"
# PyTorch numbers the records.
KEY = re.compile(r"[0-9]{1,9}", re.ASCII)

# Functions that a pickle may call, by module and name, and what they make.
TENSOR, QUANTISED_TENSOR = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_qtensor"
# Made without arguments, for a tensor's backward hooks, of which exports have none.
HOOKS = "collections OrderedDict"
# A list with the type of its elements. Lists without a type and dicts are refused, since they may hold anything.
LISTS = {
    "torch.jit._pickle build_tensorlist": "Tensor",
    "torch.jit._pickle build_intlist": "int",
    "torch.jit._pickle build_doublelist": "float",
    "torch.jit._pickle build_boollist": "bool",
}
FUNCTIONS = frozenset({TENSOR, QUANTISED_TENSOR, HOOKS, *LISTS})
PER_TENSOR, PER_CHANNEL = "torch per_tensor_affine", "torch per_channel_affine"

# IPEX's packed weights: the class, and the type of its state in BUILD. Other such classes are refused: some load code.
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
# Operators that take packed weights as an address: the position of this argument, and the class that it must have.
HANDLES = {
    "ipex_linear": (3, f"{IPEX}.LinearOpContext"),
    "ipex_linear_eltwise": (4, f"{IPEX}.LinearOpContext"),
    "ipex_MKLSGEMM": (3, f"{IPEX}.MKLOpContext"),
    "convolution_forward": (3, f"{IPEX}.ConvolutionOpContext"),
    "conv_transpose": (3, f"{IPEX}.ConvTransposeOpContext"),
}
# The file's own classes, which its code declares. Classes of PyTorch's quantised modules are excluded: they get other
# attributes than the code declares.
OWN_CLASS = re.compile(r"__torch__(?!\.torch\.classes\b)(?:\.(?!quantized\b)\w+)+", re.ASCII)

# The version of TorchScript's format. PyTorch uses the first of these records that it finds, and does not check that it
# holds a number. Before version 3, lists had no types.
VERSION_RECORDS = (".data/version", "version")
VERSION = re.compile(rb"(?:[3-9]|10)\n?")
# The required content of the record `byteorder`. torch 1.13 does not write it; numbers are then in this order too.
BYTE_ORDER = b"little"
