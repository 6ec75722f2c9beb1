"""`python -m benchmarks.harness.convert MODEL`: make the files that ONNX Runtime and OpenVINO load in fp32.

Writes to build/bench/artifacts the ONNX graph as exported, the same optimised by ONNX Runtime's transformers optimiser,
and OpenVINO's IR by its own converter. Runs in .venv, whose torch and transformers load the model, and takes the
converters from .venv-peers; without that environment it fails (FileNotFoundError).
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.harness.models import INPUT_NAMES, load_model
from benchmarks.harness.places import PEERS, artifact_of, facts_of, packages_of
from benchmarks.harness.rows import MODELS

# What ONNX Runtime's optimiser calls the architecture whose patterns it looks for.
_PATTERNS = {"bert-base": "bert", "minilm": "bert", "vit-base": "vit"}


def example(name: str) -> tuple[torch.Tensor, ...]:
    """Two rows, so that no size of 1 is kept."""
    if name == "vit-base":
        return (torch.randn(2, 3, 224, 224),)
    ids = torch.randint(1000, 20000, (2, 16))
    return ids, torch.ones_like(ids), torch.zeros_like(ids)


def to_onnx(name: str) -> None:
    """Both ONNX files. Attention is written out: the form whose pattern the optimiser fuses."""
    raw, optimised = artifact_of(name, "fp32", "exported", "onnx"), artifact_of(name, "fp32", "onnxruntime", "onnx")
    names, output = list(INPUT_NAMES[name]), MODELS[name].output
    axes = {0: "batch"} if name == "vit-base" else {0: "batch", 1: "sequence"}
    with torch.no_grad():
        torch.onnx.export(
            load_model(name, "eager"),
            example(name),
            str(raw),
            input_names=names,
            output_names=[output],
            dynamic_axes=dict.fromkeys(names, axes) | {output: {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    from onnxruntime.transformers import optimizer

    sizes = json.loads(facts_of(name).read_text())
    model = optimizer.optimize_model(
        str(raw), model_type=_PATTERNS[name], num_heads=sizes["heads"], hidden_size=sizes["hidden"], use_gpu=False
    )
    model.save_model_to_file(str(optimised))
    fused = {operator: count for operator, count in model.get_fused_operator_statistics().items() if count}
    print(f"{name}: ONNX Runtime's optimiser fused {fused}")


def to_openvino(name: str) -> None:
    """The IR, from PyTorch's own attention operator, which OpenVINO takes as one."""
    import openvino

    with torch.no_grad():
        model = openvino.convert_model(load_model(name, "sdpa"), example_input=example(name))
    for port, key in zip(model.inputs, INPUT_NAMES[name], strict=True):
        port.get_tensor().set_names({key})
    if name == "vit-base":
        model.reshape({"pixel_values": [-1, 3, 224, 224]})
    openvino.save_model(model, artifact_of(name, "fp32", "openvino", "xml"), compress_to_fp16=False)


if __name__ == "__main__":
    # Last: what both environments have comes from .venv.
    sys.path.append(packages_of(PEERS))
    to_onnx(sys.argv[1])
    to_openvino(sys.argv[1])
