"""`python -m benchmarks.generate.convert PEER MODEL PRECISION OUTPUT`: make what a peer loads, by its own converter.

ONNX Runtime's and llama.cpp's run in .venv, which has the transformers and the `gguf` that they ask for, the others in
.venv-sentence, whose older transformers OpenVINO's converter asks for. What these do not have is taken from
.venv-genai. A precision that a converter does not have ends with the reason as the last line.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.generate.rows import Precision
from benchmarks.harness import places

# Of ONNX Runtime GenAI's threads, which are set in a file.
THREADS = 2


def to_openvino(folder: Path, precision: Precision, output: Path) -> None:
    """By optimum-intel, weights compressed as it recommends: int8 per channel, int4 in groups."""
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig, OVWeightQuantizationConfig

    config = {
        "fp32": lambda: OVConfig(dtype="fp32"),
        "bf16": lambda: OVConfig(dtype="fp32"),
        "int8": lambda: OVConfig(quantization_config=OVWeightQuantizationConfig(bits=8)),
        "int4": lambda: OVConfig(
            quantization_config=OVWeightQuantizationConfig(bits=4, sym=True, group_size=64, ratio=1.0)
        ),
    }[precision]()
    main_export(
        str(folder), output=output, task="text-generation-with-past", library_name="transformers", ov_config=config
    )


def to_onnx(folder: Path, precision: Precision, output: Path) -> None:
    """By ONNX Runtime GenAI's builder. What it cannot make for processors it refuses."""
    _borrow()
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    options = ["int4_accuracy_level=4", "int4_block_size=32"] if precision == "int4" else []
    given = ("", str(folder), str(output), precision, "cpu", str(output.with_name(f".{output.name}-cache")))
    create_model(*given, **parse_extra_options(*given, options))
    path = output / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = THREADS
    path.write_text(json.dumps(config, indent=1) + "\n")


def to_ctranslate2(folder: Path, precision: Precision, output: Path) -> None:
    _borrow()
    from ctranslate2.converters import TransformersConverter

    quantisation = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}.get(precision)
    if quantisation is None:
        sys.exit(f"CTranslate2's converter has no {precision}")
    TransformersConverter(str(folder)).convert(str(output), quantization=quantisation)


def to_llamacpp(folder: Path, precision: Precision, output: Path) -> None:
    _borrow()
    from benchmarks.generate.gguf_file import write

    write(folder, precision, output)


CONVERTERS: dict[str, Callable[[Path, Precision, Path], None]] = {
    "openvino": to_openvino,
    "onnxruntime": to_onnx,
    "ctranslate2": to_ctranslate2,
    "llamacpp": to_llamacpp,
}


def _borrow() -> None:
    """Behind this environment's own packages."""
    sys.path.append(places.packages_of(places.GENAI))


def main() -> None:
    peer, model, precision, output = sys.argv[1:]
    path = Path(output)
    draft = path.with_name(f".{path.name}.part")
    for old in (draft, path):
        if old.is_dir():
            shutil.rmtree(old)
    CONVERTERS[peer](places.folder_of(model), precision, draft)  # type: ignore[arg-type]
    draft.rename(path)


if __name__ == "__main__":
    main()
