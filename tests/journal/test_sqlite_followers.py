"""Many followers of one SQLite reader: each gets everything, and what they all stand before is read once."""

import contextlib
import random

import anyio
import pytest

from watcher.journal import Batch
from watcher.journal.sqlite.file import inline
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.testing.journal_samples import BEGAN, baseline, change, crossing, opened, reading

pytestmark = pytest.mark.anyio
MANY = 30


@pytest.fixture
def anyio_backend():
    return "asyncio"


class CountedJournal(SqliteJournal):
    """Opened by a process that reads alone; `statements` is how often it went to the file at the head."""

    def __init__(self, path):
        self.statements = 0
        super().__init__(path, encoding="json", retention=1e9, clock=lambda: BEGAN, runner=self._counted)

    def _counted(self):
        async def run(work):
            self.statements += 1
            return await inline(work)

        return run


def writing(path):
    return SqliteJournal(path, encoding="json", retention=1e9, clock=lambda: BEGAN)


class Follower:
    def __init__(self, reader, cursor, pause=lambda: 0.0):
        self.found = []
        self._reader, self._cursor, self._pause = reader, cursor, pause

    async def run(self):
        async with contextlib.aclosing(self._reader.follow(self._cursor)) as commits:
            async for commit in commits:
                self.found += [(event.type, event.position) for event in commit.events]
                assert commit.cursor.positions[0] == commit.events[-1].position + 1
                await anyio.sleep(self._pause())


async def until(condition):
    with anyio.fail_after(120):
        while not condition():  # noqa: ASYNC110 (followers look at the file a few milliseconds apart)
            await anyio.sleep(0.001)


async def test_what_all_stand_before_is_read_by_one_of_them(tmp_path):
    path = tmp_path / "balances.db"
    row = baseline("a", 0)
    async with opened(writing(path)) as (writer, _):
        await writer.commit(Batch([row]))
        made = CountedJournal(path)
        async with reading(made) as reader, anyio.create_task_group() as tasks:
            head = (await reader.bounds()).head
            followers = [Follower(reader, head) for _ in range(MANY)]
            for one in followers:
                tasks.start_soon(one.run)
            for number in range(1, 6):
                before = made.statements if number > 1 else None
                await writer.commit(Batch([row := change(row, number)]))
                await until(lambda: all(len(one.found) == number for one in followers))  # noqa: B023
                if before is not None:
                    assert made.statements - before < MANY / 2, "not one for each"
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(4))
async def test_each_gets_everything_in_order_at_its_own_pace_and_from_its_own_place(tmp_path, seed):
    chance = random.Random(seed)
    path = tmp_path / "balances.db"
    rows = [baseline(f"a{number}", 0) for number in range(5)]
    async with opened(writing(path)) as (writer, _):
        await writer.commit(Batch(rows))
        async with reading(CountedJournal(path)) as reader, anyio.create_task_group() as tasks:
            followers, started = [], []
            for number in range(1, 80):
                if chance.random() < 0.4:
                    bounds = await reader.bounds()
                    cursor = chance.choice([bounds.head, bounds.head, bounds.oldest])
                    pause = chance.choice([0.0, 0.0, 0.02])
                    followers.append(Follower(reader, cursor, lambda pause=pause: pause * chance.random()))
                    started.append(cursor.positions[0])
                    tasks.start_soon(followers[-1].run)
                    await anyio.sleep(0.01 * chance.random())
                rows = [change(row, number) for row in rows]
                crossed = [crossing(rows[0])] if chance.random() < 0.3 else []
                await writer.commit(Batch(rows, crossings=crossed))
                await anyio.sleep(chance.choice([0.0, 0.0, 0.01]) * chance.random())
            last = (await reader.bounds()).head.positions[0]
            await until(lambda: all(one.found and one.found[-1][1] == last - 1 for one in followers))
            tasks.cancel_scope.cancel()
    for one, first in zip(followers, started, strict=True):
        assert [position for _, position in one.found] == list(range(first, last))
    assert len({found for one in followers for found in one.found}) == max(len(one.found) for one in followers)
