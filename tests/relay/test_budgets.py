"""Buckets that refill, and their debts; whose turn it is among those who are behind, and how much of the time they get together."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.relay.budgets import AHEAD, LONG, PART, ReadBudget, ReadQueue, TokenBucket


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)), max_size=40))
def test_nobody_takes_more_than_is_there_at_once_and_what_has_come_since(steps):
    bucket, now, taken = TokenBucket(20, 5), 0.0, 0.0
    for later, amount in steps:
        now += later
        if bucket.left(now) >= 0:
            assert taken <= 20 + 5 * now + 1e-6
            bucket.take(amount, now)
            taken += amount


def test_a_debt_is_told_in_seconds_and_a_clock_that_stands_or_steps_back_repays_nothing():
    bucket = TokenBucket(10, 2)
    assert bucket.take(10, 100.0) == 0
    assert bucket.take(4, 100.0) == 2.0
    assert bucket.left(99.0) == -4
    assert bucket.take(0, 101.0) == 1.0
    assert bucket.left(102.0) == pytest.approx(0)
    assert bucket.left(1000.0) == 10


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
def budget(clock):
    return ReadBudget(clock, clock, clock.sleep)


async def queued(budget, asked, order):
    """The tasks of those who ask while somebody else works, in that order of asking."""
    tasks = []

    async def one(queue, came, name):
        async with budget.turn(queue, came):
            order.append(name)

    for ask in asked:
        tasks.append(asyncio.create_task(one(*ask)))
        await asyncio.sleep(0)
    return tasks


@pytest.mark.anyio
async def test_the_queues_take_turns_and_in_that_of_pages_who_came_first_is_first(budget):
    first, second = budget.number(), budget.number()
    asked = [
        (ReadQueue.REPLAYS, None, "replay 1"),
        (ReadQueue.REPLAYS, None, "replay 2"),
        (ReadQueue.PAGES, second, "later"),
        (ReadQueue.PAGES, second, "later still"),
        (ReadQueue.PAGES, first, "earlier"),
        (ReadQueue.FIRST_LOOKS, None, "look"),
    ]
    order = []
    async with budget.turn(ReadQueue.FIRST_LOOKS):
        tasks = await queued(budget, asked, order)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["earlier", "replay 1", "look", "later", "replay 2", "later still"]


@pytest.mark.anyio
async def test_whoever_gives_up_is_passed_over_even_when_its_turn_has_just_come(budget):
    order = []
    async with budget.turn(ReadQueue.FIRST_LOOKS):
        tasks = await queued(budget, [(ReadQueue.PAGES, None, number) for number in range(4)], order)
        tasks[0].cancel()
        await asyncio.sleep(0)
    tasks[1].cancel()  # its turn has come, and it does not know yet
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [2, 3]
    async with budget.turn(ReadQueue.FIRST_LOOKS):
        pass


@pytest.mark.anyio
async def test_they_work_for_a_part_of_the_time_and_a_short_look_waits_for_nothing(budget, clock):
    for _ in range(10):
        async with budget.turn(ReadQueue.FIRST_LOOKS):
            clock.work(AHEAD / 10)
    assert clock.now == clock.worked
    for _ in range(100):
        async with budget.turn(ReadQueue.PAGES):
            clock.work(0.01)
    assert clock.worked <= AHEAD + PART * clock.now + 0.01
    assert clock.now <= (clock.worked + 0.01) / PART


@pytest.mark.anyio
async def test_a_piece_with_others_working_beside_it_is_not_repaid_for_ever(budget, clock):
    async with budget.turn(ReadQueue.PAGES):
        clock.work(1000)
    before = clock.now
    async with budget.turn(ReadQueue.PAGES):
        assert clock.now - before <= LONG / PART


@pytest.mark.anyio
async def test_who_fails_or_is_cancelled_in_its_turn_gives_it_on(budget, clock):
    with pytest.raises(ZeroDivisionError):
        async with budget.turn(ReadQueue.FIRST_LOOKS):
            raise ZeroDivisionError
    budget._bucket.spend(1.0 + AHEAD)
    waiting = asyncio.Event()

    async def never(_):
        waiting.set()
        await asyncio.Event().wait()

    budget._sleep = never
    resting = asyncio.create_task(queued_one(budget))
    await waiting.wait()
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)
    budget._sleep = clock.sleep
    async with budget.turn(ReadQueue.FIRST_LOOKS):
        pass


async def queued_one(budget):
    async with budget.turn(ReadQueue.FIRST_LOOKS):
        raise AssertionError("it was still resting")
