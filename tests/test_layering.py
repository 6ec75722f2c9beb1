"""Who may import whom (docs/architecture.md), proved from the source and in fresh processes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_python

pytestmark = pytest.mark.fresh

# Package → the only rooms (files or folders) that may import it.
ROOMS = {
    "click": ["exporter/cli.py"],
    "transformers": ["exporter/loading", "exporter/loading/third_party_logs.py", "exporter/trainer"],
    "intel_extension_for_pytorch": ["exporter/backends/ipex/backend.py", "exporter/backends/ipex/int8.py"],
    "tokenizers": ["runtime/text/tokenizer.py"],
    "tqdm": ["runtime/commands/progress.py"],
    "numpy": ["runtime/commands/tensor_file.py", "exporter/evaluation", "exporter/trainer/evaluate.py"],
    "sklearn": ["exporter/evaluation/metrics.py"],
    "seqeval": ["exporter/evaluation/metrics.py"],
    "torchmetrics": ["exporter/evaluation/metrics.py"],
    "cryptography": ["runtime/artifact/signing.py"],
    "safetensors": ["runtime/format/golden.py", "exporter/loading/weight_files.py"],
}
FORBIDDEN_IN_RUNTIME = {"exporter", "transformers", "click", "intel_extension_for_pytorch"}
STAGES = {
    *("adapter", "backends", "calibration", "derive", "describe", "envelope", "inputs", "metric", "plan", "shapes"),
    *("reference", "rounding", "source", "trace", "tune", "verify", "workspace"),
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


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_each_package_has_one_importing_room(package: str) -> None:
    offenders = []
    for path in sources("runtime") + sources("exporter"):
        place = path.relative_to(ROOT).as_posix()
        allowed = any(place == room or place.startswith(room + "/") for room in ROOMS[package])
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


def test_manifest_and_what_it_needs_do_not_import_torch() -> None:
    for name in ("manifest", "measured", "decode", "errors", "environment"):
        modules = [module.split(".")[0] for module, _, typing in imports(ROOT / f"runtime/{name}.py") if not typing]
        assert "torch" not in modules, name


def test_only_the_pipeline_imports_the_functions_of_stages() -> None:
    """Between stages only types travel: their names begin with a capital letter."""
    offenders = []
    for path in sources("exporter"):
        # The straight line, and the part of it that is walked once a candidate.
        if path.name in ("pipeline.py", "attempt.py"):
            continue
        # jit mode's own line, in one process and without a file.
        if path.parent.name == "trainer":
            continue
        own = path.relative_to(ROOT / "exporter").parts[0].removesuffix(".py")
        for module, names, _ in imports(path):
            parts = module.split(".")
            if parts[0] == "exporter" and len(parts) > 1 and parts[1] in STAGES and parts[1] != own:
                offenders += [(path.name, module, name) for name in names if not name[0].isupper()]
    # Pure functions from values to values: they are no stages of their own.
    assert offenders == [
        ("calibration.py", "exporter.shapes.example_inputs", "make_inputs"),
        ("plan.py", "exporter.shapes.input_specs", "derive"),
        ("reference.py", "exporter.shapes.narrowing", "narrow"),
        ("reference.py", "exporter.shapes.narrowing", "narrow_axis"),
        ("reference.py", "exporter.shapes.narrowing", "with_axis"),
        ("reference.py", "exporter.shapes.example_inputs", "make_inputs"),
        ("reference.py", "exporter.shapes.test_shapes", "probes"),
        ("reference.py", "exporter.shapes.test_shapes", "trials"),
    ]


def test_one_room_knows_torchscript() -> None:
    """What newer releases of torch deprecate is kept in one file."""
    for path in sources("runtime") + sources("exporter"):
        if path.name != "torchscript.py":
            tree = ast.parse(path.read_text())
            used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            modules = {module for module, _, _ in imports(path)}
            assert not any(name.startswith(("torch.jit", "torch._C")) for name in used | modules), path


def test_only_artifact_reads_and_writes_torchscript_files() -> None:
    for path in sources("runtime") + sources("exporter"):
        if path.name not in ("artifact.py", "torchscript.py"):
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
