"""The records of the topic of closings, as bytes. Pure.

A record's time is the midnight that it tells of, and not when it was written: so the topic's retention counts from the end of
the day, for a day too that was closed late, and a day is found by its time.
"""

import msgspec

from watcher.journal.kafka.records import CONTENT_TYPE, ConsumedRecord, Headers, OutgoingRecord
from watcher.model.days import midnight_after
from watcher.model.events import Codec
from watcher.model.past import Closing

DAY_HEADER = "day"
_DECODERS = {
    b"application/json": msgspec.json.Decoder(Closing).decode,
    b"application/msgpack": msgspec.msgpack.Decoder(Closing).decode,
}
_ENCODERS = {"json": msgspec.json.Encoder().encode, "msgpack": msgspec.msgpack.Encoder().encode}


def closing_record(topic: str, codec: Codec, closing: Closing) -> OutgoingRecord:
    headers = [(CONTENT_TYPE, codec.content_type.encode()), (DAY_HEADER, closing.day.encode())]
    return OutgoingRecord(topic, str(closing.balance.key).encode(), _ENCODERS[codec.encoding](closing), headers)


def time_of(headers: Headers) -> int | None:
    """Of a record that we send, in milliseconds of the wall clock; None: that at which it is sent."""
    name, day = headers[-1]
    return midnight_after(day.decode()) // 1000 if name == DAY_HEADER else None


def closing_id(closing: Closing) -> str:
    """What a note beside it names it by."""
    return f"{closing.day}/{closing.balance.key}"


def closing_id_of(record: ConsumedRecord) -> bytes:
    """The same of a record."""
    key: bytes = record.key
    return f"{day_of(record)}/".encode() + key


def day_of(record: ConsumedRecord) -> str | None:
    """Of a record that may be anybody's."""
    day = dict(record.headers).get(DAY_HEADER)
    return None if day is None else day.decode(errors="replace")


def decode_closing(record: ConsumedRecord) -> Closing | None:
    """None for what none of ours has written."""
    decode = _DECODERS.get(dict(record.headers).get(CONTENT_TYPE, b""))
    if decode is None or record.value is None:
        return None
    try:
        return decode(record.value)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
