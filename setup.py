"""A wheel that holds the built libraries of native operators is for one platform; without them it is for any.

Everything else about the package is in pyproject.toml. The libraries are not in the source archive:
release/build_wheel.py puts them beside its sources before the wheel is built.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

BUILT = any((Path(__file__).parent / "runtime/kernels/lib").glob("*.so"))


class PlatformDistribution(Distribution):
    """With libraries, files belong where an interpreter keeps those of its platform."""

    def has_ext_modules(self) -> bool:
        """Whether there are compiled libraries."""
        return BUILT


class PlatformWheel(bdist_wheel):
    """The libraries are loaded by torch and have nothing of Python in them: any Python 3 takes them."""

    def get_tag(self) -> tuple[str, str, str]:
        """Interpreter, ABI, platform."""
        _, _, platform = super().get_tag()
        return ("py3", "none", platform)


setup(distclass=PlatformDistribution, cmdclass={"bdist_wheel": PlatformWheel})
