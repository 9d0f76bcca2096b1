"""Whether what is installed is what pyproject.toml asks for: the first thing that every command looks at."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from videmo_jax.files.errors import UserError

PACKAGE = "videmo-jax"


class InstallError(UserError):
    """A package is missing, too old or too new; the message says which, and what to run."""


def check_installed(requirements: list[str] | None = None) -> None:
    """Compares versions with bounds; costs some milliseconds and imports nothing.

    Args:
      requirements: of the package; None: its own, or nothing where it was put on the path without being installed.

    Raises:
      InstallError: one is not met.
    """
    if requirements is None:
        try:
            requirements = requires(PACKAGE) or []
        except PackageNotFoundError:
            return
    for need in map(Requirement, requirements):
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(need.name)
        except PackageNotFoundError:
            raise InstallError(f"{need.name} is not installed; {PACKAGE} needs {need}: run pip install -e .") from None
        if not need.specifier.contains(found, prereleases=True):
            raise InstallError(f"{need.name} {found} is installed; {PACKAGE} needs {need}: run pip install -e .")
