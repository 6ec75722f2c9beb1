"""A hook of mkdocs: pages of the site that are not in docs/, and links that lead out of docs/.

In: mkdocs' files and pages. Out: README.md as the home page, the other pages at the top of the checkout, and links that
are right on the site: to the site's own page where there is one, else to the file in the repository. Links stay as the
checkout and a package index need them (`tests/test_documents.py` checks them there).
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Pages at the top of the checkout, with their places on the site.
TOP = {path.name: "index.md" if path.name == "README.md" else path.name for path in sorted(ROOT.glob("*.md"))}
# The target of a link or picture in a line, and of a definition `[name]: target`.
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))|(?<=^\[)([\w-]+\]: )(\S+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Add the pages at the top of the checkout to the part "Project"."""
    project: list[Any] = config.nav[-1]["Project"]
    project += [place for place in TOP.values() if place != "index.md"]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Bring the pages in."""
    for name, place in TOP.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links, outside of code."""
    here = page.file.src_uri
    source = next((name for name, place in TOP.items() if place == here), f"docs/{here}")

    def rewritten(found: re.Match[str]) -> str:
        name, target = (found[1], found[2]) if found[1] else ("", found[0])
        return name + _target(target, source, here, f"{config.repo_url}/", files)

    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    texts, blocks = code.split(markdown), code.findall(markdown)
    texts = [LINK.sub(rewritten, text) for text in texts]
    return "".join(text + block for text, block in zip(texts, [*blocks, ""], strict=True))


def _target(target: str, source: str, here: str, repository: str, files: Files) -> str:
    """The target of a link of a file `source` of the checkout, as the page `here` of the site needs it."""
    path, sharp, anchor = target.partition("#")
    if path.startswith(repository):
        path = re.sub(r"^(blob|raw)/main/", "", path.removeprefix(repository))
    elif not path or re.match(r"\w+:", path):
        return target
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    place = TOP.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
    if files.get_file_from_path(place):
        return os.path.relpath(place, posixpath.dirname(here) or ".") + sharp + anchor
    if not (ROOT / path).exists():
        return target  # mkdocs warns of it
    return f"{repository}{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}{sharp}{anchor}"
