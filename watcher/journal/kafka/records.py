"""The records of the topics, as bytes: what each may hold, and how they are read. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from watcher.journal import WrongJournal
from watcher.model.events import JSON, MSGPACK, BalanceState, ProviderHealth, codec_of
from watcher.model.keys import Key
from watcher.model.log import Published
from watcher.model.times import parse_rfc3339
from watcher.redaction.safe_text import one_line

Headers = list[tuple[str, bytes]]
ConsumedRecord = Any
"""An aiokafka ConsumerRecord. All of ours have a key and headers, which its type does not know."""

CONTENT_TYPE = "content-type"
CHANGED = b"balance.changed.v1"
CROSSED = b"balance.crossed.v1"
"""`ce_type` of an event."""


class TopicNames(NamedTuple):
    """The names of the topics of the log, under the configured prefix."""

    changed: str
    state: str
    """Balances alone: whoever builds a table on it finds nothing else there."""
    internal: str
    """What is nobody else's business: markers, owners, notes."""
    heartbeat: str
    crossed: str
    """Crossings of alerts, kept as long as changes."""
    closing: str
    """What was held at the end of each day."""

    @classmethod
    def under(cls, prefix: str) -> "TopicNames":
        return cls(*(f"{prefix}balances.{name}.v1" for name in cls._fields))


def hints_topic(prefix: str) -> str:
    """Beside the log, which is read and written without it: who may do nothing else may write there."""
    return f"{prefix}balances.hints.v1"


class OutgoingRecord(NamedTuple):
    """One record to be sent to a partition of ours."""

    topic: str
    key: bytes
    value: bytes | None
    """None: a tombstone."""
    headers: Headers


def decode_event(place: int, offset: int, key: bytes, value: bytes, headers: Iterable[tuple[str, bytes]]) -> Published:
    """An event as it stands in the log; `place`: of its partition in a cursor. Raises ValueError or KeyError for a record
    that is not ours."""
    found = dict(headers)
    codec = codec_of(found[CONTENT_TYPE].decode())
    crossed = found["ce_type"] == CROSSED
    return Published(
        key=Key.parse(key.decode()),
        version=int(found["ce_balanceversion"]),
        data=value if codec is JSON else JSON.encode(codec.crossing(value) if crossed else codec.event(value)),
        partition=place,
        position=offset,
        observed_at=parse_rfc3339(found["ce_time"].decode()),
        type="crossed" if crossed else "changed",
    )


def healths(records: Iterable[ConsumedRecord]) -> Iterator[ProviderHealth]:
    """Of records of the heartbeat topic. What is no heartbeat, a tombstone too, says nothing."""
    for record in records:
        content_type = dict(record.headers).get(CONTENT_TYPE)
        codec = next((each for each in (JSON, MSGPACK) if each.content_type.encode() == content_type), None)
        if codec is not None and record.value is not None and (found := codec.health(record.value)) is not None:
            yield found


class NotABalance(ValueError):
    """A record of the state topic that none of ours has written."""


def decode_balance(key: bytes, value: bytes, headers: Iterable[tuple[str, bytes]]) -> BalanceState:
    """A record of the state topic. Raises NotABalance."""
    try:
        state = codec_of(dict(headers)[CONTENT_TYPE].decode()).state(value)
    except (KeyError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise NotABalance(str(error)) from error
    if str(state.key).encode() != key:
        raise NotABalance("its key is another one than its value says")
    return state


def foreign_records(topics: TopicNames, partition: int, key: bytes) -> WrongJournal:
    """For a record of the state topic that is not a balance."""
    name = one_line(key.decode(errors="replace"))
    return WrongJournal(
        f"topic {topics.state} holds records that are not balances ({name!r} in partition {partition}): a version before, or "
        "somebody else, wrote them; run `watcher init --new-log`, which removes them and goes on with the balances, as a new log"
    )


def state_after(event: Published, before: BalanceState | None = None) -> BalanceState:
    """What an event says of the state. Without what only a writer needs: the order and the amounts it had. `before`: the
    state until then; without one the event was the first that is known of the balance."""
    fields = msgspec.json.decode(event.data)
    appeared = fields["previous_observed_at"] if event.version == 1 else None
    fields["first_observed_at"] = appeared if before is None else before.known_since
    return msgspec.convert(fields, BalanceState)


def state_before(event: Published, after: BalanceState) -> BalanceState:
    """The state that an event came from, as far as it says; it led to `after`."""
    change = JSON.event(event.data)
    return msgspec.structs.replace(
        after,
        version=change.version - 1,
        amount=change.previous_amount,
        observed_at=change.previous_observed_at,
        slot=None,
        as_of=None,
        order=None,
        recent_amounts=(),
        absent_without_order=False,
    )
