"""Keep the warnings of other packages off the user's screen.

During an export, Python warnings and the log lines of the packages below go to this project's logger at level DEBUG,
which `export-model -v` shows. Nothing is dropped.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("exporter")

_TALKATIVE = ("transformers", "huggingface_hub", "torch", "intel_extension_for_pytorch")


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.debug("%s: %s", record.name, record.getMessage())


@contextmanager
def third_parties_quiet() -> Iterator[None]:
    """Redirect during an export, then restore everything."""
    # Handlers and levels are set when a logger is first used; that must happen before they are replaced.
    from transformers.utils import logging as transformers_logging

    transformers_logging.get_logger()
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    saved = [(log, log.handlers[:], log.propagate) for log in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    for log in loggers:
        log.handlers, log.propagate = [_ToDebug()], False
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            yield
    finally:
        for item in caught:
            logger.debug("%s: %s", item.category.__name__, item.message)
        for log, handlers, propagate in saved:
            log.handlers, log.propagate = handlers, propagate
        if bars:
            transformers_logging.enable_progress_bar()
