"""Members of a fleet in a test: each with a journal of its own, in one group of a real broker."""

import contextlib
import functools
import os

import anyio

from tests.journal.kafka_world import PATIENT
from watcher.app.daemon import wall
from watcher.fleet.handover import Ownership
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.membership import CutOff
from watcher.model.log import JournalError
from watcher.model.partitions import partition_of

PARTITIONS = 16
SESSION = 6.0 if "WATCHER_TEST_KAFKA" in os.environ else 3.0
"""Seconds: no stall of the machine lasts as long, and a member that dies is missed soon. A broker that is not ours allows no
shorter one by default."""
GROUP = "fleet"
CONFIG = "0" * 16
PROVIDERS = {f"bank{number}": 1.0 + number for number in range(9)}


class Member:
    """What one member was given, in order, and what it ended with."""

    def __init__(self, journal, name, providers, config):
        self.suspended = 0.0
        """Seconds that the machine has slept."""
        self.journal = journal
        self.ownership = Ownership(name, providers, config)
        self.membership = journal.membership(self.ownership.claim, lambda: anyio.current_time() + self.suspended)
        self.notices = []
        self.error = None
        self._changed = anyio.Event()

    @property
    def assignments(self):
        return [notice.assignment for notice in self.notices if not isinstance(notice, CutOff)]

    @property
    def cuts(self):
        return [notice for notice in self.notices if isinstance(notice, CutOff)]

    @property
    def owned(self):
        return set(self.assignments[-1].partitions) if self.assignments else set()

    async def read(self):
        async for notice in self.membership.notices():
            if not isinstance(notice, CutOff):
                self.ownership.assigned(notice.assignment, notice.received_at)
                if self.ownership.rejoin_at <= notice.received_at:
                    self.membership.rejoin()
            self._add(notice)

    async def run(self):
        try:
            await self.membership.run()
        except JournalError as error:
            self.error = error
        self._add()

    def _add(self, *notices):
        self.notices += notices
        self._changed.set()

    async def until(self, true, seconds=30.0):
        """Until `true(this member)`."""
        with anyio.fail_after(seconds):
            while not true(self):
                self._changed = anyio.Event()
                with anyio.move_on_after(0.2):  # it may be about another member
                    await self._changed.wait()


class Fleet:
    """Members of one group. All are gone at the end."""

    def __init__(self, address, prefix, tasks):
        self._address = address
        self._prefix = prefix
        self._tasks = tasks
        self._scopes = {}

    def start(self, name, *, static=False, providers=PROVIDERS, config=CONFIG, session=SESSION, deadlines=PATIENT):
        settings = KafkaSettings(
            topic_prefix=self._prefix,
            partitions=PARTITIONS,
            group=GROUP,
            member=name if static else None,
            session_timeout=session,
        )
        journal = KafkaJournal([self._address], settings, environ={}, clock=wall, deadlines=deadlines)
        member = Member(journal, name, providers, config)
        self._scopes[member] = anyio.CancelScope()
        self._tasks.start_soon(functools.partial(self._run, member))
        return member

    async def _run(self, member):
        with self._scopes[member]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(member.read)
                await member.run()
                tasks.cancel_scope.cancel()

    def kill(self, member):
        """It says nothing any more, and its sockets are closed."""
        self._scopes[member].cancel()

    async def shared(self, *members, providers=PROVIDERS, seconds=30.0):
        """Until all that is in use is shared by these, in one assignment."""
        with anyio.fail_after(seconds):
            while not shared(members, in_use(providers)):  # noqa: ASYNC110 (several members, no one event)
                await anyio.sleep(0.02)


def shared(members, partitions):
    if not all(member.assignments for member in members):
        return False
    owned = [partition for member in members for partition in member.owned]
    return len({member.assignments[-1].epoch for member in members}) == 1 and sorted(owned) == partitions


def in_use(providers=PROVIDERS):
    return sorted({partition_of(provider, PARTITIONS) for provider in providers})


@contextlib.asynccontextmanager
async def fleet(address, prefix):
    async with anyio.create_task_group() as tasks:
        yield Fleet(address, prefix, tasks)
        tasks.cancel_scope.cancel()
