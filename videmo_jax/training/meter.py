"""Where the time of a run goes, and what its devices make of it."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import jax


@dataclass(frozen=True)
class Work:
    """What a step asks of the chips.

    Attributes:
      flops: of the model in a step, of the global batch; not those that are computed again. None: steps differ, and
        each says its own.
      peak: FLOP/s that all chips of the mesh can do; None where that is not known, as of CPUs.
    """

    flops: float | None
    peak: float | None


class Meter:
    """Counts seconds, tokens and samples between logged steps, and seconds in steps since the process began."""

    def __init__(self, work: Work | None = None) -> None:
        """Measures utilisation where `work` is known."""
        self._work, self._began, self._in_steps = work, _process_began(), 0.0
        self.start()

    def start(self) -> None:
        """Forgets what happened since the last reading; what is done now is no part of a step."""
        self._since = time.perf_counter()
        self._tokens = self._samples = self._steps = 0
        self._flops = 0.0
        self._waited = self._aside = 0.0

    def waited(self, seconds: float) -> None:
        """The devices were idle for want of a batch."""
        self._waited += seconds

    def aside(self, seconds: float) -> None:
        """The devices were idle for something else: compiling, saving."""
        self._aside += seconds

    def took(self, tokens: int, samples: int, flops: float | None = None) -> None:
        """A step was done, of so many tokens (text and vision, without padding) and samples over all hosts.

        `flops` are those of the model in it, where `Work` does not say.
        """
        self._tokens, self._samples, self._steps = self._tokens + tokens, self._samples + samples, self._steps + 1
        self._flops += flops or 0.0

    def read(self) -> dict[str, float]:
        """Rates since the last reading, for metrics.jsonl; raises ZeroDivisionError where no step was done.

        - tokens_per_second, samples_per_second: over all hosts.
        - seconds_per_step: all of the time by the steps.
        - data_wait_seconds, data_wait_share: in which the devices were idle for want of a batch; of the time.
        - mfu: FLOP/s of the model in the time that went into steps, as a share of what the chips can do.
        - goodput: share of the time since the process began that went into steps, not into starting, compiling,
          restoring, waiting for batches, saving and measuring.
        - hbm_bytes, hbm_share: the most memory that was in use so far on the fullest device of this host.
        """
        now = time.perf_counter()
        seconds = now - self._since
        in_steps = max(seconds - self._waited - self._aside, 1e-9)
        self._in_steps += in_steps
        rates = {
            "tokens_per_second": self._tokens / seconds,
            "samples_per_second": self._samples / seconds,
            "seconds_per_step": seconds / self._steps,
            "data_wait_seconds": self._waited,
            "data_wait_share": self._waited / seconds,
            "goodput": self._in_steps / (now - self._began),
        }
        if self._work is not None and self._work.peak:
            flops = self._flops if self._work.flops is None else self._work.flops * self._steps
            rates["mfu"] = flops / in_steps / self._work.peak
        self.start()
        return rates | _memory()


def _memory() -> dict[str, float]:
    """Memory of this host's fullest device; nothing where the backend does not tell."""
    all_stats = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    peaks = [stats["peak_bytes_in_use"] for stats in all_stats if "peak_bytes_in_use" in stats]
    shares = [stats["peak_bytes_in_use"] / stats["bytes_limit"] for stats in all_stats if stats.get("bytes_limit")]
    return ({"hbm_bytes": max(peaks)} if peaks else {}) | ({"hbm_share": max(shares)} if shares else {})


def _process_began() -> float:
    """The reading of `time.perf_counter` when this process began: imports take seconds, too."""
    now = time.perf_counter()
    try:  # the 22nd field, counted after the name, which may hold anything
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):  # not Linux
        age = 0.0
    return now - max(age, 0.0)
