"""Which jax and libtpu compiled a program: figures are of these, and jax is released with one line of libtpu."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


@dataclass(frozen=True)
class Versions:
    """What is installed.

    Attributes:
      python, jax, libtpu: versions; libtpu is empty where there is none.
      pinned: the libtpu that this jax was released with, such as «==0.0.50.*».
    """

    python: str
    jax: str
    libtpu: str
    pinned: str

    @property
    def warning(self) -> str:
        """What is wrong with this pair; empty where `pip install -e '.[tpu]'` would have installed it."""
        if self.libtpu in SpecifierSet(self.pinned):
            return ""
        return (
            f"libtpu {self.libtpu or 'is missing'}: jax {self.jax} is released with libtpu{self.pinned}, which a pod "
            "gets; figures of another one may not hold there. pip install -e '.[tpu]' brings it"
        )

    def to_json(self) -> dict[str, str]:
        """The versions by name."""
        return {"python": self.python, "jax": self.jax, "libtpu": self.libtpu, "libtpu_of_jax": self.pinned}


def installed() -> Versions:
    """What this process computes with."""
    try:
        libtpu = version("libtpu")
    except PackageNotFoundError:
        libtpu = ""
    needed = [Requirement(text) for text in requires("jax") or ()]
    pinned = [need.specifier for need in needed if need.name == "libtpu"]
    return Versions(platform.python_version(), version("jax"), libtpu, str(pinned[0]) if pinned else "")
