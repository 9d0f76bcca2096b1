"""The meter: every second is counted once, in a step, waiting, or aside."""

import os
import time

import pytest

from videmo_jax.training import meter as module
from videmo_jax.training.meter import Meter, Work


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the process began, set by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_process_began", lambda: 0.0)
    return now


def test_rates_of_a_window_and_goodput_of_the_process(clock):
    clock[0] = 10.0  # imports, restoring
    meter = Meter(Work(flops=6e12, peak=4e12))
    meter.aside(2.0)  # compiling
    meter.waited(1.0)
    for _ in range(2):
        meter.took(100, 3)
    clock[0] = 20.0
    read = meter.read()
    assert read["tokens_per_second"] == 20 and read["samples_per_second"] == 0.6 and read["seconds_per_step"] == 5
    assert (read["data_wait_seconds"], read["data_wait_share"]) == (1.0, 0.1)
    assert read["goodput"] == pytest.approx(7 / 20)
    assert read["mfu"] == pytest.approx(2 * 6e12 / 7 / 4e12)
    clock[0] = 25.0  # measuring between two stages is in no step
    meter.start()
    meter.took(50, 1)
    clock[0] = 28.0
    read = meter.read()
    assert read["tokens_per_second"] == pytest.approx(50 / 3) and read["data_wait_share"] == 0
    assert read["goodput"] == pytest.approx(10 / 28)


def test_what_is_not_known_is_absent(clock):
    for work in (None, Work(flops=6e12, peak=None)):
        meter = Meter(work)
        meter.took(1, 1)
        clock[0] += 1.0
        assert not {"mfu", "hbm_bytes", "hbm_share"} & meter.read().keys()  # as on CPUs


def test_the_fullest_device_counts(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.stats = stats

        def memory_stats(self):
            return self.stats

    told = [{"peak_bytes_in_use": 6, "bytes_limit": 10}, {"peak_bytes_in_use": 8, "bytes_limit": 10}, None]
    monkeypatch.setattr(module.jax, "local_devices", lambda: map(Device, told))
    meter = Meter()
    meter.took(1, 1)
    read = meter.read()
    assert (read["hbm_bytes"], read["hbm_share"]) == (8, 0.8)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the start of a process is read from /proc")
def test_the_process_began_before_its_tests():
    age = time.perf_counter() - module._process_began()
    assert time.process_time() / (os.cpu_count() or 1) < age < 86_400
