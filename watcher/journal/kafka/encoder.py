"""What is committed, as records: events as CloudEvents in binary mode, states, notes, the health of providers. Pure."""

from collections.abc import Iterator

from watcher.journal import Batch
from watcher.journal.kafka.internal_records import note_records
from watcher.journal.kafka.records import CONTENT_TYPE, OutgoingRecord, TopicNames
from watcher.journal.record_limits import MAX_RECORD_BYTES, UNENCODABLE, UNPARSABLE, refuse_unfit, too_large
from watcher.model.events import Codec, CommitRow, ProviderHealth
from watcher.model.keys import Key


class Encoder:
    """Batches as records, in one encoding. `source` is the beginning of every event's `ce_source`."""

    def __init__(self, topics: TopicNames, codec: Codec, source: str) -> None:
        self._topics = topics
        self._codec = codec
        self._source = source
        self._content_type = (CONTENT_TYPE, codec.content_type.encode())

    def batch(self, epoch: str, batch: Batch) -> list[OutgoingRecord]:
        """Every event of the log `epoch` beside the state it leads to, then the notes. Raises Rejected."""
        records: list[OutgoingRecord] = []
        unfit: dict[str, str] = {}
        for row in batch.rows:
            try:
                row_records = list(self._row(epoch, row))
            except UNENCODABLE as error:
                unfit[str(row.state.key)] = f"not to be encoded: {error}"
                continue
            if (size := max(map(_size, row_records))) > MAX_RECORD_BYTES:
                unfit[str(row.state.key)] = too_large(size)
            elif not Key.parsable(str(row.state.key)):
                unfit[str(row.state.key)] = UNPARSABLE
            records += row_records
        refuse_unfit(unfit)
        first = next((row.state for row in batch.rows), None)
        for name, note in batch.notes.items():
            records += note_records(self._topics.internal, name, note, beside=first)
        return records

    def _row(self, epoch: str, row: CommitRow) -> Iterator[OutgoingRecord]:
        key = str(row.state.key).encode()
        if row.event is not None:
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_type", b"balance.changed.v1"),
                ("ce_source", f"{self._source}/{epoch}/{row.event.provider}".encode()),
                ("ce_id", row.event.id.encode()),
                ("ce_time", row.event.observed_at.encode()),
                ("ce_subject", key),
                ("ce_balanceversion", b"%d" % row.event.version),
                self._content_type,
            ]
            yield OutgoingRecord(self._topics.changed, key, self._codec.encode(row.event), headers)
        yield OutgoingRecord(self._topics.state, key, self._codec.encode(row.state), [self._content_type])

    def health(self, health: ProviderHealth) -> OutgoingRecord:
        return OutgoingRecord(
            self._topics.heartbeat, health.provider.encode(), self._codec.encode(health), [self._content_type]
        )


def _size(record: OutgoingRecord) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key) + len(record.value or b"") + headers
