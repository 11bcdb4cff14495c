"""Long work in slices, in virtual time: the clock goes on by what each step takes."""

import anyio
from trio.testing import MockClock

from tests.polling import virtually
from watcher.runtime.slicing import REST, TURN, run_in_slices

STEPS = 10


def at_once(*works):
    """How long so many works take that share their turns, and in which order they end. A work: its number of steps."""
    clock, ended = MockClock(autojump_threshold=0), []

    def steps(number):
        for _ in range(number):
            clock.jump(TURN)
            yield

    async def main():
        turns = anyio.Lock()

        async def run(number):
            await run_in_slices(steps(number), turns)
            ended.append(number)

        async with anyio.create_task_group() as tasks:
            for number in works:
                tasks.start_soon(run, number)
        return anyio.current_time()

    return virtually(main, clock=clock), ended


def test_many_works_that_share_their_turns_have_no_more_of_the_time_than_one():
    for number in (1, 2, 16):
        took, _ = at_once(*[STEPS] * number)
        worked = number * STEPS * TURN
        assert took >= worked * (1 + REST) * 0.999


def test_a_short_work_waits_for_no_long_one():
    _, ended = at_once(1000, 1000, 3)
    assert ended[0] == 3
