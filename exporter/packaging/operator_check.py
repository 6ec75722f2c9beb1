"""Whether a draft's code names only what a consumer lets it: `runtime.load` would refuse the file otherwise.

Checked when the draft is written, whatever is verified afterwards, so that the next candidate is tried in its place.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from runtime.artifact import artifact_file
from runtime.artifact.argument_check import problems
from runtime.artifact.operator_allowlist import check_code, uses_of
from runtime.artifact.operator_lists import check_known, lists
from runtime.errors import ForbiddenOperatorError, OperatorNotAllowedError
from runtime.host.torchscript import ScriptModule

# Known only once IPEX is loaded: in the fresh processes that verify the file.
_LATER = ("torch_ipex::", "ipex::", "ipex_prepack::")
_EXPECTED = "those on the list of docs/operators.md"


def check_allowed(names: Collection[str]) -> None:
    """Refuse names of `allow_operators` that the installed torch does not have, before any work is done.

    Raises:
        OperatorNameError: naming the first one.
    """
    check_known([name for name in names if not name.startswith(_LATER)])


def check_draft(module: ScriptModule, file: Path, allow: Collection[str]) -> None:
    """Read the code of a draft, and the graphs that it was written from.

    Args:
        module: what was written.
        file: as `artifact_file.save` wrote it.
        allow: names of operators that it may call too, as `aten::name`.

    Raises:
        ForbiddenOperatorError: naming every operator that is not on the list, or the first argument that a consumer
            would not let pass.
    """
    with artifact_file.open_archive(file) as archive:
        used = {name for kind, name in uses_of(archive) if kind == "operator"}
        names = sorted(used - lists().operators - frozenset(allow))
        if names:
            options = " ".join(f"--allow-operator {name}" for name in names)
            raise ForbiddenOperatorError(
                f"the model calls {', '.join(names)}, which exported files may not call",
                _EXPECTED,
                f"try another --backend, or give {options}, here and wherever the file is loaded",
                names,
            )
        try:
            check_code(archive, allow)
        except OperatorNotAllowedError as error:
            raise ForbiddenOperatorError(
                f"the written file is one that runtime.load refuses: {error.found}", _EXPECTED, "try another --backend"
            ) from error
    for problem in problems(module, allow):
        raise ForbiddenOperatorError(
            f"the model {problem.found}, which exported files may not do",
            problem.expected,
            f"try another --backend, or give --allow-operator {problem.operator}, here and wherever the file is loaded",
            [problem.operator],
        )
