"""The journal of somebody else's, as the conformance classes take it."""

import pytest

from tests.journal.acme_memory import Log, MemoryJournal


class OnThird:
    """Two objects on one log in memory."""

    @pytest.fixture
    async def log(self):
        return Log()

    @pytest.fixture
    async def journal(self, log):
        return MemoryJournal(log)

    @pytest.fixture
    async def twin(self, log):
        return MemoryJournal(log)
