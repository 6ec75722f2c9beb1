"""`python -m benchmarks.harness.quantise MODEL`, in .venv-peers: make the peers' int8 files.

From the files of `convert` and the calibration data it makes, in build/bench/artifacts, the optimised ONNX graph with
dynamic int8 (weights per channel, signed; no reduced range, which is for processors without VNNI), and OpenVINO's IR
after nncf's post-training quantisation with the model type that nncf has for transformers.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy

from benchmarks.harness.places import artifact_of, calibration_of


def cases(name: str) -> list[dict[str, Any]]:
    """The calibration cases, in order."""
    with numpy.load(calibration_of(name, "npz")) as arrays:
        found: dict[int, dict[str, Any]] = {}
        for key in arrays.files:
            number, _, tensor = key.partition("/")
            found.setdefault(int(number), {})[tensor] = arrays[key]
    return [found[number] for number in sorted(found)]


def for_onnxruntime(name: str) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        artifact_of(name, "fp32", "onnxruntime", "onnx"),
        artifact_of(name, "int8", "onnxruntime", "onnx"),
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        # The optimiser's own operators have no shape inference; all that flows between them is float.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def for_openvino(name: str) -> None:
    import nncf
    import openvino

    data = cases(name)
    quantised = nncf.quantize(
        openvino.Core().read_model(artifact_of(name, "fp32", "openvino", "xml")),
        nncf.Dataset(data),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(data),
    )
    openvino.save_model(quantised, artifact_of(name, "int8", "openvino", "xml"), compress_to_fp16=False)


if __name__ == "__main__":
    for_onnxruntime(sys.argv[1])
    for_openvino(sys.argv[1])
