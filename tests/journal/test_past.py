"""The past as journals tell it: SQLite with JSON and with MessagePack, and one of somebody else's."""

import pytest

from tests.journal.acme_memory import Log, MemoryJournal
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.testing.journal_samples import BEGAN
from watcher.testing.past_conformance import PastConformance

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestSqlite(PastConformance):
    """Each test twice: with JSON and with MessagePack in the file."""

    @pytest.fixture
    def at(self, tmp_path):
        return lambda encoding="json": SqliteJournal(
            tmp_path / "balances.db", encoding=encoding, retention=604800.0, clock=lambda: BEGAN
        )

    @pytest.fixture(params=["json", "msgpack"])
    async def journal(self, request, at):
        journal = at(request.param)
        await journal.init()
        yield journal
        await journal.close()

    @pytest.fixture
    async def twin(self, at):
        twin = at()
        yield twin
        await twin.close()


class TestThird(PastConformance):
    @pytest.fixture
    async def log(self):
        return Log()

    @pytest.fixture
    async def journal(self, log):
        return MemoryJournal(log)

    @pytest.fixture
    async def twin(self, log):
        return MemoryJournal(log)
