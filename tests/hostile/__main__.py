"""Write every hostile file into a folder: `python -m tests.hostile FOLDER [--base FILE]`."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from . import all_cases


def write(folder: Path, base: bytes) -> list[dict[str, str]]:
    """The files, and the list that is written beside them as `cases.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, case in enumerate(all_cases()):
        file = f"{number:03}-{case.kind}.pt"
        (folder / file).write_bytes(case.make(base))
        row = {"file": file, "kind": case.kind, "name": case.name, "what": case.what}
        rows.append(row | {"expected": case.expected, "error": case.error})
    (folder / "cases.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def make_base(folder: Path) -> Path:
    """A tiny text classifier with three labels, exported as the tests do; the same each time."""
    from exporter import ExportRequest, export
    from tests.conftest import tiny_model

    tiny_model("bert", "text-classification", num_labels=3).save_pretrained(folder / "model")
    output = folder / "base.pt"
    export(ExportRequest(model=str(folder / "model"), output=output, backend="plain", verify="quick"))
    return output


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(description="Write every hostile file into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="a plain text classifier with three labels; left out: one is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = (options.base or make_base(Path(temporary))).read_bytes()
    print(f"{len(write(options.folder, base))} files in {options.folder}")


if __name__ == "__main__":
    main()
