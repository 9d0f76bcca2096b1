"""Which steps are profiled, and that a profile appears."""

import jax.numpy as jnp
import pytest

from videmo_jax.training.profile import ProfileError, Profiler, Steps


@pytest.mark.parametrize("text", ["", "5", "5:0", "0:5", "-1:5", "5:", "a:b", "1:2:3", "5 : 1"])
def test_other_words_are_refused(text):
    with pytest.raises(ProfileError, match="STEP:COUNT"):
        Steps.parse(text)


def test_steps_must_be_those_of_this_start():
    steps = Steps.parse("20:5")
    assert steps == Steps(20, 24)
    steps.check(0, 24)
    steps.check(19, 30)
    for done, end, said in ((20, 30, "this start has 21 to 30"), (0, 23, "has 1 to 23"), (30, 30, "all 30 are done")):
        with pytest.raises(ProfileError, match=f"steps 20 to 24; .*{said}"):
            steps.check(done, end)


@pytest.mark.parametrize("end", [5, 3])
def test_a_profile_holds_its_steps_and_is_written_also_when_the_run_ends_early(tmp_path, end):
    with Profiler(tmp_path / "profile", Steps(3, 4)) as profiler:
        profiler.turn(0)
        for step in range(1, end + 1):
            assert profiler.edge(step) == (step in (2, 4))
            jnp.arange(4.0).sum().block_until_ready()
            profiler.turn(step)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
