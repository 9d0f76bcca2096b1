"""The feed: the order and the states of its stream, however far it reads ahead; errors where they belong."""

import threading

import pytest

from videmo_jax.training.feed import DeviceFeed


class Numbers:
    """A stream of numbers that fails at one of them."""

    def __init__(self, fails_at=None):
        self.next, self.fails_at = 0, fails_at

    def __next__(self):
        if self.next == self.fails_at:
            raise ValueError(f"number {self.next} is bad")
        self.next += 1
        return self.next - 1

    @property
    def state(self):
        return {"next": self.next}


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_batches_come_in_order_with_the_state_after_each(ahead):
    with DeviceFeed(Numbers(), lambda n: n * 10, ahead=ahead) as feed:
        fed = [feed.take() for _ in range(20)]
    assert [each.batch for each in fed] == [10 * n for n in range(20)]
    assert [each.before["next"] for each in fed] == list(range(20))
    assert [each.after["next"] for each in fed] == list(range(1, 21))
    assert all(each.waited >= 0 for each in fed)


def test_only_time_in_which_the_devices_are_idle_is_waited():
    release = threading.Event()

    class Slow(Numbers):
        def __next__(self):
            release.wait()
            return super().__next__()

    asked = []

    def busy():
        asked.append(True)
        if len(asked) == 3:
            release.set()
        return True

    with DeviceFeed(Slow(), lambda n: n) as feed:
        assert feed.take(busy).waited == 0.0
    assert len(asked) >= 3  # it stayed until the batch came


def test_an_error_is_raised_at_its_batch_and_not_before():
    with DeviceFeed(Numbers(fails_at=3), lambda n: n) as feed:
        assert [feed.take().batch for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="number 3 is bad"):
            feed.take()


def test_leaving_ends_the_thread_while_it_waits_for_room():
    with DeviceFeed(Numbers(), lambda n: n, ahead=1) as feed:
        feed.take()
        thread = feed._thread
    assert not thread.is_alive()
