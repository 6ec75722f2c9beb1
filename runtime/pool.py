"""The public import path `from runtime.pool import Pool`; the code is in `runtime.serving.pool`."""

from runtime.serving.pool import Pool

__all__ = ["Pool"]
