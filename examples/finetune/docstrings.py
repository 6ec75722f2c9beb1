"""Labelled examples from the docstrings of Python's standard library, where there is no hub and no data set.

    python examples/finetune/docstrings.py FOLDER

Reads the library of the Python that runs this, and writes to FOLDER for training and validation (`train.*`,
`validation.*`):
- classification.csv: a sentence, and the subject of its module (network, files, numbers, text, time, concurrency);
- entities.conll: the words of sentences, with labels for identifiers: exceptions (EXC), classes (CLASS), parameters of
  the described function (PARAM), constants (CONST);
- answers.json: questions about what a function returns, with its docstring as context, in SQuAD's form.
Equal releases of Python give equal files. Source files that cannot be parsed are left out.
"""

import ast
import csv
import json
import random
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOPICS = {
    "network": "http urllib socket socketserver ssl ftplib smtplib imaplib poplib xmlrpc email wsgiref ipaddress",
    "files": "os shutil pathlib tarfile zipfile tempfile glob fileinput filecmp gzip bz2 lzma posixpath ntpath stat",
    "numbers": "statistics fractions random numbers _pydecimal colorsys bisect heapq _pylong cmath decimal",
    "text": "re string textwrap difflib html csv json configparser gettext locale tokenize pprint shlex argparse",
    "time": "datetime calendar sched zoneinfo _strptime timeit _pydatetime",
    "concurrency": "threading asyncio multiprocessing concurrent queue subprocess selectors contextvars signal",
}
# Their answers alone are used: too few of each to tell their topics apart.
OTHERS = (
    "ast bdb cmd code codecs collections contextlib copy ctypes dataclasses dis doctest enum fnmatch functools getopt "
    "importlib inspect io keyword linecache logging mailbox mimetypes modulefinder netrc operator pdb pickle pkgutil "
    "pickletools platform plistlib profile pydoc quopri reprlib secrets shelve site sqlite3 struct symtable sysconfig "
    "tkinter tomllib trace traceback tracemalloc turtle types typing unittest uuid venv warnings wave weakref xml "
    "webbrowser zipapp zipimport"
)
CONSTANTS = {"None", "True", "False", "NotImplemented", "Ellipsis"}
VALIDATION = 5  # every so manieth example


@dataclass(frozen=True)
class Docstring:
    """A docstring: whose, from which topic, and the parameters of what it describes."""

    name: str
    topic: str
    text: str
    parameters: frozenset[str]


def docstrings() -> Iterator[Docstring]:
    """Of every module, class and function of the topics' modules, in order."""
    library = Path(sysconfig.get_path("stdlib"))
    for topic, modules in (TOPICS | {"": OTHERS}).items():
        for module in modules.split():
            files = [library / f"{module}.py", *sorted((library / module).rglob("*.py"))]
            for file in files:
                if not file.is_file() or "test" in file.parts or "idle_test" in file.parts:
                    continue
                tree = ast.parse(file.read_text(encoding="utf-8-sig", errors="replace"))
                for node in ast.walk(tree):
                    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
                        text = ast.get_docstring(node)
                        if text and text.isascii():
                            yield Docstring(getattr(node, "name", module), topic, text, frozenset(_parameters(node)))


def _parameters(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        every = node.args
        for argument in (*every.posonlyargs, *every.args, *every.kwonlyargs):
            if argument.arg not in ("self", "cls") and len(argument.arg) > 1:
                yield argument.arg


def sentences(text: str) -> Iterator[str]:
    """Those of running text: no code, no tables."""
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r">>>|^\s*[-*|+]|  {2}\S", paragraph, re.M):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            if 5 <= len(sentence.split()) <= 40:
                yield sentence


def entity(word: str, parameters: frozenset[str], classes: frozenset[str]) -> str:
    """The label of one word."""
    if word in CONSTANTS:
        return "B-CONST"
    if re.fullmatch(r"[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit)", word):
        return "B-EXC"
    if word in parameters:
        return "B-PARAM"
    return "B-CLASS" if word in classes and re.search(r"[a-z][A-Z]", word) else "O"


def answers(found: list[Docstring]) -> Iterator[dict[str, object]]:
    """Questions about what is returned, the answer being what stands behind the word."""
    for number, one in enumerate(found):
        context = " ".join(one.text.split())[:1500]
        match = re.search(r"\b[Rr]eturns? ((?:[^.:;]|\.(?=\w)){8,90})(?=[.:;])", context)
        if match and one.name.isidentifier() and not one.name.startswith("__"):
            name = one.name.strip("_").replace("_", " ")
            yield {
                "context": context,
                "qas": [
                    {
                        "id": str(number),
                        "question": f"What does {name} return?",
                        "answers": [{"text": match[1], "answer_start": match.start(1)}],
                    }
                ],
            }


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(set(docstrings()), key=lambda one: (one.topic, one.name, one.text))
    classes = frozenset(one.name for one in found if not one.parameters)
    draw = random.Random(0)
    labelled: dict[str, tuple[str, frozenset[str]]] = {}
    for one in found:
        for sentence in sentences(one.text):
            labelled.setdefault(sentence, (one.topic, one.parameters))
    by_topic = {topic: [text for text, (of, _) in labelled.items() if of == topic] for topic in TOPICS}
    most = max(300, min(map(len, by_topic.values())))
    rows = [(text, topic) for topic, texts in by_topic.items() for text in draw.sample(texts, min(most, len(texts)))]
    tagged = []
    for sentence, (_, parameters) in labelled.items():
        words = re.findall(r"[\w.]*\w|[^\w\s]", sentence)
        tags = [entity(word, parameters, classes) for word in words]
        if any(tag != "O" for tag in tags):
            tagged.append("\n".join(f"{word} {tag}" for word, tag in zip(words, tags, strict=True)) + "\n")
    asked = list(answers(found))
    for part in (rows, tagged, asked):
        draw.shuffle(part)
    tagged, asked = tagged[:2500], asked[:2000]
    for name, chosen in (
        ("train", lambda index: index % VALIDATION),
        ("validation", lambda index: not index % VALIDATION),
    ):
        with open(folder / f"{name}.classification.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(row for index, row in enumerate(rows) if chosen(index))
        (folder / f"{name}.entities.conll").write_text("\n".join(one for i, one in enumerate(tagged) if chosen(i)))
        article = {"title": "docstrings", "paragraphs": [one for i, one in enumerate(asked) if chosen(i)]}
        (folder / f"{name}.answers.json").write_text(json.dumps({"version": "1.1", "data": [article]}, indent=1))
    print(
        f"{folder}: {len(rows)} sentences of {len(TOPICS)} topics, {len(tagged)} with entities, {len(asked)} questions"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
