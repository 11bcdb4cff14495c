"""Messages as bytes, and back: frames are made once, and shared by all connections that get them.

A server's text frame is two to ten bytes of header and the payload as it stands.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from watcher.model.events import BalanceState
from watcher.model.log import EventType, Published
from watcher.model.watches import WatchIndex
from watcher.relay.messages import METHODS, PUSHES, AnyPush, BalanceRow, Code, Error, ErrorPush, ErrorReply, Push, Reply

encode = msgspec.json.Encoder().encode
EVENT: Mapping[EventType, bytes] = {
    "changed": b'{"type":"update","cursor":"%b",%b"event":%b}',
    "crossed": b'{"type":"crossed","cursor":"%b",%b"event":%b}',
}
TEXT = 0x81
PING = 0x89


class ControlFrame(bytes):
    """Holds no promise about what was sent before it: it outlives a cleared outbox."""

    __slots__ = ()


class LiveFrame(bytes):
    """The push `live`: while it has not left, the client still takes itself for lagging."""

    __slots__ = ()


def header(opcode: int, size: int) -> bytes:
    if size < 126:
        return bytes((opcode, size))
    if size < 65536:
        return bytes((opcode, 126)) + size.to_bytes(2)
    return bytes((opcode, 127)) + size.to_bytes(8)


def frame(payload: bytes) -> bytes:
    """A whole unmasked text frame."""
    return header(TEXT, len(payload)) + payload


KEEPALIVE = ControlFrame(header(PING, 0))
"""A ping without payload: the same bytes for everybody."""


def push(message: Push) -> bytes:
    return frame(encode(message))


def event(cursor: str, published: Published, label: bytes = b"") -> bytes:
    """The bytes of `messages.Update` or `messages.Crossed`, with the event's own unopened. Hot: once an event, and once more
    for each replay.

    `label`: what `label_of` gives.
    """
    return frame(EVENT[published.type] % (cursor.encode(), label, published.data))


def label_of(label: str | None) -> bytes:
    """The member of an event's push that tells the label of its balance; nothing without one."""
    return b"" if label is None else b'"label":%b,' % encode(label)


def reply(id_: bytes, result: Struct) -> ControlFrame:
    """`id_` is the client's own spelling of it."""
    return ControlFrame(frame(encode(Reply(Raw(id_), result))))


def error_reply(id_: bytes | None, code: Code, message: str, *, temporary: bool = False) -> ControlFrame:
    """An error as the answer to a command, or as a push when the message had no usable id."""
    if id_ is None:
        return ControlFrame(push(ErrorPush(code=code, message=message, temporary=temporary)))
    return ControlFrame(frame(encode(ErrorReply(Raw(id_), Error(code, message, temporary)))))


def rows(states: Iterable[BalanceState], watches: WatchIndex) -> list[BalanceRow]:
    """What a subscriber sees of the state: not what the ledger needs for itself, but the names that the config gives."""
    return [
        BalanceRow(
            state.provider, state.chain, state.account, state.token, state.kind, state.symbol, state.amount, state.unit,
            state.decimals, state.version, state.slot, state.as_of, state.observed_at, info.label, info.tags, info.watched,
        )
        for state in states
        for info in (watches.info(state.key),)
    ]  # fmt: skip


# Read by a client.


class _Outline(Struct, frozen=True):
    """Any message, as far as it must be looked at before its type is known."""

    type: str | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    cursor: str | UnsetType = UNSET


class Unknown(Struct, frozen=True):
    """A push of a type that we do not know: its cursor counts, like any other."""

    cursor: str | UnsetType


FromRelay = Push | Reply[Any] | ErrorReply | Unknown

_decode_push: Callable[[str | bytes], Push] = msgspec.json.Decoder(AnyPush).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_error = msgspec.json.Decoder(ErrorReply).decode
_decode_reply: dict[str, Callable[[str | bytes], Reply[Any]]] = {
    name: msgspec.json.Decoder(method.reply).decode for name, method in METHODS.items()
}


def read(text: str | bytes, method: str) -> FromRelay:
    """A message of the relay. `method`: of the command whose reply is awaited. Raises msgspec.DecodeError."""
    try:
        return _decode_push(text)
    except msgspec.ValidationError:
        outline = _decode_outline(text)
        if outline.type in PUSHES:
            raise
    if outline.type is not UNSET:
        return Unknown(outline.cursor)
    return _decode_reply[method](text) if outline.error is UNSET else _decode_error(text)
