"""A record that the journal will never take costs its key alone, and is not sent again as if that would pass."""

import anyio
import msgspec
import pytest
from aiokafka import errors
from structlog.testing import capture_logs

from tests.ingest.test_committer import answer, in_virtual_time, key
from tests.ingest.test_slow_journal import SlowJournal, committing
from watcher.app.exit_status import Exit, exits_for_known_errors
from watcher.ingest.committer import Committer
from watcher.ingest.group_size import GROUP_ROWS
from watcher.ingest.rejections import RETRY
from watcher.journal import Batch, Forbidden, Rejected, WrongJournal
from watcher.journal.kafka.broker_errors import (
    AUTHORIZATION_ERRORS,
    CONFIGURATION_ERRORS,
    CREDENTIAL_ERRORS,
    RECORD_ERRORS,
    DenialTimer,
    InvalidRecord,
    journal_error,
)
from watcher.journal.kafka.deadlines import within
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.records import TopicNames
from watcher.journal.kafka.rights import DeniedRights
from watcher.journal.record_limits import MAX_RECORD_BYTES
from watcher.ledger import Ledger
from watcher.model.events import JSON, MSGPACK
from watcher.model.keys import Scope
from watcher.model.log import Unavailable
from watcher.testing.journal_samples import baseline, change

CHAIN = Scope("bank", "eip155:1")


class Picky(SlowJournal):
    """Takes no record of some accounts, and no note of some names. Where it is not `knowing`, it does not say which,
    and must be opened again."""

    def __init__(self, *poison, notes=(), knowing=True):
        super().__init__()
        self.poison = set(poison)
        self.poisoned_notes = set(notes)
        self.opened = 0
        self._knowing = knowing

    async def open(self):
        self.opened += 1
        return await super().open()

    async def commit(self, batch):
        rows = [str(row.state.key) for row in batch.rows if int(row.state.account[1:]) in self.poison]
        found = [*rows, *self.poisoned_notes.intersection(batch.notes)]
        if found:
            self.sizes.append(len(batch.rows))
            raise Rejected("too large", dict.fromkeys(found, "too large") if self._knowing else None)
        await super().commit(batch)


@pytest.mark.parametrize("knowing", [True, False])
@pytest.mark.parametrize("poison", [(0,), (999,), (17, 500, 501)])
def test_the_others_are_committed_and_it_is_told_once(knowing, poison):
    journal = Picky(*poison, knowing=knowing)

    async def main(committer):
        for order in range(1, 6):
            await committer.accept(answer(dict.fromkeys(range(1000), order), order=order, listing=CHAIN))
            await committer.flush()
        for number in poison:
            assert committer.ledger.get(key(number)).version == -1, "it is not taken for committed"

    with capture_logs() as logs:
        committing(journal, main)
    good = set(range(1000)) - set(poison)
    assert journal.amounts() == dict.fromkeys(good, "5")
    assert journal.violations() == []
    assert sorted(line["key"] for line in logs if line["event"] == "record.rejected") == sorted(
        str(key(number)) for number in poison
    )
    assert journal.opened == 1 if knowing else journal.opened < 20 * len(poison), "nor opened again for ever"


def test_one_that_was_committed_before_stands_at_what_is_committed_and_goes_on_from_there():
    journal = Picky()

    async def main(committer):
        await committer.accept(answer({1: 5, 2: 5}, order=1))
        await committer.flush()
        journal.poison = {1}
        await committer.accept(answer({1: 6, 2: 6}, order=2))
        await committer.flush()
        record = committer.ledger.get(key(1))
        assert (record.amount, record.version) == ("5", 0)
        journal.poison = set()
        for order in (3, 4):  # as after a start, a second answer proves what differs
            await committer.accept(answer({1: 7, 2: 7}, order=order))
            await committer.flush()

    committing(journal, main)
    told = [(event.previous_amount, event.amount) for event in journal.events if event.key == key(1)]
    assert told == [("5", "7")]
    assert journal.violations() == []


def test_a_baseline_that_was_not_taken_is_no_change_when_it_is_taken():
    journal = Picky(1)

    async def main(committer):
        for order in range(1, 5):
            await committer.accept(answer({1: 5, 2: 5}, order=order, listing=CHAIN))
            await committer.flush()

    async def later(committer):
        for order in range(5, 9):
            await committer.accept(answer({1: 5, 2: 5}, order=order, listing=CHAIN))
            await committer.flush()

    committing(journal, main)
    journal.poison = set()
    committing(journal, later)
    assert journal.events == []
    assert journal.amounts() == {1: "5", 2: "5"}


def test_one_that_was_not_taken_even_alone_is_left_out_for_a_while_and_tried_again_then():
    journal = Picky(1, knowing=False)

    async def main(committer):
        await committer.accept(answer({1: 5, 2: 5}, order=1))
        await committer.flush()
        opened = journal.opened
        for order in range(2, 9):
            await committer.accept(answer({1: 5, 2: order}, order=order))
            await committer.flush()
        assert journal.opened == opened
        assert committer.rejected >= 8
        journal.poison = set()
        await anyio.sleep(RETRY.first + 1)
        await committer.accept(answer({1: 5, 2: 5}, order=9))
        await committer.flush()

    committing(journal, main)
    assert journal.amounts() == {1: "5", 2: "5"}


def test_one_that_is_never_taken_is_tried_ever_more_seldom():
    journal = Picky(1, knowing=False)

    async def main():
        committer = Committer(journal, Ledger(), gather=0.01)
        async with anyio.create_task_group() as tasks:
            await tasks.start(committer.run)
            opened = []
            for order in range(1, 6 * 60):
                await committer.accept(answer({1: 5, 2: order}, order=order))
                await committer.flush()
                opened.append(journal.opened)
                await anyio.sleep(60.0)
            assert opened[59] > opened[1]
            assert opened[-1] - opened[-181] <= 2 * 3, "in three hours: with the other one, and alone"
            tasks.cancel_scope.cancel()

    in_virtual_time(main)


@pytest.mark.parametrize("knowing", [True, False])
def test_a_note_that_is_not_taken_keeps_no_row_and_no_other_note(knowing):
    journal = Picky(notes=["bad"], knowing=knowing)

    async def main(committer):
        committer.note("bad", b"1")
        committer.note("good", b"2")
        await committer.accept(answer({1: 5}, order=1))
        await committer.flush()

    committing(journal, main)
    assert journal.notes == {"good": b"2"}
    assert journal.amounts() == {1: "5"}


def test_groups_that_are_too_large_together_stay_small():
    """A topic that takes less at once than it did."""

    class Narrow(Picky):
        most = 100

        async def commit(self, batch):
            if len(batch.rows) > self.most:
                raise Rejected("too many")
            await super().commit(batch)

    journal = Narrow()

    async def main(committer):
        for order in range(1, 8):
            await committer.accept(answer(dict.fromkeys(range(GROUP_ROWS), order), order=order))
            await committer.flush()
        assert journal.opened <= 6
        journal.most = GROUP_ROWS  # it was put right
        await anyio.sleep(RETRY.longest)
        for order in range(8, 12):
            journal.sizes.clear()
            await committer.accept(answer(dict.fromkeys(range(GROUP_ROWS), order), order=order))
            await committer.flush()
        assert max(journal.sizes) == GROUP_ROWS

    committing(journal, main)
    assert journal.amounts() == dict.fromkeys(range(GROUP_ROWS), "11")
    assert journal.violations() == []


def test_stopping_with_a_record_that_is_not_taken_commits_the_others():
    journal = Picky(1)

    async def main():
        committer = Committer(journal, Ledger(), gather=0.01)
        async with anyio.create_task_group() as tasks:
            await tasks.start(committer.run)
            await committer.accept(answer({1: 5, 2: 5}, order=1))
            tasks.cancel_scope.cancel()

    in_virtual_time(main)
    assert journal.amounts() == {2: "5"}


# --- what is found unfit before anything is begun


def unfit(name):
    row = change(baseline(name, 1), 2)
    return {
        "large": msgspec.structs.replace(row, state=msgspec.structs.replace(row.state, symbol="s" * 3_000_000)),
        "large event": msgspec.structs.replace(
            row, event=msgspec.structs.replace(row.event, symbol="s" * MAX_RECORD_BYTES)
        ),
        "surrogate": msgspec.structs.replace(row, state=msgspec.structs.replace(row.state, symbol="\ud800")),
        "number": msgspec.structs.replace(row, state=msgspec.structs.replace(row.state, slot=2**70)),
    }


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
@pytest.mark.parametrize("kind", ["large", "large event", "surrogate", "number"])
def test_the_records_of_kafka_are_measured_before_a_transaction(codec, kind):
    encoder = Encoder(TopicNames.under(""), codec, "/x")
    good, bad = change(baseline("good", 1), 2), unfit("bad")[kind]
    if (kind, codec) == ("number", JSON):
        assert encoder.batch("e0", Batch([bad])), "JSON has numbers of any size"
        return
    with pytest.raises(Rejected) as raised:
        encoder.batch("e0", Batch([good, bad]))
    assert list(raised.value.records) == [str(bad.state.key)]
    assert len(encoder.batch("e0", Batch([good]))) == 2


# --- what a broker says


@pytest.mark.parametrize("kind", sorted(vars(errors)))
def test_every_error_of_the_client_passes_or_is_meant(kind):
    """Those that Kafka itself calls retriable pass."""
    error = getattr(errors, kind)
    if not (isinstance(error, type) and issubclass(error, Exception)):
        return
    meant = journal_error(error(), "committing", sending=True)
    assert not isinstance(journal_error(error(), "reading"), Rejected)
    permanent = issubclass(error, (*RECORD_ERRORS, *AUTHORIZATION_ERRORS, *CREDENTIAL_ERRORS, *CONFIGURATION_ERRORS))
    assert isinstance(meant, Unavailable) != permanent
    assert not (permanent and getattr(error, "retriable", False))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.MessageSizeTooLargeError(), Rejected),
        (errors.RecordListTooLargeError(), Rejected),
        (errors.for_code(87)(), Rejected),
        (errors.TopicAuthorizationFailedError("t"), Forbidden),
        (errors.TransactionalIdAuthorizationFailed("t"), Forbidden),
        (errors.InvalidTransactionTimeout(), WrongJournal),
        (errors.NotLeaderForPartitionError(), Unavailable),
        (errors.ProducerFenced(), Unavailable),
        (errors.CorruptRecordException(), Unavailable),  # Kafka calls it retriable, aiokafka does not
        (errors.UnknownError(), Unavailable),
    ],
)
def test_what_a_broker_says_is_told_apart(error, kind):
    wrapped = errors.KafkaError("Unexpected error during batch delivery")
    wrapped.__cause__ = error

    async def main():
        for told in (error, wrapped):
            with pytest.raises(kind, match="committing"), within(1.0, "committing", DeniedRights(), sending=True):
                raise told

    anyio.run(main)
    assert errors.for_code(87) is InvalidRecord


def test_a_right_is_missing_when_it_has_been_for_a_while_and_not_when_a_broker_came_up_twice():
    refused = DenialTimer(60.0, 15.0)
    assert [refused.persists(now) for now in (0.0, 6.0, 12.0, 18.0)] == [False, False, False, True]
    assert [refused.persists(now) for now in (5000.0, 9000.0)] == [False, False]
    refused = DenialTimer(60.0, 15.0)
    assert not refused.persists(0.0)
    refused.clear()
    assert not refused.persists(20.0)


def test_a_right_that_is_missing_ends_with_78():
    with pytest.raises(Exit) as ended, exits_for_known_errors():
        raise Forbidden("no")
    assert ended.value.status == 78
