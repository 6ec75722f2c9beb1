"""Where results are written: NAME.json, the raw figures, and NAME.md and NAME.svg, which are drawn from it.

The raw file lies beside the page and is no part of the repository (.gitignore); with it, `--report-only` draws the page
and the picture again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import charts


def save_raw(folder: Path, name: str, result: Mapping[str, Any]) -> None:
    """Write the raw figures."""
    write_whole(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")


def load_raw(folder: Path, name: str) -> dict[str, Any]:
    """The raw figures of an earlier run; ends the program with a message if there are none."""
    path = folder / f"{name}.json"
    if not path.exists():
        sys.exit(f"{path} is missing: raw results stay where they were measured; run the benchmark first")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def save_page(folder: Path, name: str, page: str, picture: charts.Figure | None = None) -> None:
    """Write the page and the picture."""
    write_whole(folder / f"{name}.md", page)
    if picture is not None:
        write_whole(folder / f"{name}.svg", charts.svg(picture))
    print(f"wrote {folder / name}.md{'' if picture is None else ' and .svg'}")


def write_whole(path: Path, text: str) -> None:
    """Replace the file as a whole: a run that was ended leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text)
    draft.rename(path)
