"""Who may import whom (docs/architecture.md), proved from the source and in fresh processes."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_python

pytestmark = pytest.mark.fresh

# Package → the only places (modules or folders) that import it.
PLACES = {
    "click": ["exporter/cli.py"],
    "sentence_transformers": ["exporter/loading/library_modules.py"],
    "peft": ["exporter/loading/adapter_merge.py"],
    "transformers": ["exporter/loading", "exporter/trainer"],
    "intel_extension_for_pytorch": ["exporter/backends/ipex/package.py"],
    "tokenizers": ["runtime/text/tokenizer.py"],
    "soxr": ["runtime/audio/resampling.py"],
    "jinja2": ["runtime/text/chat.py"],
    "PIL": ["runtime/image/pictures.py", "exporter/loading/image_preprocessing.py"],
    "tqdm": ["runtime/commands/progress.py"],
    "numpy": ["runtime/commands/tensor_file.py", "exporter/evaluation", "exporter/trainer/evaluate.py"],
    "sklearn": ["exporter/evaluation/metrics.py"],
    "seqeval": ["exporter/evaluation/metrics.py"],
    "torchmetrics": ["exporter/evaluation/metrics.py"],
    "cryptography": ["runtime/artifact/signing.py"],
    "safetensors": ["runtime/format/golden.py", "exporter/loading/weight_files.py"],
}
FORBIDDEN_IN_RUNTIME = {"exporter", "transformers", "click", "intel_extension_for_pytorch"}
# The wings, and the modules beside them, from the ground up: each imports from those before it alone.
ORDER = {
    "runtime": (
        *("moved", "printing", "errors", "format", "host", "artifact", "input_validation", "preprocessing"),
        *("generation", "text"),
        *("image", "audio", "session"),
        *("serving", "pool", "verification", "commands", "__main__"),
    ),
    "exporter": (
        *(
            "config",
            "preprocessing",
            "loading",
            "shapes",
            "tracing",
            "backends",
            "calibration",
            "verification",
            "evaluation",
        ),
        *("packaging", "selection", "pipeline", "cli", "trainer"),
    ),
}


def imports(path: Path) -> Iterator[tuple[str, list[str], bool]]:
    """Module, names taken from it, and whether only the type checker sees the import."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.typing_only = getattr(node, "typing_only", False) or (  # type: ignore[attr-defined]
                isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            )
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], getattr(node, "typing_only", False)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or "", [alias.name for alias in node.names], getattr(node, "typing_only", False)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def wing(module: str) -> str:
    """`runtime.text.api` → `text`; a package's own `__init__` is the package itself."""
    return [*module.split("."), ""][1]


def dotted(path: Path) -> str:
    """The module's name, such as `runtime.text.api`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def own_imports(package: str) -> Iterator[tuple[str, str]]:
    """Pairs of modules of the package: one that imports, and what it imports, for the type checker too."""
    modules = {dotted(path) for path in sources(package)}
    for path in sources(package):
        importer = dotted(path)
        for module, names, _ in imports(path):
            for found in {f"{module}.{name}" for name in names} | {module}:
                if found in modules and found != importer and not importer.startswith(f"{found}."):
                    yield importer, found


@pytest.mark.parametrize("package", sorted(PLACES))
def test_each_package_is_imported_in_one_place(package: str) -> None:
    offenders = []
    for path in sources("runtime") + sources("exporter"):
        place = path.relative_to(ROOT).as_posix()
        allowed = any(place == room or place.startswith(room + "/") for room in PLACES[package])
        used = any(module.split(".")[0] == package and not typing for module, _, typing in imports(path))
        if used and not allowed:
            offenders.append(place)
    assert offenders == []


def test_runtime_never_looks_back() -> None:
    offenders = [
        (path.name, module)
        for path in sources("runtime")
        for module, _, _ in imports(path)
        if module.split(".")[0] in FORBIDDEN_IN_RUNTIME
    ]
    assert offenders == []


@pytest.mark.parametrize("package", sorted(ORDER))
def test_every_module_lies_in_a_wing(package: str) -> None:
    assert {wing(importer) for importer, _ in own_imports(package)} - {""} <= set(ORDER[package])


@pytest.mark.parametrize("package", sorted(ORDER))
def test_wings_import_downwards(package: str) -> None:
    rank = {name: place for place, name in enumerate(ORDER[package])}
    offenders = [
        (importer, found)
        for importer, found in own_imports(package)
        # The package's `__init__` gathers the public names, from everywhere.
        if wing(importer) and wing(found) and rank[wing(found)] > rank[wing(importer)]
    ]
    assert offenders == []


@pytest.mark.parametrize("package", sorted(ORDER))
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    graph: dict[str, set[str]] = {}
    for importer, found in own_imports(package):
        graph.setdefault(importer, set()).add(found)
    graph.pop(package, None)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_format_needs_no_torch() -> None:
    for path in [*sources("runtime/format"), ROOT / "runtime/errors.py", ROOT / "runtime/host/requirements.py"]:
        if path.name not in ("golden.py", "noise.py"):  # tensors
            assert "torch" not in [module.split(".")[0] for module, _, typing in imports(path) if not typing], path


def test_one_module_knows_torchscript() -> None:
    """What newer releases of torch deprecate is kept in one file."""
    for path in sources("runtime") + sources("exporter"):
        if path.name != "torchscript.py":
            tree = ast.parse(path.read_text())
            used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            modules = {module for module, _, _ in imports(path)}
            assert not any(name.startswith(("torch.jit", "torch._C")) for name in used | modules), path


def test_only_one_module_reads_and_writes_torchscript_files() -> None:
    for path in sources("runtime") + sources("exporter"):
        if path.name not in ("artifact_file.py", "torchscript.py"):
            tree = ast.parse(path.read_text())
            calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            assert not calls & {"torchscript.load", "torchscript.save"}, path


def test_reading_a_manifest_imports_no_torch(tiny_artifact: Path) -> None:
    code = "import runtime, sys; print(runtime.read_manifest(sys.argv[1]).task, 'torch' in sys.modules)"
    done = run_python(code, tiny_artifact)
    assert done.stdout.split() == ["text-classification", "False"], done.stderr


def test_a_worker_imports_nothing_but_torch_and_safetensors(minilm_ipex: Path) -> None:
    """An IPEX artifact with text in: the most that a worker does."""
    code = """
import runtime, sys
session = runtime.load(sys.argv[1])
session(**session.text.encode(["a sentence"]))
heavy = {"transformers", "click", "intel_extension_for_pytorch", "exporter", "sentence_transformers"}
print(sorted(heavy & set(sys.modules)), "torch" in sys.modules)
"""
    done = run_python(code, minilm_ipex)
    assert done.stdout.split() == ["[]", "True"], done.stderr
    assert done.stderr == ""


def test_a_worker_runs_where_they_cannot_be_imported(minilm_ipex: Path) -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["transformers", "click", "intel_extension_for_pytorch", "exporter", "numpy"]))
import runtime
session = runtime.load(sys.argv[1])
print(*session(**session.text.encode(["one", "two"]))["sentence_embedding"].shape)
"""
    # Without numpy, importing torch itself warns; that warning is torch's, not an error of the worker.
    done = run_python("import warnings; warnings.simplefilter('ignore')\n" + code, minilm_ipex)
    assert done.stdout.split() == ["2", "384"], done.stderr


def test_modules_say_what_they_are_for() -> None:
    for path in sources("runtime") + sources("exporter"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
