"""The candidates of jit mode: those of `export-model --backend auto`, with IPEX only if it was asked for."""

from __future__ import annotations

import dataclasses

from exporter.backends.candidates import Candidate, choose_backend, list_candidates
from runtime.errors import CpuFeatureError, ExportedModelError
from runtime.format.manifest import Precision
from runtime.host import requirements


def candidates_of(use_ipex: bool, precision: Precision) -> list[Candidate]:
    """The candidates in the order to try, until one is correct.

    Raises:
        IpexMissingError, IpexVersionError: IPEX is asked for and cannot be used.
    """
    environment = requirements.detect()
    if use_ipex:
        # It was asked for, so it must not be left out silently.
        choose_backend("ipex", environment)
    else:
        environment = dataclasses.replace(environment, ipex=None)
    return list_candidates("auto", environment, "off", precision, "keep")


def in_jit_mode(error: ExportedModelError) -> ExportedModelError:
    """The same error without advice about options of `export-model`."""
    lacking = isinstance(error, CpuFeatureError)
    remedy = "use another machine, or evaluate in fp32" if lacking else ""
    return type(error)(error.found, error.expected, remedy)
