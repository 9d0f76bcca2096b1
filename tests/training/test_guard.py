"""The guard: what is bad, when a leap counts, and that it stays halted."""

import jax.numpy as jnp
import numpy as np
import pytest

from videmo_jax.training.guard import DECAY, GuardSpec, fresh_guard, watch

DEFAULT = GuardSpec()


def after(losses, spec=DEFAULT, norm=1.0, tokens=1.0):
    guard = fresh_guard()
    for loss in losses:
        guard = watch(spec, guard, jnp.float32(loss), jnp.float32(norm), jnp.float32(tokens))
    return guard


def test_the_mean_is_a_weighted_average_of_the_losses():
    losses = np.random.default_rng(0).uniform(1, 5, 90)
    weights = DECAY ** np.arange(len(losses))[::-1]
    guard = after(losses)
    assert float(guard.mean) == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    assert int(guard.counted) == 90 and not guard.halted
    assert float(after([]).mean) == 0.0


@pytest.mark.parametrize(
    "bad", [dict(losses=[np.nan]), dict(losses=[np.inf]), dict(losses=[1.0], norm=np.nan)], ids=str
)
def test_what_is_no_number_halts_at_once_and_for_good(bad):
    guard = after(**bad, spec=GuardSpec(spike=0))
    assert guard.halted and int(guard.counted) == 0
    again = watch(GuardSpec(), guard, jnp.float32(1.0), jnp.float32(1.0), jnp.float32(1.0))
    assert again.halted and float(again.mean) == float(guard.mean) and int(again.counted) == 0


def test_a_leap_halts_after_the_warm_up_only():
    spec = GuardSpec(spike=2.0, warmup=5)
    assert not after([3.0] * 4 + [5.1], spec).halted
    assert not after([3.0] * 5 + [4.9], spec).halted
    assert after([3.0] * 5 + [5.1], spec).halted
    assert not after([3.0] * 5 + [0.1], spec).halted  # downwards is no harm
    assert not after([3.0] * 5 + [500.0], GuardSpec(spike=0, warmup=5)).halted


def test_batches_without_trained_tokens_are_not_counted():
    assert int(after([0.0] * 30, tokens=0.0).counted) == 0


@pytest.mark.parametrize("wrong", [dict(spike=-1.0), dict(spike=np.nan), dict(warmup=0)], ids=str)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="guard: spike"):
        GuardSpec(**wrong)
