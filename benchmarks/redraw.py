"""`python -m benchmarks.redraw`: make every page and picture again from the stored results; nothing is measured.

Reads docs/benchmarks/NAME.json, as a benchmark wrote it, and writes NAME.md and NAME.svg beside it.
"""

from __future__ import annotations

from benchmarks import cpp, start, text, trainer
from benchmarks.generate.__main__ import report as report_generate
from benchmarks.harness import places, reports
from benchmarks.loadgen.__main__ import report as report_loadgen
from benchmarks.speed.__main__ import report as report_speed


def main() -> None:
    single = {"start": start.report, "cpp": cpp.report, "text": text.report, "trainer": trainer.report}
    for name, report in single.items():
        if (places.OUTPUT / f"{name}.json").exists():
            report(reports.load_raw(places.OUTPUT, name))
    for name, report_folder in {"speed": report_speed, "generate": report_generate, "loadgen": report_loadgen}.items():
        for path in sorted(places.OUTPUT.rglob(f"{name}.json")):
            report_folder(path.parent)


if __name__ == "__main__":
    main()
