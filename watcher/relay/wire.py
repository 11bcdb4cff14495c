"""The relay's messages as bytes: pushes, answers and snapshot rows, each framed once.

A server's text frame is two to ten bytes of header and the payload as it stands, so a frame can be shared by all
connections that get it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from watcher.model.events import BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Cursor

SUBPROTOCOL = "balances.v1.json"
TEXT = 0x81
PING = 0x89

encode = msgspec.json.Encoder().encode


class ControlFrame(bytes):
    """A frame that holds no promise about what was sent before it: it outlives a cleared outbox."""

    __slots__ = ()


class LiveFrame(bytes):
    """The push `live`: while it has not left, the client still takes itself for lagging."""

    __slots__ = ()


class BalanceRow(msgspec.Struct, frozen=True):
    """One balance in a snapshot."""

    provider: str
    chain: str
    account: str
    token: str
    kind: str
    symbol: str | None
    amount: str
    unit: str
    decimals: int | None
    version: int
    slot: int | None
    as_of: str | None
    observed_at: str


def frame(payload: bytes) -> bytes:
    """A whole unmasked text frame."""
    return header(TEXT, len(payload)) + payload


def header(opcode: int, size: int) -> bytes:
    if size < 126:
        return bytes((opcode, size))
    if size < 65536:
        return bytes((opcode, 126)) + size.to_bytes(2)
    return bytes((opcode, 127)) + size.to_bytes(8)


KEEPALIVE = ControlFrame(header(PING, 0))
"""A ping without payload: the same bytes for everybody."""


def update(cursor: str, event: bytes) -> bytes:
    """The event's bytes unopened."""
    return frame(b'{"type":"update","cursor":"%b","event":%b}' % (cursor.encode(), event))


def push(kind: str, **fields: object) -> bytes:
    return frame(encode({"type": kind, **fields}))


def answer(id_: bytes, result: Mapping[str, object]) -> ControlFrame:
    """`id_` is the client's own spelling of it."""
    return ControlFrame(frame(b'{"id":%b,"result":%b}' % (id_, encode(result))))


def refusal(id_: bytes | None, code: str, message: str, *, temporary: bool = False) -> ControlFrame:
    """An error as the answer to a command, or as a push when the message had no usable id."""
    error = {"code": code, "message": message, "temporary": temporary}
    if id_ is None:
        return ControlFrame(push("error", **error))
    return ControlFrame(frame(b'{"id":%b,"error":%b}' % (id_, encode(error))))


def rows(states: Iterable[BalanceState]) -> list[BalanceRow]:
    """What a subscriber sees of the state: not what the ledger needs for itself."""
    return [
        BalanceRow(
            state.provider,
            state.chain,
            state.account,
            state.token,
            state.kind,
            state.symbol,
            state.amount,
            state.unit,
            state.decimals,
            state.version,
            state.slot,
            state.as_of,
            state.observed_at,
        )
        for state in states
    ]


def page(
    subscription_id: str,
    cursor: Cursor,
    number: int,
    last: bool,  # noqa: FBT001 - it is a field
    states: Iterable[BalanceState],
    *,
    reason: str | None = None,
) -> bytes:
    """`reason`: why the snapshot comes unasked; stands in its first page."""
    fields: dict[str, object] = {
        "subscription_id": subscription_id,
        "cursor": str(cursor),
        "page": number,
        "last": last,
    }
    if reason is not None and number == 1:
        fields["reason"] = reason
    return push("snapshot", **fields, data=rows(states))


def shown(wanted: Filter) -> dict[str, Any]:
    """A filter as the protocol writes it: fields that match anything are absent."""
    return {name: list(values) for name in Filter.__struct_fields__ if (values := getattr(wanted, name)) is not None}
