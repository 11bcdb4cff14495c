"""Whose turn it is among those who are behind, and how much of the time they get together."""

import asyncio

import pytest

from watcher.relay.read_budget import AHEAD, LONG, PART, ReadBudget, ReadQueue

pytestmark = pytest.mark.anyio


class Clock:
    """Stands still until somebody works or sleeps."""

    def __init__(self):
        self.now = self.worked = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds
        self.worked += seconds

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def share(clock):
    return ReadBudget(clock, clock, clock.sleep)


async def queued(share, asked, order):
    """The tasks of those who ask while somebody else works, in that order of asking."""
    tasks = []

    async def one(line, came, name):
        async with share.turn(line, came):
            order.append(name)

    for ask in asked:
        tasks.append(asyncio.create_task(one(*ask)))
        await asyncio.sleep(0)
    return tasks


async def test_the_lines_take_turns_and_in_that_of_pages_who_came_first_is_first(share):
    first, second = share.number(), share.number()
    asked = [
        (ReadQueue.REPLAYS, None, "replay 1"),
        (ReadQueue.REPLAYS, None, "replay 2"),
        (ReadQueue.PAGES, second, "later"),
        (ReadQueue.PAGES, second, "later still"),
        (ReadQueue.PAGES, first, "earlier"),
        (ReadQueue.LOOKS, None, "look"),
    ]
    order = []
    async with share.turn(ReadQueue.LOOKS):
        tasks = await queued(share, asked, order)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["earlier", "replay 1", "look", "later", "replay 2", "later still"]


async def test_whoever_gives_up_is_passed_over_even_when_its_turn_has_just_come(share):
    order = []
    async with share.turn(ReadQueue.LOOKS):
        tasks = await queued(share, [(ReadQueue.PAGES, None, number) for number in range(4)], order)
        tasks[0].cancel()
        await asyncio.sleep(0)
    tasks[1].cancel()  # its turn has come, and it does not know yet
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [2, 3]
    async with share.turn(ReadQueue.LOOKS):
        pass


async def test_they_work_for_a_part_of_the_time_and_a_short_look_waits_for_nothing(share, clock):
    for _ in range(10):
        async with share.turn(ReadQueue.LOOKS):
            clock.work(AHEAD / 10)
    assert clock.now == clock.worked
    for _ in range(100):
        async with share.turn(ReadQueue.PAGES):
            clock.work(0.01)
    assert clock.worked <= AHEAD + PART * clock.now + 0.01
    assert clock.now <= (clock.worked + 0.01) / PART


async def test_a_piece_with_others_working_beside_it_is_not_repaid_for_ever(share, clock):
    async with share.turn(ReadQueue.PAGES):
        clock.work(1000)
    before = clock.now
    async with share.turn(ReadQueue.PAGES):
        assert clock.now - before <= LONG / PART


async def test_who_fails_or_is_cancelled_in_its_turn_gives_it_on(share, clock):
    with pytest.raises(ZeroDivisionError):
        async with share.turn(ReadQueue.LOOKS):
            raise ZeroDivisionError
    share._allowance = -1.0
    waiting = asyncio.Event()

    async def never(_):
        waiting.set()
        await asyncio.Event().wait()

    share._sleep = never
    resting = asyncio.create_task(queued_one(share))
    await waiting.wait()
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)
    share._sleep = clock.sleep
    async with share.turn(ReadQueue.LOOKS):
        pass


async def queued_one(share):
    async with share.turn(ReadQueue.LOOKS):
        raise AssertionError("it was still resting")
