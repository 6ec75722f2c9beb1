"""What the code in an artifact may call: real exports pass; whatever reaches outside does not."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from exporter import ExportRequest, export
from exporter.tracing.graphs.zeroed_memory import zero_new_memory
from runtime import load
from runtime.artifact import artifact_file
from runtime.artifact.operator_allowlist import check_code
from runtime.artifact.operator_lists import lists
from runtime.artifact.pickles import check_pickles
from runtime.artifact.pickles.handles import check_handles
from runtime.artifact.pickles.values import InvalidPickle, Object, Tensor
from runtime.artifact.zip_reader import Archive
from runtime.errors import (
    ForbiddenOperatorError,
    OperatorNameError,
    OperatorNotAllowedError,
    RequestError,
    UnsafeArchiveError,
)
from tests.conftest import BIN, ROOT, run, run_python
from tests.hostile.builder import forge
from tests.test_artifact import rewrite

FORWARD = "class A(Module):\n  def forward(self: __torch__.A, x: Tensor) -> Tensor:\n    {}\n    return x\n"


def archive_of(records: dict[str, bytes]) -> Archive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, content in records.items():
            new.writestr(f"a/{name}", content)
    return Archive(buffer, "f.pt")


def check(line: str) -> None:
    check_code(archive_of({"code/__torch__.py": FORWARD.format(line).encode()}))


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet", "albert"])
@pytest.mark.parametrize("backend", ["plain", "ipex"])
def test_exports_pass(
    tiny_folder: Callable[..., Path], exported: Callable[..., Any], model_type: str, backend: str
) -> None:
    folder = tiny_folder(model_type, "feature-extraction")
    report = exported(folder, backend=backend, precision="bf16" if backend == "ipex" else "fp32", verify="off")
    with artifact_file.open_archive(report.output) as archive:
        check_pickles(archive, check_code(archive))


@pytest.mark.parametrize(
    "line",
    [
        "y = torch.add(x, CONSTANTS.c0)",
        "y = torch.__and__(x, x)",
        "y = ops.prim.NumToTensor(torch.size(x, 1))",
        "y = ops.torch_ipex.ipex_linear(x, CONSTANTS.c1, None, (CONSTANTS.c2).get_data_handle(), None)",
        "h = (CONSTANTS.c2).get_data_handle()\n    y = ops.torch_ipex.ipex_linear(x, CONSTANTS.c1, None, h, None)",
        "y = annotate(List[Optional[Tensor]], [x])",
        "y = (self.linear).forward(x)",
        'y = torch.to(x, torch.device("cpu"), 6)',
        "y : Optional[Tensor] = x",
        "y, z, = torch.split(x, 2)",
        "for i in range(torch.len(x)):\n      pass",
        "if torch.eq(x, -inf):\n      y = -1.0000000000000001e-05\n    else:\n      y = x[0]",
        "y = (self).em_attend(x, x, 0.5, )",
    ],
)
def test_what_exports_contain(line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        "torch.save(x, '/tmp/x')",
        "ops.aten.save(x, '/tmp/x')",
        "y = torch.from_file('/etc/passwd')",
        "y = ops.aten.from_file('/etc/passwd', False, 10)",
        "f = torch.save",
        "f = ops.aten",
        "t = torch",
        "x.save('/tmp/x')",
        "'/etc/passwd'.from_file()",
        "(torch.add(x, x)).save('/tmp/x')",
        "print(x)",
        "y = ops.aten._print('x')",
        "y = ops.prim.PythonOp(x)",
        "y = ops.debugprims.load_tensor('x')",
        "y = ops.c10d.allreduce_(x)",
        "y = ops.profiler._record_function_enter('x')",
        "y = __torch__.torch.classes.aoti.Model('/tmp/evil.so')",
        "y = torch.classes.load_library('/tmp/evil.so')",
        "y = torch.ops.load_library('/tmp/evil.so')",
        "y = torch._unsafe_index(x, [x])",
        "y = torch.set_(x, x)",
        "y = fork(x)",
        "y = getattr(x, 'save')",
        "import os",
        "torch = x",
        "int = torch.add",
        "y = lambda: x",
        "y = ^os.system('x')",
        "with x:\n      pass",
        "y = " + "(" * 500 + ")" * 500,
        "y = " + "-" * 100_000 + "1",
        "y = x" + ".a" * 100_000,
    ],
)
def test_what_reaches_outside(line: str) -> None:
    with pytest.raises(OperatorNotAllowedError, match=r"^f\.pt: code/__torch__\.py has "):
        check(line)


@pytest.mark.parametrize("name", ["model.json", "code/x.so", "lib.so", "bytecode.pkl", "data/a/b"])
def test_records_of_no_known_use(name: str) -> None:
    with pytest.raises(OperatorNotAllowedError, match="the record"):
        check_code(archive_of({name: b""}))


def test_code_in_many_pieces() -> None:
    with pytest.raises(UnsafeArchiveError, match="bytes of code"):
        check_code(archive_of({f"code/{i}.py": b"#" * 2**20 for i in range(3)}))


def test_a_forged_artifact_is_refused_before_torch_reads_it(tiny_artifact: Path, tmp_path: Path) -> None:
    """Digests that fit, code that writes a file: PyTorch alone would run it."""
    with zipfile.ZipFile(tiny_artifact) as archive:
        (code,) = [name for name in archive.namelist() if name.endswith(".py")]
        text = archive.read(code).decode()
    first, rest = text.split("-> Tuple[Tensor]:\n", 1)
    evil = f"{first}-> Tuple[Tensor]:\n    ops.aten.save(input_ids, {str(tmp_path / 'written')!r})\n{rest}"
    path = rewrite(tiny_artifact, tmp_path / "evil.pt", {code.rsplit("/", 1)[-1]: evil.encode()})
    with pytest.raises(OperatorNotAllowedError, match=r"the operator aten::save"):
        load(path)
    assert not (tmp_path / "written").exists()
    ids = torch.ones(2, 16, dtype=torch.long)
    torch.jit.load(str(path))(ids, ids, ids * 0)
    assert (tmp_path / "written").exists()


@pytest.mark.fresh
def test_reading_the_code_needs_no_torch(tiny_artifact: Path) -> None:
    code = """
import sys
from runtime.artifact import artifact_file
from runtime.artifact.operator_allowlist import check_code
from runtime.artifact.pickles import check_pickles
from runtime.artifact.pickles.handles import check_handles
from runtime.artifact.pickles.values import InvalidPickle, Object, Tensor
with artifact_file.open_archive(sys.argv[1]) as archive:
    artifact_file.verify_parts(archive, artifact_file.read_manifest(archive))
    check_pickles(archive, check_code(archive))
print('torch' in sys.modules)
"""
    assert run_python(code, tiny_artifact).stdout == "False\n"


def test_the_list_names_only_operators_that_there_are() -> None:
    """A name that is misspelt would never be found out otherwise.

    IPEX's are known once its library is loaded; those of this project's library have a test in tests/test_kernels.py.
    """
    for name in sorted(lists().operators):
        if not name.startswith(("torch_ipex::", "em_native::", "prim::")):
            assert torch._C._jit_get_schemas_for_operator(name), name


def test_operators_that_are_known_to_trust_their_arguments_are_not_on_the_list() -> None:
    """Kinds: backward passes, indices from outside, sparse, losses, LAPACK's pivots, new memory, files."""
    kinds = re.compile(
        r"backward|unpool|with_indices|sparse|loss|native_|batch_norm_.|embedding_|_embedding|nested|segment|:lu_|_lu_|ldl_|"
        r"ormqr|householder|empty|resize|:set_|storage|_unsafe_index|file|save|print|load|data_ptr|_copy_from"
    )
    assert [name for name in lists().operators if kinds.search(name) and name != "aten::embedding"] == []


def test_what_is_known_not_to_check_is_on_the_list_and_in_the_documents() -> None:
    known = lists()
    page = (ROOT / "docs" / "operators.md").read_text()
    assert known.unchecked.keys() <= known.operators
    assert [name for name in known.unchecked if name.split("::")[1] not in page] == []


def test_all_that_exports_contained_is_on_the_list() -> None:
    """`python -m tests.model_matrix.operators` wrote the file."""
    known = lists()
    kinds = {"operator": known.operators, "keyword": known.keywords, "function": known.functions}
    kinds |= {"method": known.methods, "class": known.classes}
    found = json.loads((ROOT / "tests/model_matrix/operators.json").read_text())
    uses = [use.split(" ", 1) for part in found.values() for use in part["uses"]]
    assert len(uses) > 500
    assert [use for use in uses if use[1] not in kinds[use[0]]] == []


def artifact_that_calls(name: str, base: Path, folder: Path) -> Path:
    body = f"y = torch.{name}(torch.ones([2, 3]))\nreturn (y,)"
    path = folder / "forged.pt"
    path.write_bytes(forge(base.read_bytes(), body))
    return path


def test_an_operator_can_be_allowed_by_name(tiny_artifact: Path, tmp_path: Path) -> None:
    path = artifact_that_calls("matrix_exp", tiny_artifact, tmp_path)
    with pytest.raises(OperatorNotAllowedError, match=r"the operator aten::matrix_exp"):
        load(path, warmup=False)
    with pytest.raises(OperatorNotAllowedError, match=r"the operator aten::matrix_exp"):
        load(path, warmup=False, allow_operators=["aten::svd"])
    assert load(path, warmup=False, allow_operators=["aten::matrix_exp"]).manifest.labels


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("aten::add", r"allow_operators is 'aten::add'; expected a list of names"),
        (["matrix_exp"], r"allow_operators has 'matrix_exp'; expected a list of names such as"),
        (["aten::.*"], r"allow_operators has 'aten::\.\*'; expected a list of names"),
        ([3], r"allow_operators has 3; expected a list of names"),
        (["aten::matrix_expp"], r"allow_operators has 'aten::matrix_expp'; expected the name of an operator that"),
    ],
)
def test_names_that_are_no_operators(tiny_artifact: Path, names: Any, found: str) -> None:
    with pytest.raises(OperatorNameError, match=found):
        load(tiny_artifact, allow_operators=names)


def test_run_model_allows_an_operator(tiny_artifact: Path, tmp_path: Path) -> None:
    path = artifact_that_calls("matrix_exp", tiny_artifact, tmp_path)
    done = run([BIN / "run-model", "check", path])
    assert done.returncode == 1
    assert "aten::matrix_exp" in done.stderr
    done = run([BIN / "run-model", "check", path, "--allow-operator", "aten::matrix_exp"])
    assert "aten::matrix_exp" not in done.stderr


@pytest.fixture
def exotic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text classifiers call it too."""
    plain = BertForSequenceClassification.forward

    def forward(self: Any, **inputs: Any) -> Any:
        output = plain(self, **inputs)
        return type(output)(logits=torch.matrix_exp(output.logits[:, :1, None] * 0.1)[:, 0] + output.logits)

    forward.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    monkeypatch.setattr(BertForSequenceClassification, "forward", forward)


@pytest.mark.usefixtures("exotic")
@pytest.mark.parametrize("verify", ["off", "quick"])
def test_an_export_that_a_consumer_would_refuse_is_refused(
    tiny_folder: Callable[..., Path], tmp_path: Path, verify: str
) -> None:
    output = tmp_path / "m.pt"
    output.write_bytes(b"what was there")
    request: dict[str, Any] = {"model": str(tiny_folder()), "output": output, "backend": "plain", "verify": verify}
    found = r"the model calls aten::matrix_exp, .* give --allow-operator aten::matrix_exp, here and wherever"
    with pytest.raises(ForbiddenOperatorError, match=found) as refused:
        export(ExportRequest(**request, force=True))
    assert refused.value.operators == ("aten::matrix_exp",)
    assert output.read_bytes() == b"what was there"


@pytest.mark.usefixtures("exotic")
def test_an_exporter_may_allow_it_and_the_consumer_decides(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """In every fresh process of the export: timing, verification, the last look at the sealed file."""
    allow = ("aten::matrix_exp",)
    request = ExportRequest(
        str(tiny_folder()),
        tmp_path / "m.pt",
        backend="plain",
        tune="full",
        tune_shapes=((1, 8),),
        allow_operators=allow,
    )
    report = export(request)
    assert report.manifest.verified
    assert report.manifest.timings
    with pytest.raises(OperatorNotAllowedError, match="aten::matrix_exp"):
        load(report.output)
    assert load(report.output, allow_operators=allow)


def test_malformed_names_in_a_request_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="allow_operators has 'matrix_exp'"):
        ExportRequest("x", tmp_path / "m.pt", allow_operators=("matrix_exp",))


class Uninitialised(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.empty(x.shape).copy_(x) + x.new_empty(x.shape).fill_(1.0) + torch.empty_like(x).fill_(1.0)


def test_new_memory_is_zeroed_in_what_is_written() -> None:
    module = torch.jit.freeze(torch.jit.trace(Uninitialised().eval(), torch.zeros(2, 3)))
    assert zero_new_memory(module) == 3
    assert "empty" not in module.code
    assert torch.equal(module(torch.ones(4, 5)), torch.full((4, 5), 3.0))


@pytest.mark.slow
def test_a_sample_of_the_fuzz_finds_nothing() -> None:
    names = ["aten::index_select", "aten::gather", "aten::conv2d", "aten::layer_norm", "aten::embedding", "aten::mm"]
    # clean start: the program's own folder comes first
    done = run([sys.executable, ROOT / "tests/fuzz_operators.py", "--calls", "40", "--only", *names])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_fuzz_finds_what_reads_out_of_bounds() -> None:
    """Of an operator that is not on the list, for it trusts its indices."""
    # clean start: the program's own folder comes first
    done = run([sys.executable, ROOT / "tests/fuzz_operators.py", "--calls", "400", "--only", "aten::_weight_norm"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SIGSEGV aten::_weight_norm" in done.stdout


TAKEN = "h = (CONSTANTS.c2).get_data_handle()"
USED = "y = ops.torch_ipex.ipex_linear(x, x, None, h, None)"


@pytest.mark.parametrize(
    "lines",
    [
        "y = ops.torch_ipex.ipex_linear(x, x, None, x, None)",
        "y = ops.torch_ipex.ipex_linear(x, x, None, torch.full([1], 4096, dtype=4), None)",
        "y = ops.torch_ipex.ipex_linear(x, x, None, torch.add((CONSTANTS.c2).get_data_handle(), 8), None)",
        "y = ops.torch_ipex.ipex_linear(x, x, [None, (CONSTANTS.c2).get_data_handle()], x, None)",
        f"{TAKEN}\n    h = x\n    {USED}",
        f"{TAKEN}\n    z, h, = x, x\n    {USED}",
        f"{TAKEN}\n    for h in x:\n      {USED}",
        f"h : Tensor = x\n    {TAKEN}\n    {USED}",
        "h = (x).get_data_handle()\n    y = ops.torch_ipex.ipex_linear(x, x, None, h, None)",
        "y = ops.torch_ipex.ipex_MKLSGEMM(x, x, None)",
    ],
)
def test_addresses_come_from_constants_alone(lines: str) -> None:
    """IPEX's operators follow the address that they are given."""
    number = Tensor("Float", (1,), True)
    constants = [number, number, Object("__torch__.torch.classes.ipex_prepack.LinearOpContext")]
    source = ast.parse(FORWARD.format(f"{TAKEN}\n    {USED}"))
    check_handles({"code/a.py": source}, constants)
    with pytest.raises(InvalidPickle, match="packed weights"):
        check_handles({"code/a.py": ast.parse(FORWARD.format(lines))}, constants)
