"""A journal of somebody else's keeps what every journal must keep, and the daemon runs on it."""

import pytest

from tests.journal.acme_memory import MemoryJournal
from tests.journal.conformed import OnThird
from watcher.journal.views import ViewLimits
from watcher.testing.journal_conformance import JournalConformance

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestConformance(OnThird, JournalConformance):
    @pytest.fixture
    async def hasty(self, log):
        return MemoryJournal(log, ViewLimits(longest=0.0))
