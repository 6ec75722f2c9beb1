"""The public import path `from runtime.pool import Pool, GenerationPool`; the code is in `runtime.serving`."""

from runtime.serving.generation_pool import GenerationPool
from runtime.serving.pool import Pool

__all__ = ["GenerationPool", "Pool"]
