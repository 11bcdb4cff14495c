"""The watcher with one fault planted in it, for control runs: a checker that cannot see these proves nothing.

`CHAOS_PLANTED=NAME python -m tests.chaos.planted run -c FILE`. Nothing of this is in the product: each control puts
a wrong method in the place of a right one, in this process only.
"""

import asyncio
import os
import sys
from collections import defaultdict

import msgspec

from watcher.app import cli
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.fencing import OwnerClaim
from watcher.journal.kafka.offsets import assign_at
from watcher.journal.kafka.partition_contents import PartitionContents
from watcher.journal.kafka.producer import TransactionalProducer
from watcher.journal.kafka.writer import KafkaWriter
from watcher.journal.sqlite.file import contents_of, explained, identity, open_to_write, transaction
from watcher.journal.sqlite.writer import INSERT_CROSSING, INSERT_EVENT, PUT_NOTE, PUT_STATE, SqliteWriter
from watcher.ledger import rules
from watcher.limits.budget import Budget
from watcher.limits.lease import LATE, Lease
from watcher.model.alerts import Crossing
from watcher.poller.connections import HttpConnections
from watcher.poller.poller import Poller


def restore_before_fence_kafka():
    async def restore_and_fence(self, consumer):
        contents = PartitionContents(self._topics, self.partition)
        assign_at(consumer, {self._state_partition: 0, self._internal_partition: 0})
        await self._read(consumer, contents)
        self._verify_owner(contents.internal)
        self._producer = await self._cluster.transactional_producer(self.transactional_id)
        fenced_at = self._boottime()
        await self._await_no_open_transaction()
        return contents.restored(
            self._epoch, fenced_at, released=self._claim.settles(contents.internal.owner, opened=self._was_open)
        )

    KafkaWriter._fence_and_restore = restore_and_fence


def restore_before_fence_sqlite():
    raise_fence = SqliteWriter._raise_fence

    async def opening(self):
        restored = await self._run(lambda: restore(self))
        released = await self._run(lambda: raise_fence(self, self._connection))
        return msgspec.structs.replace(restored, fenced_at=self._boottime(), released=released)

    def restore(self):
        self._close()
        self._connection = open_to_write(self._path)
        self._file = identity(self._path)
        return self._restore(0.0, released=False)

    SqliteWriter.open = opening


def send_not_awaited():
    async def require_nothing(self, sent):
        for future in sent:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)

    KafkaWriter._require_delivery = require_nothing


def no_recreate():
    """A producer goes on after a transactional request that got no answer."""
    TransactionalProducer.in_doubt = property(lambda _: False, lambda _, __: None)


def version_not_persisted():
    """State records forget the version: what comes after a restart begins again."""

    def forgetful(row):
        return msgspec.structs.replace(row, state=msgspec.structs.replace(row.state, version=0))

    rows = Encoder.batch
    Encoder.batch = lambda self, epoch, batch: rows(
        self, epoch, msgspec.structs.replace(batch, rows=list(map(forgetful, batch.rows)))
    )
    records = SqliteWriter._records
    SqliteWriter._records = lambda self, batch: records(
        self, msgspec.structs.replace(batch, rows=list(map(forgetful, batch.rows)))
    )


def no_fence():
    """A commit does not ask whether somebody else writes by now."""

    def commit(self, events, states, crossings, notes, _closings):
        with explained(self._path), transaction(self._connection):
            connection = self._connection
            connection.executemany(INSERT_EVENT, events)
            connection.executemany(INSERT_CROSSING, crossings)
            connection.executemany(PUT_STATE, states)
            connection.executemany(PUT_NOTE, notes.items())

    SqliteWriter._commit = commit


def two_transactions():
    """Events and state are not moved together."""

    def commit(self, events, states, crossings, notes, _closings):
        with self._transaction() as connection:
            connection.executemany(INSERT_EVENT, events)
            connection.executemany(INSERT_CROSSING, crossings)
            head = contents_of(connection).head
        self._head = head  # or the writer would take the file for one that was put back
        with self._transaction() as connection:
            connection.executemany(PUT_STATE, states)
            connection.executemany(PUT_NOTE, notes.items())

    SqliteWriter._commit = commit


def _spoiled(spoil):
    """What each writer commits is what `spoil(batch)` makes of the batch."""
    _spoiled_by_writer(lambda _writer, batch: spoil(batch))


def _spoiled_by_writer(spoil):
    """The same, of `spoil(writer, batch)`."""
    for writer in (SqliteWriter, KafkaWriter):
        commit = writer.commit
        writer.commit = lambda self, batch, commit=commit: commit(self, spoil(self, batch))


def crossing_dropped():
    """The first crossing of each commit is not in it; what the alert has come to is."""
    _spoiled(lambda batch: msgspec.structs.replace(batch, crossings=batch.crossings[1:]))


def crossing_doubled():
    """The first crossing of each commit stands in it twice."""
    _spoiled(lambda batch: msgspec.structs.replace(batch, crossings=[*batch.crossings[:1], *batch.crossings]))


def crossing_invented():
    """The first change of each commit crosses an alert that asks for nothing of the kind."""

    def spoil(batch):
        invented = [
            Crossing(
                id=f"{row.event.id[::-1]}",
                alert="empty",
                direction="cleared",
                threshold="0",
                amount=row.event.amount,
                previous_amount=row.event.previous_amount,
                provider=row.event.provider,
                chain=row.event.chain,
                account=row.event.account,
                token=row.event.token,
                kind=row.event.kind,
                version=row.event.version,
                observed_at=row.event.observed_at,
            )
            for row in batch.rows
            if row.event is not None and "0" not in {row.event.previous_amount, row.event.amount}
        ]
        # In its balance's place, or it would come after a later one: that is another fault.
        crossings = sorted([*batch.crossings, *invented[:1]], key=lambda crossing: crossing.version)
        return msgspec.structs.replace(batch, crossings=crossings)

    _spoiled(spoil)


def crossing_apart():
    """Crossings are gathered, and committed some time after their changes and what their alerts have come to."""
    # Each writer has its own: two that commit at once would bring them out of order, and that is another fault.
    waiting = defaultdict(list)

    def spoil(writer, batch):
        gathered = waiting[writer]
        gathered.extend(batch.crossings)
        due = [gathered.pop(0) for _ in range(max(0, len(gathered) - 20))]
        return msgspec.structs.replace(batch, crossings=due)

    _spoiled_by_writer(spoil)


def alerts_forgotten():
    """What the alerts have come to is not committed: after a restart all of them are judged as new ones."""

    def spoil(batch):
        notes = {name: note for name, note in batch.notes.items() if not name.startswith("alert:")}
        return msgspec.structs.replace(batch, notes=notes)

    _spoiled(spoil)


CROSSING_LAWS = {
    "crossing-dropped": {"a crossing is missing", "change and crossing apart"},
    "crossing-doubled": {"crossing told twice"},
    "crossing-invented": {"a crossing that is none", "change and crossing apart"},
    "crossing-apart": {"a crossing is missing", "change and crossing apart"},
    "alerts-forgotten": {
        "crossing told twice",
        "a crossing is missing",
        "a crossing that is none",
        "change and crossing apart",
    },
}
"""What each of these breaks."""
CROSSINGS = {
    "crossing-dropped": crossing_dropped,
    "crossing-doubled": crossing_doubled,
    "crossing-invented": crossing_invented,
    "crossing-apart": crossing_apart,
    "alerts-forgotten": alerts_forgotten,
}


def silent_when_busy():
    """After a start an amount must repeat itself before it is believed, which that of a busy balance does not."""
    proved = rules._proved

    def repeated(candidate, observation, proof):
        return candidate.amount == observation.amount and proved(candidate, observation, proof)

    rules._proved = repeated


def no_lease():
    """Whoever has begun asks for ever."""
    Lease.lasts = lambda self, _seconds: self._begins <= self.clock()


def slow_connect():
    """Between the grant of a request and its first byte lies a connect, of the time that one to another continent takes. No
    fault: it shows that what follows is seen because of the look alone."""
    handle = HttpConnections.handle_async_request

    async def after_a_connect(self, request):
        await asyncio.sleep(0.3)
        return await handle(self, request)

    HttpConnections.handle_async_request = after_a_connect


def lease_looked_at_late():
    """It is looked at when a request is granted, and no more where its bytes are written, after a slow connect."""
    slow_connect()
    begun = HttpConnections.__init__
    HttpConnections.__init__ = lambda self, _may_write: begun(self, lambda: True)


def doubt_stamped_at_the_fence():
    """What the former owner may have asked until its lease ended counts as asked when it was fenced."""
    restore = Budget.restore

    def earlier(self, data, now, wall, *, released, begin):
        if released:
            return restore(self, data, now, wall, released=released, begin=begin)
        sensible = restore(self, data, now, wall, released=released, begin=begin - LATE)
        self.pause(begin, remember=False)
        return sensible

    Budget.restore = earlier


def stamps_not_handed_over():
    """Each owner begins with empty windows."""
    Poller.restore = lambda _self, _notes: None


def two_owners():
    """Each member is given every partition in use, and none is fenced off: each writes under an id of its own."""
    from watcher.journal.kafka import group_assignor

    assign = group_assignor.assign

    def to_all(claims, partitions):
        given = assign(claims, partitions)
        everything = {number: held for each in given.values() for number, held in each.partitions.items()}
        return {name: msgspec.structs.replace(each, partitions=everything) for name, each in given.items()}

    group_assignor.assign = to_all
    transactional_producer = Cluster.transactional_producer
    Cluster.transactional_producer = lambda self, shared: transactional_producer(self, f"{shared}.{os.getpid()}")
    OwnerClaim.resolve = lambda _self, _found, **_: None


CONTROLS = {
    "fleet": {
        "no-lease": no_lease,
        "lease-looked-at-late": lease_looked_at_late,
        "slow-connect": slow_connect,
        "doubt-stamped-at-the-fence": doubt_stamped_at_the_fence,
        "stamps-not-handed-over": stamps_not_handed_over,
        "two-owners": two_owners,
    },
    "kafka": {
        **CROSSINGS,
        "restore-before-fence": restore_before_fence_kafka,
        "send-not-awaited": send_not_awaited,
        "no-recreate": no_recreate,
        "version-not-persisted": version_not_persisted,
    },
    "sqlite": {
        **CROSSINGS,
        "restore-before-fence": restore_before_fence_sqlite,
        "no-fence": no_fence,
        "two-transactions": two_transactions,
        "version-not-persisted": version_not_persisted,
        "silent-when-busy": silent_when_busy,
    },
}
HARMLESS = {"slow-connect"}
"""Controls that must break no law."""
FAULTS_FOR = {
    "fleet": {
        "no-lease": ["freeze"],
        "lease-looked-at-late": ["freeze"],
        "slow-connect": ["freeze"],
        "doubt-stamped-at-the-fence": ["cut_group_held"],
        "stamps-not-handed-over": ["rolling_restart", "join", "leave"],
        "two-owners": ["join"],
    },
    "kafka": {
        **{name: ["kill"] for name in CROSSINGS},
        "restore-before-fence": ["slow_twin"],
        "send-not-awaited": ["refuse_and_kill"],
        "no-recreate": ["late_end_of_half"],
        "version-not-persisted": ["kill"],
    },
    "sqlite": {
        **{name: ["kill"] for name in CROSSINGS},
        "restore-before-fence": ["slow_twin"],
        "no-fence": ["twin", "zombie"],
        "two-transactions": ["kill"],
        "version-not-persisted": ["kill"],
        "silent-when-busy": ["kill"],
    },
}
"""The faults that show each control soonest."""

if __name__ == "__main__":
    name = os.environ["CHAOS_PLANTED"]
    for planted in {
        each[name] for each in CONTROLS.values() if name in each
    }:  # the same one may be there for both journals
        planted()
    sys.exit(cli.main())
