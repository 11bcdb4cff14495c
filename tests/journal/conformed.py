"""The journals, as the conformance classes take them: two objects on one log."""

import pytest

from tests.journal.acme_memory import Log, MemoryJournal
from tests.journal.kafka_world import ready
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.testing.journal_samples import BEGAN


class OnSqlite:
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


class OnKafka:
    @pytest.fixture
    async def journal(self, kafka, prefix):
        async with ready(kafka.address, prefix) as made:
            yield made

    @pytest.fixture
    async def twin(self, kafka, prefix):
        async with ready(kafka.address, prefix) as made:
            yield made


class OnThird:
    """Somebody else's, in memory."""

    @pytest.fixture
    async def log(self):
        return Log()

    @pytest.fixture
    async def journal(self, log):
        return MemoryJournal(log)

    @pytest.fixture
    async def twin(self, log):
        return MemoryJournal(log)
