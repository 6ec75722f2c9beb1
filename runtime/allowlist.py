"""What an artifact's code may call: read from the archive before torch does.

In: an open `Archive`. Out: its code, parsed. Refuses (OperatorNotAllowedError) code that calls, or could call, anything
but arithmetic on tensors; records of no known use. The pickles are checked by `runtime.pickles`.

TorchScript has no Python in it, but its operators reach outside: `aten::save` writes files, `aten::from_file` maps
them, and custom classes load libraries. Its source is Python's syntax, so Python's parser reads it. Names count
wherever they stand, called or not: TorchScript lets code give a function another name.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from runtime.archive import MAX_CODE_BYTES, Archive
from runtime.errors import OperatorNotAllowedError

# Operators reachable as `torch.NAME` or `ops.aten.NAME`. PyTorch has two thousand of them, models use new ones with
# each release, and nearly all compute: so every public one passes but those that reach outside the call's tensors.
_PUBLIC = re.compile(r"[a-z][a-z0-9_]*", re.ASCII | re.IGNORECASE)
_DENIED = re.compile(
    r"(?:^|_)(?:file|files|save|load|open|read|write|print|dump|warn|path|library|pickle|python|record|rpc|dist|fork|wait|"
    r"awaitable|import|exec|eval|compile|getattr|setattr|data_ptr|set_data|set_|storage)(?:_|$)|file|pickle"
)
# Internal operators skip checks that their public callers make. These stand in exports or in older traces.
_INTERNAL = {
    *(
        "_convolution",
        "_convolution_mode",
        "_upsample_bicubic2d_aa",
        "_upsample_bilinear2d_aa",
        "_weight_norm",
        "_softmax",
        "_log_softmax",
        "_unsafe_view",
        "_cast_Float",
        "_cast_Long",
        "_shape_as_tensor",
    ),
    *("_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu"),
    *("__and__", "__or__", "__xor__", "__not__", "__is__", "__isnot__", "__getitem__", "__contains__", "__interpolate"),
    # In `prepare`.
    "_set_item",
    *("__lshift__", "__rshift__", "__iand__", "__ior__", "__range_length", "__derive_index"),
}
# PyTorch's own oneDNN operators, of which each takes and gives tensors alone.
_ONEDNN = {
    "mkldnn": {"_linear_pointwise", "_reorder_linear_weight"},
    "onednn": {"qlinear_prepack", "qlinear_pointwise"},
}
_PRIM = {
    "is_mkldnn",
    "NumToTensor",
    "TupleUnpack",
    "TupleConstruct",
    "ListConstruct",
    "unchecked_cast",
    "dtype",
    "device",
}
# IPEX's own. Its classes hold packed weights; every other custom class is refused, for some load libraries.
_IPEX = re.compile(
    r"(?:ipex|convolution|conv_transpose|tpp|rotary|woq|bmm|add|linear|embedding)_?\w*", re.ASCII | re.IGNORECASE
)
_IPEX_NAMESPACES = ("torch_ipex", "ipex_prepack", "ipex")
_CLASSES = ["__torch__", "torch", "classes"]
_FUNCTIONS = {"annotate", "int", "float", "bool", "len", "range", "isinstance", "unchecked_cast", "uninitialized"}
# The last line: functions of the onednn backend (exporter/backends/onednn), which are methods of its files.
_METHODS = re.compile(
    r"forward\d*|get_data_handle|append|"
    r"attend|attend_each|one_call|written_out|by_row|plan|enter|leave|pick"
)
_RESERVED = {"torch", "ops", "CONSTANTS", "__torch__"}
_SYNTAX = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign, ast.Return),
    *(ast.Expr, ast.Pass, ast.If, ast.IfExp, ast.While, ast.For, ast.Call, ast.keyword, ast.Attribute, ast.Subscript),
    *(ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.USub, ast.Load, ast.Store),
)
# Half of the syntax of a large model, with nothing in it to look at.
_LEAVES = {ast.Constant, ast.Load, ast.Store}

_RECORDS = re.compile(
    r"code/.+\.py|data\.pkl|constants\.pkl|(?:data|constants|extra|\.data)/[^/]+|"
    r"version|byteorder"
)


def check_code(archive: Archive) -> dict[str, ast.Module]:
    """Read all code, and the names of all records.

    Returns:
        The records under `code/`, parsed, by name.

    Raises:
        OperatorNotAllowedError: at the first thing that is not on the lists above.
        NotAnArtifactError, UnsafeArchiveError: a record cannot be read.
    """
    code = [name for name in archive.records if name.startswith("code/")]
    total = sum(archive.records[name].size for name in code)
    if total > MAX_CODE_BYTES:
        archive.refuse(f"{total} bytes of code", f"at most {MAX_CODE_BYTES}")
    sources: dict[str, ast.Module] = {}
    for name in archive.records:
        if not _RECORDS.fullmatch(name):
            problems: Iterator[str] = iter([f"the record {name}"])
        elif name in code:
            sources[name] = _parsed(archive, name)
            problems = _source_problems(sources[name])
        else:
            continue
        for problem in problems:
            raise _refusal(archive, name, problem)
    return sources


def _parsed(archive: Archive, name: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            # About odd escapes or comparisons in the text: of no interest here.
            warnings.simplefilter("ignore")
            return ast.parse(archive.read(name, MAX_CODE_BYTES).decode("utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        problem = f"source that cannot be parsed ({type(error).__name__})"
    raise _refusal(archive, name, problem)


def _refusal(archive: Archive, name: str, problem: str) -> OperatorNotAllowedError:
    return OperatorNotAllowedError(
        f"{archive.origin}: {name} has {problem[:200]}",
        "what exports of transformers contain",
        "do not run this file unless you know who wrote it; export the model again",
    )


def _source_problems(tree: ast.Module) -> Iterator[str]:
    # What a call stands before, known when it comes out of `pending`: parents come before their children.
    called: set[int] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if type(node) in _LEAVES:
            continue
        if not isinstance(node, _SYNTAX):
            yield f"syntax that exports do not use ({type(node).__name__})"
        if isinstance(node, ast.Call):
            called.add(id(node.func))
        if isinstance(node, ast.Attribute):
            chain, root = _chain(node)
            if problem := _chain_problem(chain, id(node) in called):
                yield problem
            if root is not None:
                pending.append(root)
            continue
        if isinstance(node, ast.Name):
            if node.id in _RESERVED or (id(node) in called and node.id not in _FUNCTIONS):
                yield f"the name {node.id} on its own"
            if isinstance(node.ctx, ast.Store) and node.id in _FUNCTIONS:
                yield f"another meaning for {node.id}"
        if isinstance(node, (ast.arg, ast.FunctionDef, ast.ClassDef)):
            name = node.arg if isinstance(node, ast.arg) else node.name
            if name in _RESERVED | _FUNCTIONS:
                yield f"another meaning for {name}"
        pending.extend(ast.iter_child_nodes(node))


def _chain(node: ast.AST) -> tuple[list[str], ast.AST | None]:
    """`a.b.c` as a list of names, or what stands before the first dot, where that is no name, and the rest."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        return [node.id, *reversed(names)], None
    return ["", *reversed(names)], node


def _chain_problem(chain: list[str], called: bool) -> str:
    name = ".".join(chain)
    if chain[0] == "torch" or chain[:2] == ["ops", "aten"]:
        operator = chain[-1]
        known = operator in _INTERNAL or (_PUBLIC.fullmatch(operator) and not _DENIED.search(operator))
        return "" if known and len(chain) == (2 if chain[0] == "torch" else 3) else f"the operator {name}"
    if chain[0] == "ops":
        known = len(chain) == 3 and (
            (chain[1] == "prim" and chain[2] in _PRIM)
            or chain[2] in _ONEDNN.get(chain[1], ())
            or (chain[1] in _IPEX_NAMESPACES and _IPEX.fullmatch(chain[2]) and not _DENIED.search(chain[2]))
        )
        return "" if known else f"the operator {name}"
    if chain[0] == "__torch__":
        return f"the class {name}" if chain[:3] == _CLASSES and chain[3:4] != ["ipex_prepack"] else ""
    # A method of a tensor is an operator by another way to write it.
    if _DENIED.search(chain[-1]) or (called and not _METHODS.fullmatch(chain[-1])):
        return f"the method {name}"
    return ""
