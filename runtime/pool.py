"""`from runtime.pool import Pool`: the public place of what `runtime.serving.pool` has."""

from runtime.serving.pool import Pool

__all__ = ["Pool"]
