"""Growing pauses."""

from watcher.runtime.backoff import Backoff

BACKOFF = Backoff(0.1, 5.0)


def test_each_pause_is_twice_the_one_before_up_to_the_longest():
    assert [BACKOFF.pause(tries) for tries in range(1, 9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert BACKOFF.pause(10_000) == 5.0


def test_a_pause_follows_the_last_one_whoever_asked_for_that():
    assert [BACKOFF.after(last) for last in (0.0, 0.1, 1.0, 3.0, 60.0)] == [0.1, 0.2, 2.0, 5.0, 5.0]
