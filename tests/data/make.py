"""Write the file of the present format that every later release has to load: tests/data/format-N.pt.

Run once per format version, on the oldest line of PyTorch, whose files all lines read:

    .venv-before-2.0/bin/python tests/data/make.py

It is not written anew while the format stays: it stands for the files that users have.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from exporter import ExportRequest, export  # noqa: E402
from runtime.format.manifest import FORMAT_VERSION  # noqa: E402
from tests.conftest import tiny_model  # noqa: E402 (behind the path)

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 64}


def main() -> None:
    """Export a tiny classifier with random weights."""
    output = Path(__file__).with_name(f"format-{FORMAT_VERSION}.pt")
    if output.exists():
        sys.exit(f"{output} exists; a file of a format that users have is not written anew")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        tiny_model("bert", "text-classification", num_labels=3, max_position_embeddings=64, **SIZES).save_pretrained(
            model
        )
        export(ExportRequest(model=str(model), output=output, backend="plain", tune="off"))


if __name__ == "__main__":
    main()
