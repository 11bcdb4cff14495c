"""What is committed, as records: events as CloudEvents in binary mode, states, notes, the health of providers. Pure."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from watcher.journal import Batch
from watcher.journal.kafka.closing_records import closing_id, closing_record
from watcher.journal.kafka.internal_records import note_records
from watcher.journal.kafka.records import CHANGED, CONTENT_TYPE, CROSSED, Headers, OutgoingRecord, TopicNames
from watcher.journal.record_limits import MAX_RECORD_BYTES, UNENCODABLE, UNPARSABLE, refuse_unfit, too_large
from watcher.model.alerts import Crossing
from watcher.model.events import BalanceChanged, Codec, CommitRow, ProviderHealth
from watcher.model.keys import Key
from watcher.model.past import Closing


class Encoder:
    """Batches as records, in one encoding. `source` is the beginning of every event's `ce_source`."""

    def __init__(self, topics: TopicNames, codec: Codec, source: str) -> None:
        self._topics = topics
        self._codec = codec
        self._source = source
        self._content_type = (CONTENT_TYPE, codec.content_type.encode())

    def batch(self, epoch: str, batch: Batch) -> list[OutgoingRecord]:
        """Every event of the log `epoch` beside the state it leads to, then crossings, closings and notes. Raises Rejected."""
        records: list[OutgoingRecord] = []
        unfit: dict[str, str] = {}
        for key, make in self._balances(epoch, batch):
            try:
                made = list(make())
            except UNENCODABLE as error:
                unfit[str(key)] = f"not to be encoded: {error}"
                continue
            if (size := max(map(_size, made))) > MAX_RECORD_BYTES:
                unfit[str(key)] = too_large(size)
            elif not Key.parsable(str(key)):
                unfit[str(key)] = UNPARSABLE
            records += made
        refuse_unfit(unfit)
        first = next((row.state for row in batch.rows), None)
        crossed = next(chain((crossing.id for crossing in batch.crossings), map(closing_id, batch.closings)), None)
        for name, note in batch.notes.items():
            records += note_records(self._topics.internal, name, note, beside=first, crossed=crossed)
        return records

    def _balances(self, epoch: str, batch: Batch) -> Iterator[tuple[Key, Callable[[], Iterable[OutgoingRecord]]]]:
        """Of each row, crossing and closing the key, and what makes its records."""
        for row in batch.rows:
            yield row.state.key, partial(self._row, epoch, row)
        for crossing in batch.crossings:
            yield crossing.key, partial(self._crossing, epoch, crossing)
        for closing in batch.closings:
            yield closing.balance.key, partial(self._closing, closing)

    def _row(self, epoch: str, row: CommitRow) -> Iterator[OutgoingRecord]:
        key = str(row.state.key).encode()
        if row.event is not None:
            headers = self._headers(epoch, CHANGED, key, row.event)
            yield OutgoingRecord(self._topics.changed, key, self._codec.encode(row.event), headers)
        yield OutgoingRecord(self._topics.state, key, self._codec.encode(row.state), [self._content_type])

    def _crossing(self, epoch: str, crossing: Crossing) -> Iterator[OutgoingRecord]:
        key = str(crossing.key).encode()
        headers = self._headers(epoch, CROSSED, key, crossing)
        yield OutgoingRecord(self._topics.crossed, key, self._codec.encode(crossing), headers)

    def _closing(self, closing: Closing) -> Iterator[OutgoingRecord]:
        yield closing_record(self._topics.closing, self._codec, closing)

    def _headers(self, epoch: str, type_: bytes, key: bytes, event: BalanceChanged | Crossing) -> Headers:
        return [
            ("ce_specversion", b"1.0"),
            ("ce_type", type_),
            ("ce_source", f"{self._source}/{epoch}/{event.provider}".encode()),
            ("ce_id", event.id.encode()),
            ("ce_time", event.observed_at.encode()),
            ("ce_subject", key),
            ("ce_balanceversion", b"%d" % event.version),
            self._content_type,
        ]

    def health(self, health: ProviderHealth) -> OutgoingRecord:
        return OutgoingRecord(
            self._topics.heartbeat, health.provider.encode(), self._codec.encode(health), [self._content_type]
        )


def _size(record: OutgoingRecord) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key) + len(record.value or b"") + headers
