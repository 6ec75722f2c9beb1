"""The documents: their shape, their links, the commands that they name, and their Python blocks, which are run.

Every `python` block is run, those of a page in order and in one namespace, unless `<!-- not run: REASON -->` stands
before it; so is every command `run-model` in a block without a language, and what they print is compared where the page
shows it (`print(…)  # OUTPUT`). They find the files that the pages name, made by the tests' fixtures.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.cli import main as export_model
from runtime.commands.main import main as run_model
from tests.conftest import ROOT, Side

REPOSITORY = "https://github.com/export-model/export-model/"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks/README.md"]
# Written by programs, from results.
GENERATED = ("docs/coverage.md", "docs/lines.md", "docs/benchmarks/")
# Tables of long rows between lines that its next version wraps.
WIDTH = 120
SHELL = ("", "sh")  # languages of blocks with commands


@dataclass
class Block:
    """A block of code: its language, its lines, and why it is not run."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Without blocks of code, and without code in a line."""
    return re.sub(r"`[^`]*`", "", FENCED.sub("", text))


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    pattern = r"(?:<!-- not run: (.+) -->\n)?^```(\w*)\n(.*?)^```$"
    return [
        Block(name_of(path), text.count("\n", 0, found.start(2)) + 2, found[2], found[3], found[1])
        for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    ]


BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]


# ---- Shape ----


def test_the_readme_fits_a_reader() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if not name_of(path).startswith(GENERATED)], ids=name_of)
def test_lines_are_short(path: Path) -> None:
    """But rows of tables, which Markdown cannot wrap, and targets of links."""
    long = [
        f"{number}: {line}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > WIDTH and not re.match(r"\||\[[\w-]+\]: ", line)
    ]
    assert long == []


# ---- Links ----


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as sites of repositories and `make docs` make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings)
    return {heading.strip().lower().replace(" ", "-") for heading in plain}


def links(path: Path) -> list[str]:
    text = prose(path.read_text())
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[\w-]+\]: (\S+)$", text, re.MULTILINE)


def broken(link: str, page: Path) -> bool:
    target, _, anchor = link.partition("#")
    if target.startswith(REPOSITORY):
        place = ROOT / re.sub(r"^(blob|raw|tree)/main/", "", target.removeprefix(REPOSITORY))
    elif re.match(r"\w+:", target):
        return False
    else:
        place = page.parent / target if target else page
    return not place.exists() or (anchor != "" and anchor not in anchors(place))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    assert [link for link in links(path) if broken(link, path)] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](other.md) [b](#a-title) [c](#b)\n`[d](no.md)`\n\n[e]: " + REPOSITORY + "blob/main/no\n"
    )
    assert [link for link in links(page) if broken(link, page)] == ["other.md", "#b", REPOSITORY + "blob/main/no"]


def test_readmes_links_are_absolute() -> None:
    """It is also shown by package indexes, which have no other file."""
    assert [link for link in links(ROOT / "README.md") if not link.startswith(REPOSITORY)] == []


# ---- Commands ----


def test_commands_that_pages_name_are_there() -> None:
    """Targets of make, scripts, and tests that `make unit ARGS="-k …"` chooses."""
    makefile = (ROOT / "Makefile").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    wrong = []
    for path in DOCUMENTS:
        inline = re.findall(r"`[^`]+`", FENCED.sub("", path.read_text()))
        code = "\n".join([*inline, *(block.text for block in blocks(path) if block.language in SHELL)])
        wrong += [f"make {name}" for name in re.findall(r"\bmake ([a-z][\w-]*)", code) if f"\n{name}:" not in makefile]
        wrong += [name for name in re.findall(r"\bpython ([\w/]+\.py)\b", code) if not (ROOT / name).exists()]
        wrong += [name for name in re.findall(r'ARGS="-k (\w+)"', code) if not re.search(rf"def \w*{name}", tests)]
    assert wrong == []


def commands(block: Block) -> list[str]:
    """The lines of a shell block or of a transcript that are typed."""
    if block.language not in SHELL:
        return []
    text = block.text.replace("\\\n", " ")
    typed = re.findall(r"^\$ (.+)$", text, re.MULTILINE) or text.splitlines()
    return [line for line in typed if line.split()[:1] in (["export-model"], ["run-model"])]


@pytest.mark.parametrize("block", [block for block in BLOCKS if commands(block)], ids=lambda block: block.place)
def test_command_lines_are_understood(block: Block) -> None:
    """Options exist, and have values that they may have."""
    for command in commands(block):
        program, *arguments = shlex.split(command.split(" | ")[0])
        if program == "export-model" and "…" not in arguments:
            export_model.make_context(program, arguments, resilient_parsing=False)


# ---- Code ----


@pytest.fixture(scope="module")
def files(minilm: Path, exported: Callable[..., Any], side: Callable[..., Side]) -> dict[str, Path]:
    """Those that the pages name. Of both of MiniLM's the precision matters to no block."""
    found = {"my-model": minilm}
    for name in ("model.pt", "build/minilm-bf16.pt"):
        found[name] = Path(exported(minilm, backend="plain", verify="off").output)
    for task in ("text-classification", "question-answering"):
        made = exported(side(task).folder, backend="plain", task=task, verify="off")
        found[f"build/{task}.pt"] = Path(made.output)
    reranker = side("text-classification", num_labels=1).folder
    found["build/reranking.pt"] = Path(exported(reranker, backend="plain", verify="off").output)
    return found


@pytest.fixture
def workplace(tmp_path: Path, files: dict[str, Path]) -> Iterator[Path]:
    """The current folder, with the files that the pages name; torch's threads are put back."""
    (tmp_path / "build").mkdir()
    for name, path in files.items():
        (tmp_path / name).symlink_to(path)
    threads, folder = torch.get_num_threads(), Path.cwd()
    # Not by `monkeypatch`, whose tests get exports of their own (conftest.py).
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(folder)
    torch.set_num_threads(threads)


def run_python_blocks(page: str) -> None:
    names: dict[str, Any] = {}
    for block in (block for block in BLOCKS if block.page == page and block.language == "python"):
        if block.not_run:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
        shown = re.findall(r"^print\(.+\)  # (?:of \w+: )?(.+)$", block.text, re.MULTILINE)
        assert [line for line in shown if line not in printed.getvalue().splitlines()] == [], block.place


PAGES = sorted({block.page for block in BLOCKS if block.language == "python" and not block.not_run})
# An export from beginning to end.
LONG = ["docs/export.md"]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page in LONG else []) for page in PAGES]
)
def test_python_blocks_run(page: str) -> None:
    run_python_blocks(page)


TRANSCRIPTS = [block for block in BLOCKS if any(line.startswith("run-model") for line in commands(block))]


@pytest.mark.parametrize("block", [block for block in TRANSCRIPTS if not block.not_run], ids=lambda block: block.place)
def test_run_model_runs_as_shown(block: Block, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit code that the transcript shows; what it prints depends on the processor."""
    shown = re.search(r"^run-model: .+$", block.text, re.MULTILINE)
    for name, content in re.findall(r"^\$ cat ([\w.]+)\n((?:[^$].*\n)+)", block.text, re.MULTILINE):
        (workplace / name).write_text(content)
    for line in re.findall(r"^\$ (printf .+)$", block.text, re.MULTILINE):
        subprocess.run(line, shell=True, check=True)  # clean start: no Python
    codes = []
    for command in commands(block):
        if command.startswith("run-model"):
            codes.append(run_model(shlex.split(command.split(" | ")[0])[1:]))
    assert codes[-1] == (1 if shown else 0) and not any(codes[:-1])
    if shown:
        assert capsys.readouterr().err.splitlines()[-1] == shown[0]


@pytest.mark.slow
def test_the_readme_from_export_to_answer(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that its block of Python loads is the one that its own command writes."""
    (workplace / "model.pt").unlink()
    export = [line for block in BLOCKS if block.page == "README.md" for line in commands(block) if "export-" in line]
    assert export == ["export-model ./my-model -o model.pt"]
    with pytest.raises(SystemExit) as ended:
        export_model(shlex.split(export[0])[1:])
    assert ended.value.code == 0, capsys.readouterr().err
    run_python_blocks("README.md")
