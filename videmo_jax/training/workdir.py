"""A work directory belongs to one run: its config is written at the start and compared at every return."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import read_json
from videmo_jax.files.writing import write_json

FILE = "config.json"


class WorkdirError(UserError):
    """The work directory cannot be used for this run."""


def claim(workdir: epath.Path, config: Mapping[str, Any], *, free: tuple[str, ...], started: bool) -> None:
    """Makes the directory this run's, or checks that it is.

    Args:
      workdir: is created where it does not exist.
      config: of the run, a JSON object.
      free: dotted prefixes of fields that may change from one start to the next, such as `log`.
      started: whether a checkpoint is there; before the first one a corrected config may take the place of the old.

    Raises:
      WorkdirError: it holds another run, or something that is no run.
    """
    path = workdir / FILE
    if path.exists():
        old, new = _flat(read_json(path, "remove the work directory, or name another")), _flat(config)
        changed = [
            f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and not name.startswith(free)
        ]
        if changed and started:
            raise WorkdirError(
                f"{workdir} holds another run: {'; '.join(changed[:5])}"
                + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
                + ". Name another --workdir, or remove this one"
            )
    elif workdir.exists() and any(workdir.iterdir()):
        raise WorkdirError(f"{workdir} is not empty and holds no {FILE}; name a new or empty --workdir")
    write_json(path, config)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
