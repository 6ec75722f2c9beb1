"""The native linear against oneDNN's, MKL's and ONNX Runtime's: the figures in docs/decisions/native.md.

Usage: python -m benchmarks.experiments.native_linears LIBRARY [--model minilm|bert-base] [--type fp32|bf16|int8]
           [--threads N] [--rows N …]

LIBRARY is libexported_model_native.so, built as runtime/kernels/CMakeLists.txt says; EXPORTED_MODEL_KERNELS chooses its
level. Times each of a layer's four linears with bias, with as many different weights in turn as take 48 MB in fp32, so
that weights come from memory as in a model: interleaved rounds, the shortest time per linear in microseconds, and the
best other one's divided by ours. Answers are compared first. `--type` says what our weights are; the others are fp32.
ONNX Runtime is left out if its packages (onnxruntime, onnx) cannot be imported.
"""

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import tables
from exporter.backends.onednn.int8 import quantised_weight
from runtime.host.torchscript import optimized_execution, script

SIZES = {
    "minilm": ((384, 1152), (384, 384), (384, 1536), (1536, 384)),
    "bert-base": ((768, 2304), (768, 768), (768, 3072), (3072, 768)),
}
ROWS = (32, 128, 240, 384, 1024)
BYTES = 48_000_000
ROUNDS = 9
# Threads of other runtimes wait in a loop for a while.
PAUSE = 0.02
# Of the largest number of an answer.
BOUND = {"fp32": 1e-5, "bf16": 2e-2, "int8": 3e-2}

Call = Callable[[], Any]


def own(x: Tensor, weights: list[Tensor], biases: list[Tensor], outputs: int) -> Tensor:
    found = x
    for i in range(len(weights)):
        found = torch.ops.em_native.linear(x, weights[i], biases[i], None, outputs, "none")
    return found


def own_int8(x: Tensor, weights: list[Tensor], scales: list[Tensor], biases: list[Tensor], outputs: int) -> Tensor:
    found = x
    for i in range(len(weights)):
        found = torch.ops.em_native.linear_int8(x, None, weights[i], scales[i], biases[i], None, outputs, "none")
    return found


def onednn(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    found = x
    for i in range(len(weights)):
        found = torch.ops.mkldnn._linear_pointwise(x, weights[i], biases[i], "none", [], "")
    return found


def mkl(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    found = x
    for i in range(len(weights)):
        found = torch.nn.functional.linear(x, weights[i], biases[i])
    return found


def onnx_session(weights: list[Tensor], biases: list[Tensor], threads: int) -> Any:
    """One graph with all linears; of each output it gives the first row, so that their memory is used again."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], [numpy_helper.from_array(torch.tensor([edge]).numpy(), f"row{edge}") for edge in (0, 1)]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants += [numpy_helper.from_array(weight.t().contiguous().numpy(), f"w{i}")]
        constants += [numpy_helper.from_array(bias.numpy(), f"b{i}")]
        nodes += [helper.make_node("Gemm", ["x", f"w{i}", f"b{i}"], [f"y{i}"])]
        nodes += [helper.make_node("Slice", [f"y{i}", "row0", "row1", "row0"], [f"s{i}"])]
    nodes += [helper.make_node("Concat", [f"s{i}" for i in range(len(weights))], ["y"], axis=0)]
    inputs = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", weights[0].shape[1]])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(weights), len(weights[0])])
    model = helper.make_model(
        helper.make_graph(nodes, "linears", [inputs], [output], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    held = io.BytesIO()
    onnx.save(model, held)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(held.getvalue(), options, providers=["CPUExecutionProvider"])


def contenders(
    weights: list[Tensor], biases: list[Tensor], kind: str, threads: int
) -> dict[str, Callable[[Tensor], Any]]:
    """Each gives the output of the last linear, or its first row."""
    ops, outputs = torch.ops.em_native, len(weights[0])
    scripted = {function: script(function) for function in (own, own_int8, onednn, mkl)}
    reordered = [torch.ops.mkldnn._reorder_linear_weight(weight.clone(), None) for weight in weights]
    found: dict[str, Callable[[Tensor], Any]] = {
        "oneDNN": lambda x: scripted[onednn](x, reordered, biases),
        "PyTorch": lambda x: scripted[mkl](x, weights, biases),
    }
    try:
        session = onnx_session(weights, biases, threads)
        found["ONNX Runtime"] = lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0][-1:])
    except ImportError:
        pass
    if kind == "int8":
        coded = [quantised_weight(weight) for weight in weights]
        packed, scales = [ops.pack_linear(codes) for codes, _ in coded], [scale for _, scale in coded]
        return {"own": lambda x: scripted[own_int8](x, packed, scales, biases, outputs)} | found
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    packed = [ops.pack_linear(weight.to(dtype)) for weight in weights]
    return {"own": lambda x: scripted[own](x, packed, biases, outputs)} | found


def shortest(calls: dict[str, Call]) -> dict[str, float]:
    """Seconds of a call of each, in turn, the next round beginning with the next one."""
    best = dict.fromkeys(calls, float("inf"))
    for number in range(ROUNDS):
        turn = number % len(calls)
        for name in [*calls][turn:] + [*calls][:turn]:
            time.sleep(PAUSE)
            calls[name]()
            start = time.perf_counter()
            calls[name]()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main(library: str, model: str, kind: str, threads: int, all_rows: list[int]) -> None:
    torch.ops.load_library(library)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    level = torch.ops.em_native.level()
    print(f"{model}, {kind}, level {level}, {threads} threads, torch {torch.__version__}; shortest, µs per linear")
    body, names = [], []
    for inputs, outputs in SIZES[model]:
        count = max(2, BYTES // (4 * inputs * outputs))
        weights = [torch.randn(outputs, inputs) * 0.05 for _ in range(count)]
        biases = [torch.randn(outputs) for _ in weights]
        ways = contenders(weights, biases, kind, threads)
        for rows in all_rows:
            x = torch.randn(rows, inputs)
            expected = torch.nn.functional.linear(x.double(), weights[-1].double(), biases[-1].double())
            for name, way in ways.items():
                found = way(x)
                error = (found - expected[: len(found)]).abs().max() / expected.abs().max()
                assert error <= BOUND[kind if name == "own" else "fp32"], (name, error)
            times = shortest({name: lambda way=way, x=x: way(x) for name, way in ways.items()})  # type: ignore[misc]
            names = [*times]
            others = min(seconds for name, seconds in times.items() if name != "own")
            each = [f"{1e6 * seconds / count:.0f}" for seconds in times.values()]
            speed = 2e-9 * rows * inputs * outputs * count / times["own"]
            body.append([f"{inputs} → {outputs}", str(rows), *each, f"{others / times['own']:.2f}", f"{speed:.0f}"])
    print(tables.plain(["size", "rows", *names, "best / own", "own GFLOP/s"], body))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--type", choices=BOUND, default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    options = parser.parse_args()
    # Else loops are unrolled, and all but the last linear of eight left out.
    with torch.no_grad(), optimized_execution(False):
        main(options.library, options.model, options.type, options.threads, options.rows)
