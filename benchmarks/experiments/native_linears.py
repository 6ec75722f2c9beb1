"""The native linear against oneDNN's, MKL's and ONNX Runtime's: the figures in docs/decisions/native.md.

Usage: python -m benchmarks.experiments.native_linears LIBRARY [--model minilm|bert-base] [--type fp32|bf16|int8]
           [--all-bf16] [--threads N] [--rows N …] [--megabytes N] [--rounds N]

LIBRARY is libexported_model_native.so, built as runtime/kernels/CMakeLists.txt says; EXPORTED_MODEL_KERNELS chooses its
level. Each of a layer's four linears, with bias, is called with as many different weights in turn as take N megabytes
(48) in fp32: as in a model, they come from memory. Interleaved rounds; for each weight the shortest time of a call, and
of these the mean, in microseconds; and the best other one's divided by ours. With one thread it is the processor's
time, which other processes hardly change. ONNX Runtime (left out if onnxruntime and onnx cannot be imported) runs all
weights in one graph; with more threads it is the time that its own profile gives for the products alone. The others are
called from Python. Answers are compared first. `--type` says what our weights are; the others are fp32. With
`--all-bf16` inputs, weights and outputs of all are bf16, and ONNX Runtime, which has none, is left out.
"""

import argparse
import io
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import tables
from exporter.backends.onednn.int8 import quantised_weight
from runtime.host.allocator import keep_memory_between_calls

SIZES = {
    "minilm": ((384, 1152), (384, 384), (384, 1536), (1536, 384)),
    "bert-base": ((768, 2304), (768, 768), (768, 3072), (3072, 768)),
}
ROWS = (32, 128, 240, 384, 1024)
# Threads of other runtimes wait in a loop for a while.
PAUSE = 0.02
# Of the largest number of an answer.
BOUND = {"fp32": 1e-5, "bf16": 2e-2, "int8": 3e-2}

Linear = Callable[[Tensor], Tensor]


class OnnxLinears:
    """One graph with all linears; of each output it gives the first row, so that their memory is used again."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor], threads: int) -> None:
        self._single = threads == 1
        self._whole = math.inf
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        nodes, constants = [], [numpy_helper.from_array(torch.tensor([edge]).numpy(), f"row{edge}") for edge in (0, 1)]
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            constants += [numpy_helper.from_array(weight.t().contiguous().numpy(), f"w{i}")]
            constants += [numpy_helper.from_array(bias.numpy(), f"b{i}")]
            nodes += [helper.make_node("Gemm", ["x", f"w{i}", f"b{i}"], [f"y{i}"], name=f"linear{i}")]
            nodes += [helper.make_node("Slice", [f"y{i}", "row0", "row1", "row0"], [f"s{i}"])]
        nodes += [helper.make_node("Concat", [f"s{i}" for i in range(len(weights))], ["y"], axis=0)]
        inputs = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", weights[0].shape[1]])
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(weights), len(weights[0])])
        graph = helper.make_graph(nodes, "linears", [inputs], [output], constants)
        held = io.BytesIO()
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), held)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(tempfile.mkdtemp()) / "profile")
        self._session = onnxruntime.InferenceSession(held.getvalue(), options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Tensor:
        """The first row of the last linear."""
        start = time.thread_time()
        found = self._session.run(None, {"x": x.numpy()})[0][-1:]
        self._whole = min(self._whole, time.thread_time() - start)
        return torch.from_numpy(found)

    def shortest(self, count: int) -> list[float]:
        """Per weight, of all calls so far; it cannot be called again."""
        if self._single:
            return [self._whole / count] * count
        best = [math.inf] * count
        for event in json.loads(Path(self._session.end_profiling()).read_text()):
            found = re.fullmatch(r"linear(\d+)_kernel_time", event["name"])
            if found is not None:
                best[int(found[1])] = min(best[int(found[1])], event["dur"] * 1e-6)
        return best


def contenders(weights: list[Tensor], biases: list[Tensor], kind: str) -> dict[str, list[Linear]]:
    """The same linears, each a list with one call per weight."""
    ops, outputs = torch.ops.em_native, len(weights[0])

    def of(make: Callable[[Tensor, Tensor], Linear]) -> list[Linear]:
        return [make(weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def own(weight: Tensor, bias: Tensor) -> Linear:
        if kind == "int8":
            codes, scales = quantised_weight(weight)
            held = ops.pack_linear(codes)
            return lambda x: ops.linear_int8(x, None, held, scales, bias, None, outputs, "none", False)
        packed = ops.pack_linear(weight.bfloat16() if kind == "bf16" else weight)
        return lambda x: ops.linear(x, packed, bias, None, outputs, "none")

    def onednn(weight: Tensor, bias: Tensor) -> Linear:
        order = torch.ops.mkldnn._reorder_linear_weight(weight.clone(), None)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, order, bias, "none", [], "")

    def stock(weight: Tensor, bias: Tensor) -> Linear:
        return lambda x: torch.nn.functional.linear(x, weight, bias)

    return {"own": of(own), "oneDNN": of(onednn), "PyTorch": of(stock)}


def shortest(ways: dict[str, list[Linear]], onnx: OnnxLinears | None, x: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds per weight, the shortest of all rounds; each round begins with the next contender."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    count = len(ways["own"])
    best = {name: [math.inf] * count for name in ways}
    names = [*ways, *([] if onnx is None else ["ONNX Runtime"])]
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(PAUSE)
            if name not in ways:
                assert onnx is not None
                onnx(x)
                continue
            for i, call in enumerate(ways[name]):
                start = clock()
                call(x)
                best[name][i] = min(best[name][i], clock() - start)
    return best if onnx is None else best | {"ONNX Runtime": onnx.shortest(count)}


def main(given: argparse.Namespace) -> None:
    model, kind, threads = given.model, "bf16" if given.all_bf16 else given.type, given.threads
    dtype = torch.bfloat16 if given.all_bf16 else torch.float32
    torch.ops.load_library(given.library)
    # As when a file is loaded; ONNX Runtime keeps its memory too.
    keep_memory_between_calls()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    level = torch.ops.em_native.level()
    print(f"{model}, {kind}, level {level}, {threads} threads, torch {torch.__version__}; shortest, µs per linear")
    body, names = [], []
    for inputs, outputs in SIZES[model]:
        count = max(2, int(given.megabytes * 1e6) // (4 * inputs * outputs))
        weights = [torch.randn(outputs, inputs).mul(0.05).to(dtype) for _ in range(count)]
        biases = [torch.randn(outputs, dtype=dtype) for _ in weights]
        ways = contenders(weights, biases, kind)
        for rows in given.rows:
            x = torch.randn(rows, inputs, dtype=dtype)
            try:
                onnx = None if given.all_bf16 else OnnxLinears(weights, biases, threads)
            except ImportError:
                onnx = None
            expected = torch.nn.functional.linear(x.double(), weights[-1].double(), biases[-1].double())
            answers = {name: calls[-1](x) for name, calls in ways.items()} | ({} if onnx is None else {"onnx": onnx(x)})
            for name, found in answers.items():
                error = (found - expected[: len(found)]).abs().max() / expected.abs().max()
                assert error <= BOUND[kind if name == "own" or given.all_bf16 else "fp32"], (name, error)
            times = {name: sum(best) / count for name, best in shortest(ways, onnx, x, given.rounds).items()}
            names = [*times]
            others = min(seconds for name, seconds in times.items() if name != "own")
            each = [f"{1e6 * seconds:.0f}" for seconds in times.values()]
            speed = 2e-9 * rows * inputs * outputs / times["own"]
            body.append([f"{inputs} → {outputs}", str(rows), *each, f"{others / times['own']:.2f}", f"{speed:.0f}"])
            print(*body[-1], file=sys.stderr)
    print(tables.plain(["size", "rows", *names, "best / own", "own GFLOP/s"], body))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--type", choices=BOUND, default="fp32")
    parser.add_argument("--all-bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--megabytes", type=float, default=48)
    with torch.no_grad():
        main(parser.parse_args())
