"""Which views stand and which go: nobody waits long for one, and none stands for ever. In virtual time."""

import functools

import anyio
import pytest
import trio
from trio.testing import MockClock

from watcher.journal.views import ViewLimits, ViewPool, open_snapshot
from watcher.model.keys import Filter
from watcher.model.log import Cursor, SnapshotRevoked, Unavailable

LIMITS = ViewLimits()
BROKEN = Filter(account=("broken",))


class State:
    """What is committed, and the views of it that were begun."""

    def __init__(self):
        self.version = 0
        self.grown = False
        self.away = False
        self.begun = []
        self.views = ViewPool(self.begin, lambda: self.grown)

    async def begin(self):
        version = self.version
        await anyio.sleep(0.01)
        if self.away:
            raise Unavailable("away")
        self.begun.append(view := View(self, version))
        return view

    async def hold(self, *, anew=True):
        """Somebody who reads slowly, of a state that has changed since the last one."""
        self.version += anew
        return await self.views.acquire()


class View:
    def __init__(self, state, version):
        self.state = state
        self.version = version
        self.cursor = Cursor("e0", (version,))
        self.began = trio.current_time()
        self.ended = None

    def newest(self):
        return self.version == self.state.version

    def end(self):
        assert self.ended is None
        self.ended = trio.current_time()

    async def count(self, wanted):
        if wanted == BROKEN:
            raise Unavailable("away")
        return 3

    async def page(self, _wanted, behind, size):
        await anyio.sleep(1)
        assert self.ended is None
        return min(behind + size, 3), list(range(3))[behind : behind + size]


def virtual(test):
    @functools.wraps(test)
    def run():
        anyio.run(test, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})

    return run


@virtual
async def test_whoever_comes_waits_no_longer_than_a_space_and_every_view_lives_until_all_were_begun():
    state, waits = State(), []

    async def come():
        asked = trio.current_time()
        await state.hold()
        waits.append(trio.current_time() - asked)

    async with anyio.create_task_group() as tasks:
        for number in range(120):
            tasks.start_soon(come)
            await anyio.sleep(0.1 if number % 3 else 1.7)
    assert len(waits) == 120
    assert max(waits) <= LIMITS.space + LIMITS.look + 0.1
    assert all(view.ended is None or view.ended - view.began >= LIMITS.pressed for view in state.begun)
    assert any(view.ended for view in state.begun)
    assert len(state.views) <= LIMITS.most


@virtual
async def test_half_of_the_views_begin_at_once_and_are_given_back_by_their_last_reader():
    state = State()
    held = [await state.hold() for _ in range(LIMITS.at_once)]
    assert trio.current_time() < 1
    assert len(state.views) == LIMITS.at_once
    shared = await state.hold(anew=False)
    assert shared is held[-1]
    state.views.release(shared)
    assert shared.view.ended is None
    for one in held:
        state.views.release(one)
    assert len(state.views) == 0
    assert all(view.ended for view in state.begun)


@virtual
async def test_all_who_asked_before_a_view_began_share_it_and_who_asks_later_sees_what_came_since():
    state, found = State(), []
    first = [await state.hold() for _ in range(LIMITS.at_once)]

    async def come():
        found.append(await state.hold())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(come)
    assert len(set(found)) == 1
    assert len(state.begun) == LIMITS.at_once + 1
    assert found[0].view.version == state.version
    for one in first:
        state.views.release(one)
    state.version += 1
    assert (await state.views.acquire()).view.version == state.version


@virtual
async def test_a_view_that_is_held_for_too_long_goes_although_nobody_waits_once_its_page_is_read():
    state = State()
    one = await state.hold()
    one.busy = 1
    await anyio.sleep(LIMITS.longest - 1)
    state.views.expire()
    assert not one.over
    await anyio.sleep(1)
    state.views.expire()
    assert one.over
    assert one.view.ended is None
    one.busy = 0
    state.views.settle(one)
    assert one.view.ended
    state.views.release(one)
    assert (await state.hold(anew=False)).view is not one.view


@virtual
async def test_a_wal_that_has_grown_is_left_alone_for_a_moment_before_the_next_view_begins():
    state = State()
    one = await state.hold()
    state.grown = True
    began = trio.current_time()
    two = await state.hold()
    assert one.view.ended - one.view.began <= LIMITS.pressed + LIMITS.look
    assert LIMITS.pause <= two.view.began - one.view.ended <= LIMITS.pause + 2 * LIMITS.look
    assert trio.current_time() - began <= LIMITS.pressed + LIMITS.pause + 3 * LIMITS.look
    state.views.close()
    assert all(view.ended for view in state.begun)


@virtual
async def test_who_cannot_begin_one_is_told_and_who_gives_up_waiting_holds_up_nobody():
    state = State()
    state.away = True
    with pytest.raises(Unavailable):
        await state.hold()
    state.away = False
    for _ in range(LIMITS.at_once):
        await state.hold()
    with anyio.move_on_after(1) as scope:
        await state.hold()
    assert scope.cancelled_caught
    with anyio.fail_after(LIMITS.space + LIMITS.look):
        await state.hold()
    assert len(state.views) == LIMITS.at_once + 1


@virtual
async def test_a_snapshot_is_read_in_pages_and_released_once_however_often_it_is_closed():
    state = State()
    one, two = [await open_snapshot(state.views, Filter()) for _ in range(2)]
    assert (one.rows, one.cursor) == (3, Cursor("e0", (0,)))
    assert [await one.page(2) for _ in range(3)] == [[0, 1], [2], []]
    one.close()
    one.close()
    with pytest.raises(SnapshotRevoked):
        await one.page(2)
    assert await two.page(3) == [0, 1, 2]
    two.close()
    assert [view.ended for view in state.begun] == [trio.current_time()]


@virtual
async def test_a_snapshot_that_is_taken_away_gives_the_page_that_is_being_read_and_no_further_one():
    state, pages = State(), []
    one = await open_snapshot(state.views, Filter())

    async def read():
        pages.append(await one.page(2))

    await anyio.sleep(LIMITS.longest)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        state.views.expire()
        assert one.over
        assert state.begun[0].ended is None
    assert pages == [[0, 1]]
    assert state.begun[0].ended
    with pytest.raises(SnapshotRevoked):
        await one.page(2)
    one.close()


@virtual
async def test_a_snapshot_whose_rows_cannot_be_counted_holds_no_view():
    state = State()
    with pytest.raises(Unavailable):
        await open_snapshot(state.views, BROKEN)
    assert len(state.views) == 0
    assert state.begun[0].ended
