"""What the records say, without any broker."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.journal.kafka import records as wire
from watcher.journal.kafka.records import History, Notes, noted


def joined(records):
    notes = Notes()
    for record in records:
        notes.take(record.key, record.value, record.headers)
    return notes.whole


def cleaned(records):
    """What compaction leaves: the last of each key, in order."""
    last = {record.key: place for place, record in enumerate(records)}
    return [record for place, record in enumerate(records) if last[record.key] == place]


class TestNotesInParts:
    @given(st.lists(st.tuples(st.sampled_from(["a", "b", "b:1"]), st.binary(max_size=40)), max_size=8), st.data())
    def test_every_length_comes_back_after_every_other_and_after_cleaning(self, written, data):
        before, wire.PART_BYTES = wire.PART_BYTES, 7
        try:
            records = [record for name, note in written for record in noted("state", name, note)]
        finally:
            wire.PART_BYTES = before
        expected = dict(written)
        assert joined(records) == expected
        assert joined(cleaned(records)) == expected
        dirty = data.draw(st.integers(0, len(records)))
        assert joined([*cleaned(records[:dirty]), *records[dirty:]]) == expected

    def test_no_part_is_beyond_what_a_broker_takes_and_a_short_note_is_one_plain_record(self):
        records = list(noted("state", "schedule:x", bytes(3_000_000)))
        assert max(len(record.value) for record in records) <= 250_000
        assert [record.key for record in records][:2] == [b"schedule:x", b"schedule:x#1"]
        (short,) = noted("state", "schedule:x", bytes(250_000))
        assert short.headers == [("content-type", b"application/octet-stream")]

    def test_a_note_half_written_leaves_the_one_before(self):
        records = [*noted("state", "n", b"old"), *list(noted("state", "n", bytes(600_000)))[:2]]
        assert joined(records) == {"n": b"old"}

    def test_marks_and_balances_are_no_notes(self):
        history = History()
        history.take(b"owner", b'{"generation":1,"instance":"x"}', ())
        for record in noted("state", "limiter:x", b"1"):
            history.take(record.key, record.value, tuple(record.headers))
        assert history.restored().notes == {"limiter:x": b"1"}
        assert history.owner.instance == "x"
