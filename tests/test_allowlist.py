"""What the code in an artifact may call: real exports pass; whatever reaches outside does not."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_python
from test_artifact import rewrite

from runtime import artifact, load
from runtime.allowlist import check_code
from runtime.archive import Archive
from runtime.errors import OperatorNotAllowedError, UnsafeArchiveError

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
    with artifact.opened(report.output) as archive:
        check_code(archive)


@pytest.mark.parametrize(
    "line",
    [
        "y = torch.add(x, CONSTANTS.c0)",
        "y = torch.__and__(x, x)",
        "y = ops.prim.NumToTensor(torch.size(x, 1))",
        "y = ops.torch_ipex.ipex_linear(x, CONSTANTS.c1, None, CONSTANTS.c2.get_data_handle(), None)",
        "y = annotate(List[Optional[Tensor]], [x])",
        "y = (self.linear).forward(x)",
        "y = torch.to(x, torch.device('cpu'), 6)",
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


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'id'\ntR.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x02c__torch__.torch.classes.aoti\nModel\n.",
        b"\x80\x02ctorch._utils\n_rebuild_device_tensor_from_numpy\n.",
        pickle.dumps(print, protocol=4),
        b"garbage",
        b"",
        b"\x80\x02X\xff\xff\xff\x7fab.",
    ],
)
def test_pickles(data: bytes) -> None:
    for name in ("data.pkl", "constants.pkl"):
        with pytest.raises(OperatorNotAllowedError, match=name):
            check_code(archive_of({name: data}))


def test_a_forged_artifact_is_refused_before_torch_reads_it(tiny_artifact: Path, tmp_path: Path) -> None:
    """Digests that fit, code that writes a file: PyTorch alone would run it."""
    with zipfile.ZipFile(tiny_artifact) as archive:
        (code,) = [name for name in archive.namelist() if name.endswith(".py")]
        text = archive.read(code).decode()
    first, rest = text.split("-> Tuple[Tensor]:\n", 1)
    evil = f"{first}-> Tuple[Tensor]:\n    ops.aten.save(input_ids, {str(tmp_path / 'written')!r})\n{rest}"
    path = rewrite(tiny_artifact, tmp_path / "evil.pt", {code.rsplit("/", 1)[-1]: evil.encode()})
    with pytest.raises(OperatorNotAllowedError, match=r"ops\.aten\.save"):
        load(path)
    assert not (tmp_path / "written").exists()
    ids = torch.ones(2, 16, dtype=torch.long)
    torch.jit.load(str(path))(ids, ids, ids * 0)
    assert (tmp_path / "written").exists()


@pytest.mark.fresh
def test_reading_the_code_needs_no_torch(tiny_artifact: Path) -> None:
    code = """
import sys
from runtime import artifact
from runtime.allowlist import check_code
with artifact.opened(sys.argv[1]) as archive:
    artifact.verify_parts(archive, artifact.read_manifest(archive))
    check_code(archive)
print('torch' in sys.modules)
"""
    assert run_python(code, tiny_artifact).stdout == "False\n"
