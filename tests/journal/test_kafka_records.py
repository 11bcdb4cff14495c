"""What the records say, without any broker."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.journal import Batch, WrongJournal
from watcher.journal.kafka import KafkaSettings, internal_records
from watcher.journal.kafka import records as wire
from watcher.journal.kafka.dangling_transactions import parts_of
from watcher.journal.kafka.encoder import Encoder
from watcher.journal.kafka.fencing import LogIdentity, OwnerClaim
from watcher.journal.kafka.internal_records import (
    PARTITION_BY,
    LogMarker,
    NoteAssembler,
    decode_marker,
    encode_control,
)
from watcher.journal.kafka.partition_contents import PartitionContents
from watcher.journal.kafka.records import TopicNames
from watcher.journal.kafka.settings import group_id, member_name, security
from watcher.model.events import JSON, MSGPACK, BalanceState, CommitRow, changed
from watcher.runtime.config_section import SettingsError
from watcher.testing.journal_samples import crossing, health

STATE = BalanceState(
    provider="bank",
    chain="eip155:1",
    account="0x1",
    token="0x2",
    kind="total",
    symbol=None,
    version=12,
    amount="5",
    unit="base",
    decimals=None,
    slot=None,
    as_of=None,
    observed_at="2026-01-01T00:00:00.000000Z",
)


TOPICS = TopicNames.under("")


class Consumed(NamedTuple):
    topic: str
    key: bytes
    value: bytes | None
    headers: tuple
    partition: int
    offset: int


def consumed(topic, key, value, headers=(), *, partition=0, offset=0):
    return Consumed(topic, key, value, tuple(headers), partition, offset)


def note_records(name, note, beside=None):
    return internal_records.note_records("internal", name, note, beside=beside)


def joined(records):
    notes = NoteAssembler()
    for record in records:
        notes.add(record.key, record.value, record.headers)
    return notes.complete


def cleaned(records):
    """What compaction leaves: the last of each key, in order."""
    last = {record.key: place for place, record in enumerate(records)}
    return [record for place, record in enumerate(records) if last[record.key] == place]


class TestNotesInParts:
    @given(st.lists(st.tuples(st.sampled_from(["a", "b", "b:1"]), st.binary(max_size=40)), max_size=8), st.data())
    def test_every_length_comes_back_after_every_other_and_after_cleaning(self, written, data):
        before, internal_records.PART_BYTES = internal_records.PART_BYTES, 7
        try:
            records = [record for name, note in written for record in note_records(name, note)]
        finally:
            internal_records.PART_BYTES = before
        expected = dict(written)
        assert joined(records) == expected
        assert joined(cleaned(records)) == expected
        dirty = data.draw(st.integers(0, len(records)))
        assert joined([*cleaned(records[:dirty]), *records[dirty:]]) == expected

    def test_no_part_is_beyond_what_a_broker_takes_and_a_short_note_is_one_plain_record(self):
        records = list(note_records("schedule:x", bytes(3_000_000)))
        assert max(len(record.value) for record in records) <= 250_000
        assert [record.key for record in records][:2] == [b"schedule:x", b"schedule:x#1"]
        (short,) = note_records("schedule:x", bytes(250_000))
        assert short.headers == [("content-type", b"application/octet-stream")]

    def test_a_note_half_written_leaves_the_one_before(self):
        records = [*note_records("n", b"old"), *list(note_records("n", bytes(600_000)))[:2]]
        assert joined(records) == {"n": b"old"}

    def test_marks_are_no_notes(self):
        contents = PartitionContents(TOPICS, 0)
        contents.take(consumed(TOPICS.internal, b"owner", b'{"generation":1,"instance":"x"}'))
        for record in note_records("limiter:x", b"1"):
            contents.take(consumed(*record))
        assert contents.restored("ab", 0.0, released=True).notes == {"limiter:x": b"1"}
        assert contents.internal.owner.instance == "x"


class TestSource:
    @pytest.mark.parametrize(
        "source",
        ["/balance-watcher", "https://example.com:8443/a/b", "//example.com", "urn:acme:balances", "a%20b", "/a?b=c#d"],
    )
    def test_a_uri_reference_is_taken(self, source):
        assert security(KafkaSettings(source=source), {})

    @pytest.mark.parametrize(
        "source", ["/", "https://", "https://example.com/", "a b", "1:2", "/ä", "/%4", "/a\n", "/a#b#c", "/<a>"]
    )
    def test_what_is_none_or_ends_with_a_slash_is_refused(self, source):
        with pytest.raises(SettingsError, match=r"\[kafka\] source = .*: write a URI reference"):
            security(KafkaSettings(source=source), {})


class TestFleet:
    def test_a_group_is_one_of_its_log(self):
        assert group_id(KafkaSettings(topic_prefix="one.", group="g")) == "one.g"

    def test_a_member_has_the_name_that_is_written_or_stands_in_the_environment(self):
        assert member_name(KafkaSettings(group="g"), {}) is None
        assert member_name(KafkaSettings(group="g", member="a"), {}) == "a"
        assert member_name(KafkaSettings(group="g", member_env="POD"), {"POD": "watcher-0"}) == "watcher-0"

    @pytest.mark.parametrize("environ", [{}, {"POD": ""}, {"POD": "canary-1 of a key"}])
    def test_what_stands_there_and_is_no_name_is_not_shown(self, environ):
        with pytest.raises(SettingsError, match="member_env = 'POD'") as refused:
            member_name(KafkaSettings(group="g", member_env="POD"), environ)
        assert "canary" not in str(refused.value)


class TestIdentity:
    def test_the_log_that_was_met_first_is_the_one_that_every_partition_belongs_to(self):
        identity = LogIdentity(TopicNames.under(""))
        assert [identity.verify(partition, LogMarker("ab", PARTITION_BY)) for partition in (1, 0, 1)] == [
            "ab",
            "ab",
            "ab",
        ]
        with pytest.raises(WrongJournal, match=r"partition 0 of .* belongs to another log \(cd\)"):
            identity.verify(0, LogMarker("cd", PARTITION_BY))

    @pytest.mark.parametrize(
        ("marker", "rule"), [(b'{"epoch":"ab"}', "account"), (b'{"epoch":"ab","partition_by":"x"}', "x")]
    )
    def test_a_log_in_which_keys_stand_elsewhere_is_refused(self, marker, rule):
        with pytest.raises(
            WrongJournal, match=f"partitioned by {rule}, and this version partitions by provider: delete"
        ):
            LogIdentity(TopicNames.under("")).verify(0, decode_marker(marker))

    @pytest.mark.parametrize(
        ("partition", "advice"), [(0, "run `watcher init` to"), (3, "run `watcher init --new-log`")]
    )
    def test_a_partition_that_says_nothing_belongs_to_none(self, partition, advice):
        with pytest.raises(WrongJournal, match=f"has no marker.*{advice}"):
            LogIdentity(TopicNames.under("")).verify(partition, None)


class TestEvents:
    def test_an_event_and_a_state_are_read_from_their_headers_and_values(self):
        state = JSON.encode(STATE)
        event = JSON.encode(changed("e0", STATE, "1", STATE.observed_at))
        headers = [("content-type", b"application/json"), ("ce_time", STATE.observed_at.encode())]
        key = str(STATE.key).encode()
        told = [*headers, ("ce_type", b"balance.changed.v1"), ("ce_balanceversion", b"12")]
        published = wire.decode_event(3, 7, key, event, told)
        assert (published.key, published.version, published.partition, published.position) == (STATE.key, 12, 3, 7)
        assert (published.type, published.data) == ("changed", event)
        assert wire.decode_balance(key, state, headers) == STATE

    @pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.encoding)
    def test_a_crossing_is_read_as_one_and_stands_behind_the_places_of_the_changes(self, codec):
        row = CommitRow(STATE, changed("e0", STATE, "9", STATE.observed_at))
        batch = Batch([row], {"alert:1": b"1"}, [crossing(row), crossing(row, "lower")])
        records = Encoder(TOPICS, codec, "/x").batch("ab", batch)
        assert [one.topic for one in records] == [
            TOPICS.changed, TOPICS.state, TOPICS.crossed, TOPICS.crossed, TOPICS.internal,
        ]  # fmt: skip
        _, key, value, headers = records[2]
        assert headers == [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"balance.crossed.v1"),
            ("ce_source", b"/x/ab/bank"),
            ("ce_id", crossing(row).id.encode()),
            ("ce_time", STATE.observed_at.encode()),
            ("ce_subject", str(STATE.key).encode()),
            ("ce_balanceversion", b"12"),
            ("content-type", codec.content_type.encode()),
        ]
        published = wire.decode_event(5, 7, key, value, headers)
        assert (published.key, published.version, published.partition, published.position) == (STATE.key, 12, 5, 7)
        assert published.type == "crossed"
        assert JSON.crossing(published.data) == crossing(row)


class TestPartsOfATransaction:
    """What tells two records of one transaction from those of two."""

    ROW = CommitRow(STATE, changed("e0", STATE, "9", STATE.observed_at))

    def parts(self, batch):
        """By topic."""
        found = {}
        for topic, key, value, headers in Encoder(TOPICS, JSON, "/x").batch("ab", batch):
            found.setdefault(topic, set()).update(parts_of(TOPICS, [consumed(topic, key, value, headers)]))
        return found

    def test_every_topic_of_a_transaction_with_crossings_has_one_in_common_with_the_notes(self):
        found = self.parts(Batch([self.ROW], {"alert:1": b"1"}, [crossing(self.ROW)]))
        assert set(found) == {TOPICS.changed, TOPICS.state, TOPICS.crossed, TOPICS.internal}
        for topic in found:
            assert found[topic] & found[TOPICS.internal], topic

    def test_a_crossing_of_a_version_that_was_committed_before_has_nothing_in_common_with_that(self):
        before, later = self.parts(Batch([self.ROW])), self.parts(Batch([], {"alert:1": b"1"}, [crossing(self.ROW)]))
        assert later[TOPICS.crossed] & later[TOPICS.internal]
        for old in before.values():
            for new in later.values():
                assert not old & new


class TestContents:
    GOOD = (str(STATE.key).encode(), JSON.encode(STATE), [("content-type", b"application/json")])

    def test_what_an_owner_says_of_the_ends_counts_in_its_own_log_alone(self):
        owner = encode_control(OwnerClaim("x").opened(3, 4))
        for order, ends in (((b"marker", b"owner"), (3, 4)), ((b"owner", b"marker"), (0, 0))):
            found = PartitionContents(TOPICS, 0)
            for offset, key in enumerate(order):
                value = owner if key == b"owner" else b'{"epoch":"ab"}'
                found.take(consumed(TOPICS.internal, key, value, offset=offset))
            assert (found.internal.state_end, found.internal.crossed_end) == ends

    def contents(self, *records):
        found = PartitionContents(TOPICS, 2)
        for offset, record in enumerate(records):
            found.take(consumed(TOPICS.state, *record, offset=offset))
        return found.restored("ab", 0.0, released=True).states

    def test_a_balance_is_its_last_record_and_a_tombstone_is_none(self):
        assert self.contents(self.GOOD) == [STATE]
        assert self.contents(self.GOOD, (self.GOOD[0], None)) == []
        assert self.contents((b"marker", b"{}"), (b"marker", None), self.GOOD) == [STATE]

    @pytest.mark.parametrize(
        ("record", "shown"),
        [
            ((b"marker", b"{}", GOOD[2]), "marker"),
            ((b"other/eip155:1/0x1/0x2/total", *GOOD[1:]), "other/eip155:1"),
            ((GOOD[0], b"{}", GOOD[2]), "bank/eip155:1"),
            ((GOOD[0], GOOD[1], []), "bank/eip155:1"),
            ((GOOD[0], GOOD[1], [("content-type", b"application/msgpack")]), "bank/eip155:1"),
            ((GOOD[0], GOOD[1], [("content-type", b"\xff")]), "bank/eip155:1"),
            ((GOOD[0], b"[" * 100_000, GOOD[2]), "bank/eip155:1"),
            ((b"\xff\x1b[31m\n", *GOOD[1:]), "ufffd"),
        ],
    )
    def test_what_is_no_balance_is_refused_in_one_safe_line(self, record, shown):
        with pytest.raises(WrongJournal, match=r"partition 2.* run `watcher init --new-log`") as refused:
            self.contents(self.GOOD, record)
        assert shown in str(refused.value).encode("ascii", "backslashreplace").decode()
        assert str(refused.value).isprintable()

    def test_the_place_where_the_states_ended_counts_for_the_log_that_it_was_written_in(self):
        owner, marker = b'{"generation":1,"instance":"x","state_end":9}', b'{"epoch":"ab","partition_by":"provider"}'
        found = PartitionContents(TOPICS, 0)
        found.take(consumed(TOPICS.internal, b"marker", marker, offset=0))
        assert found.internal.state_end == 0
        found.take(consumed(TOPICS.internal, b"owner", owner, offset=1))
        assert found.internal.state_end == 9
        found.take(consumed(TOPICS.internal, b"marker", marker, offset=2))
        assert found.internal.state_end == 0


def test_in_the_heartbeat_topic_a_tombstone_and_what_is_no_heartbeat_say_nothing():
    headers = (("content-type", b"application/json"),)
    found = [
        consumed(TOPICS.heartbeat, b"bank", value, given)
        for value, given in ((None, headers), (JSON.encode(health("bank")), headers), (b"{}", headers), (b"{}", ()))
    ]
    assert list(wire.healths(found)) == [health("bank")]
