"""Calls that operators with many arguments accept, from which `fuzz_operators` starts; and known faults."""

from __future__ import annotations

from typing import Any

Given = list[Any]


def T(*shape: int, dtype: str = "float32", fill: str = "small", **more: Any) -> dict[str, Any]:  # noqa: N802
    """A tensor's description, as short as it can be."""
    return {"shape": list(shape), "dtype": dtype, "fill": fill, "layout": "plain", "end": True, "seed": 1, **more}


def _conv(axes: int, transposed: bool = False) -> list[Any]:
    start = [T(2, 4, *[8] * axes), T(4, 4, *[3] * axes), T(4), [1] * axes, [1] * axes]
    return [*start, [0] * axes, 1, [1] * axes] if transposed else [*start, [1] * axes, 1]


_LSTM = [T(16, 3), T(16, 4), T(16), T(16)]
_GRU = [T(12, 3), T(12, 4), T(12), T(12)]
_RNN = [T(4, 3), T(4, 4), T(4), T(4)]
_FLAGS = [True, 1, 0.0, False, False, False]
_CELL = [T(2, 3), T(2, 4)]
_PACKED = [T(60, 40, dtype="int8", packed=True), T(60), T(60, dtype="int64", fill="zero")]
_QUANTISED = [T(2, 40, dtype="uint8"), 0.1, 10, *_PACKED]
_QUANTISED_TENSORS = [T(2, 40, dtype="uint8"), T(1), T(1, dtype="int64"), *_PACKED]

RECIPES: dict[str, list[Given]] = {
    **{f"aten::conv{n}d": [_conv(n)] for n in (1, 2, 3)},
    **{f"aten::conv_transpose{n}d": [_conv(n, True)] for n in (1, 2, 3)},
    "aten::_convolution": [
        [T(2, 4, *[8] * n), T(4, 4, *[3] * n), T(4), [1] * n, [1] * n, [1] * n, t, [0] * n, 1, False, False, True, True]
        for n in (1, 2, 3)
        for t in (False, True)
    ],
    "aten::convolution": [
        [T(2, 4, 8, 8), T(4, 4, 3, 3), T(4), [1, 1], [1, 1], [1, 1], t, [0, 0], 1] for t in (False, True)
    ],
    "aten::_convolution_mode": [[T(2, 4, 8, 8), T(4, 4, 3, 3), T(4), [1, 1], "same", [1, 1], 1]],
    "aten::conv_tbc": [[T(5, 2, 4), T(3, 4, 6), T(6), 1]],
    "aten::lstm": [[T(5, 2, 3), [T(1, 2, 4), T(1, 2, 4)], _LSTM, *_FLAGS]],
    "aten::gru": [[T(5, 2, 3), T(1, 2, 4), _GRU, *_FLAGS]],
    "aten::rnn_tanh": [[T(5, 2, 3), T(1, 2, 4), _RNN, *_FLAGS]],
    "aten::rnn_relu": [[T(5, 2, 3), T(1, 2, 4), _RNN, *_FLAGS]],
    "aten::lstm_cell": [[T(2, 3), [T(2, 4), T(2, 4)], *_LSTM]],
    "aten::gru_cell": [[*_CELL, *_GRU]],
    "aten::rnn_tanh_cell": [[*_CELL, *_RNN]],
    "aten::rnn_relu_cell": [[*_CELL, *_RNN]],
    "aten::batch_norm": [[T(2, 4, 5), T(4), T(4), T(4), T(4), train, 0.1, 1e-5, False] for train in (False, True)],
    "aten::instance_norm": [[T(2, 4, 5), T(4), T(4), T(4), T(4), True, 0.1, 1e-5, False]],
    "aten::group_norm": [[T(2, 4, 5), 2, T(4), T(4), 1e-5, False]],
    "aten::layer_norm": [[T(2, 4, 5), [5], T(5), T(5), 1e-5, False]],
    "aten::rms_norm": [[T(2, 4, 5), [5], T(5), 1e-5]],
    "aten::_weight_norm": [[T(4, 5), T(4, 1), 0]],
    "aten::grid_sampler": [
        [T(2, 3, 8, 8), T(2, 5, 5, 2), m, p, c] for m in (0, 1, 2) for p in (0, 1, 2) for c in (True, False)
    ]
    + [[T(2, 3, 4, 8, 8), T(2, 3, 5, 5, 3), 0, 0, False]],
    "aten::affine_grid_generator": [[T(2, 2, 3), [2, 3, 4, 4], False]],
    "aten::scaled_dot_product_attention": [
        [T(2, 3, 4, 8), T(2, 3, 5, 8), T(2, 3, 5, 8), T(2, 1, 4, 5), 0.0, False, None, False]
    ],
    "aten::_scaled_dot_product_attention_math": [
        [T(2, 3, 4, 8), T(2, 3, 5, 8), T(2, 3, 5, 8), T(2, 1, 4, 5), 0.0, False, None, None, False]
    ],
    "aten::embedding": [[T(5, 4), T(2, 3, dtype="int64"), -1, False, False]],
    "aten::im2col": [[T(2, 3, 8, 8), [3, 3], [1, 1], [1, 1], [1, 1]]],
    "aten::col2im": [[T(2, 27, 64), [8, 8], [3, 3], [1, 1], [1, 1], [1, 1]]],
    "aten::bilinear": [[T(2, 3), T(2, 4), T(5, 3, 4), T(5)]],
    "aten::stft": [
        [T(2, 64), 16, 4, 16, T(16), False, True, True],
        [T(2, 64), 16, 4, 16, T(16), True, "reflect", False, True, True],
    ],
    "aten::istft": [[T(2, 9, 17, dtype="complex64"), 16, 4, 16, T(16), True, False, True, None, False]],
    "aten::quantize_per_channel": [[T(4, 5), T(4, dtype="float64"), T(4, dtype="int64", fill="zero"), 0, 12]],
    "aten::quantize_per_tensor": [[T(4, 5), 0.1, 10, 13], [T(4, 5), T(), T(dtype="int64", fill="zero"), 13]],
    "aten::dequantize": [[T(4, 5, dtype="quint8", quantised=True)], [T(4, 5, dtype="qint8", quantised=True)]],
    "mkldnn::_linear_pointwise": [
        [T(2, 40), T(60, 40), T(60), "none", [], ""],
        [T(2, 40), T(2, 60), T(60, 40), T(60), "add"],
        [T(2, 3, 40), T(60, 40), T(60), "gelu", [], "tanh"],
        [T(2, 40), T(60, 40, layout="mkldnn"), T(60), "relu", [], ""],
        [T(2, 40, dtype="bfloat16"), T(60, 40, dtype="bfloat16"), T(60, dtype="bfloat16"), "none", [], ""],
    ],
    "mkldnn::_reorder_linear_weight": [[T(60, 40), None], [T(60, 40), 2]],
    "onednn::qlinear_prepack": [[T(60, 40, dtype="int8"), None], [T(60, 40, dtype="int8"), [2, 40]]],
    "onednn::qlinear_pointwise": [
        [*_QUANTISED, T(60), *_output, "none", [], ""] for _output in ([0.1, 5, None], [1.0, 0, 6], [1.0, 0, 15])
    ]
    + [[*_QUANTISED, T(2, 60), T(60), 1.0, 0, 6, 1.0, 0, "sum", 1.0, "none", [], ""]]
    + [[*_QUANTISED_TENSORS, T(60), 1.0, 0, 6, "none", [], ""]],
}
for _name, _axes, _form in (
    *(("upsample_linear1d", 1, [True]), ("upsample_nearest1d", 1, []), ("_upsample_nearest_exact1d", 1, [])),
    *(("upsample_bilinear2d", 2, [True]), ("upsample_bicubic2d", 2, [True]), ("upsample_nearest2d", 2, [])),
    *(
        ("_upsample_bilinear2d_aa", 2, [True]),
        ("_upsample_bicubic2d_aa", 2, [True]),
        ("_upsample_nearest_exact2d", 2, []),
    ),
    *(("upsample_nearest3d", 3, []), ("upsample_trilinear3d", 3, [True])),
):
    _value = T(2, 3, *[4] * _axes)
    RECIPES[f"aten::{_name}"] = [
        [_value, [6] * _axes, *_form, *[None] * _axes],
        [_value, None, *_form, [1.5] * _axes],
        [_value, [6] * _axes, *_form, None],
    ]
for _axes in (1, 2, 3):
    _value = T(2, 3, *[8] * _axes)
    RECIPES[f"aten::max_pool{_axes}d"] = [[_value, [2] * _axes, [2] * _axes, [0] * _axes, [1] * _axes, False]]
    RECIPES[f"aten::avg_pool{_axes}d"] = [
        [_value, [2] * _axes, [2] * _axes, [0] * _axes, False, True, *([None] if _axes > 1 else [])]
    ]
    for _kind in ("avg", "max"):
        RECIPES[f"aten::adaptive_{_kind}_pool{_axes}d"] = [[_value, [3] * _axes]]

# Operators that exports need and that trust their arguments: operators.def says so where they stand.
KNOWN: frozenset[str] = frozenset()
