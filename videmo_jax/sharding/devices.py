"""The devices of this process: asked for here, so that a platform that cannot start is told in one line."""

import jax

from videmo_jax.files.errors import UserError

# What each platform of JAX_PLATFORMS comes with.
EXTRAS = {"tpu": "tpu", "cuda": "cuda", "gpu": "cuda"}


class DeviceError(UserError):
    """JAX cannot start on the platform that is asked for; the message says what to install."""


def all_devices() -> list[jax.Device]:
    """All devices, of other processes too; the first call starts JAX's backend.

    Raises:
      DeviceError: it does not start: a platform's plugin or its hardware is missing.
    """
    try:
        return jax.devices()
    except Exception as error:  # a RuntimeError of many lines, or an AssertionError without a word
        platforms = jax.config.jax_platforms or "the default platform"
        extras = sorted({EXTRAS[name] for name in platforms.split(",") if name in EXTRAS})
        install = " or ".join(f"pip install -e '.[{extra}]'" for extra in extras)
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise DeviceError(
            f"jax {jax.__version__} cannot start on {platforms} ({lines[0] if lines else type(error).__name__}). "
            + (f"Is its hardware here, and its support installed ({install})? " if install else "")
            + "JAX_PLATFORMS=cpu computes on the CPU"
        ) from error


def platform() -> str:
    """«cpu», «gpu» or «tpu»."""
    return all_devices()[0].platform
