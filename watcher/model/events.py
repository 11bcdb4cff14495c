"""Changes, the state that they lead to, and their encodings."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from watcher.model.alerts import Crossing
from watcher.model.amounts import subtract
from watcher.model.keys import Key, Kind
from watcher.model.readings import Unit

Encoding = Literal["json", "msgpack"]


class BalanceChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The amount behind one key differs from the last one committed. Version 1 of the schema."""

    id: str
    """Deterministic from the log's epoch, key and version."""
    provider: str
    chain: str
    """CAIP-2."""
    account: str
    token: str
    kind: Kind
    symbol: str | None
    """For display only."""
    version: int
    """1 for the first change after the baseline, then +1 each, without gaps."""
    previous_amount: str
    amount: str
    delta: str
    unit: Unit
    decimals: int | None
    """None: the provider did not say."""
    slot: int | None
    as_of: str | None
    """The provider's own time for the value, RFC 3339 UTC."""
    previous_observed_at: str
    """The change happened after this and not later than `observed_at`."""
    observed_at: str

    @property
    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)


class RecentAmount(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An amount that a key had, and when it was replaced (wall-clock microseconds)."""

    amount: str
    replaced_at: int


class BalanceState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The last committed amount of one key, and what it takes to judge its next change. Baselines are version 0."""

    provider: str
    chain: str
    account: str
    token: str
    kind: Kind
    symbol: str | None
    version: int
    amount: str
    unit: Unit
    decimals: int | None
    slot: int | None
    as_of: str | None
    observed_at: str
    order: int | None = None
    """The greatest ordering field seen up to this commit."""
    recent_amounts: tuple[RecentAmount, ...] = ()
    """Amounts replaced within the last `settle` seconds, oldest first."""
    absent_without_order: bool = False
    """This amount is an absence, from an answer without a chain position."""
    first_observed_at: str | None = None
    """When the balance was first known: before that it is unknown. None: `observed_at` (a baseline), or a version before this
    one has committed a change and did not note it."""

    @property
    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)

    @property
    def known_since(self) -> str | None:
        """RFC 3339; None: nobody noted it."""
        return self.observed_at if self.version == 0 and self.first_observed_at is None else self.first_observed_at


class CommitRow(msgspec.Struct, frozen=True, gc=False):
    """One change, or one baseline (`event` None), and the state it leads to."""

    state: BalanceState
    event: BalanceChanged | None = None


ProviderState = Literal["ok", "waiting", "paused", "refused", "failing"]
"""Of a provider: all is well; nothing was asked or answered yet; it is left alone for a while; it will not answer us, or
not on some watch; its answers do not come, or do not count."""


class HintSourceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a source of hints fares, for one provider."""

    source: str
    """Its name in the config; `http` and `kafka` are the doors for hints of others, `http:NAME` is one token that posts."""
    type: str
    connected: bool
    """It is there. Without it the schedule goes on alone."""
    since: str | None
    """Since when it is so; None: from the start."""
    per_second: float
    """Hints of it over the last minute, for whatever provider."""
    precision: float | None
    """0..1: how many of its hints were followed by a change, beyond what chance gives. None: none was judged yet."""


class HintsHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What hints do for one provider. Delays are medians of the last reads that showed a change, in seconds."""

    sources: tuple[HintSourceHealth, ...]
    """Those that tell of its watches, or have hinted one of them; by name."""
    hinted_delay: float | None
    """From a hint's arrival to the read. None: no such read yet."""
    unhinted_delay: float | None
    """Of reads that no hint brought forward: half of the gap to the read before."""


class UnreadAlert(msgspec.Struct, frozen=True):
    """An alert on balances that are not read (`unread_for`), as far as one provider reads them."""

    alert: str
    """Its name in the config."""
    since: str
    """Since when the first of them has been unread for so long."""
    balances: int
    """How many there are: balances, and listings."""


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Lets a consumer tell "unchanged" from "dead". Telemetry: its only law is that `time` is never ahead."""

    provider: str
    time: str
    instance: str
    watches: int
    last_success: str | None
    stalest_seconds: float | None
    paused_until: str | None
    budget_used: float
    """0..1 of the binding limit."""
    state: ProviderState
    reason: str | None
    """Why, in our words, without a key, an address or a word of the provider; at most 200 characters. None: it is `ok`."""
    since: str | None
    """Since when it is in that state."""
    hints: HintsHealth | None = None
    """None: no source tells of it, and none ever did; a heartbeat of before hints."""
    unread: tuple[UnreadAlert, ...] = ()
    """Alerts on balances that it has not read for too long, in the order of the config; not more than the first twenty."""


class _AnyHealth(ProviderHealth, frozen=True, kw_only=True):
    """As it may stand in a journal: a heartbeat of before told no state."""

    state: ProviderState = "ok"
    reason: str | None = None
    since: str | None = None


def event_id(epoch: str, key: Key, version: int) -> str:
    """32 hex digits; always the same for one log, key and version, and different for any other."""
    return hashlib.blake2b(f"{epoch}\n{key}\n{version}".encode(), digest_size=16).hexdigest()


def changed(epoch: str, state: BalanceState, previous_amount: str, previous_observed_at: str) -> BalanceChanged:
    """The event of the log `epoch` that leads to `state` from the amount before it."""
    return BalanceChanged(
        id=event_id(epoch, state.key, state.version),
        provider=state.provider,
        chain=state.chain,
        account=state.account,
        token=state.token,
        kind=state.kind,
        symbol=state.symbol,
        version=state.version,
        previous_amount=previous_amount,
        amount=state.amount,
        delta=subtract(state.amount, previous_amount),
        unit=state.unit,
        decimals=state.decimals,
        slot=state.slot,
        as_of=state.as_of,
        previous_observed_at=previous_observed_at,
        observed_at=state.observed_at,
    )


_LINES = msgspec.json.Encoder()


class Codec:
    """One wire encoding of events and state: the same structs as JSON or as MessagePack."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.content_type = f"application/{encoding}"
        self._encode: Callable[[object], bytes]
        self._event: Callable[[bytes], BalanceChanged]
        self._state: Callable[[bytes], BalanceState]
        self._health: Callable[[bytes], _AnyHealth]
        self._crossing: Callable[[bytes], Crossing]
        if encoding == "json":
            self._encode = msgspec.json.Encoder().encode
            self._event = msgspec.json.Decoder(BalanceChanged).decode
            self._state = msgspec.json.Decoder(BalanceState).decode
            self._health = msgspec.json.Decoder(_AnyHealth).decode
            self._crossing = msgspec.json.Decoder(Crossing).decode
        else:
            self._encode = msgspec.msgpack.Encoder().encode
            self._event = msgspec.msgpack.Decoder(BalanceChanged).decode
            self._state = msgspec.msgpack.Decoder(BalanceState).decode
            self._health = msgspec.msgpack.Decoder(_AnyHealth).decode
            self._crossing = msgspec.msgpack.Decoder(Crossing).decode

    def encode(self, record: BalanceChanged | BalanceState | Crossing | ProviderHealth) -> bytes:
        return self._encode(record)

    def encode_all(self, records: Sequence[BalanceChanged] | Sequence[BalanceState]) -> list[bytes]:
        """What `encode` makes of each; for JSON in one call, since no newline stands within a record."""
        if self.encoding == "json":
            return _LINES.encode_lines(records).split(b"\n")[:-1]
        return [self._encode(record) for record in records]

    def event(self, data: bytes) -> BalanceChanged:
        """Raises msgspec.DecodeError for anything that is not a BalanceChanged."""
        return self._event(data)

    def crossing(self, data: bytes) -> Crossing:
        """Raises msgspec.DecodeError for anything that is not a Crossing."""
        return self._crossing(data)

    def state(self, data: bytes) -> BalanceState:
        """Raises msgspec.DecodeError for anything that is not a BalanceState."""
        return self._state(data)

    def health(self, data: bytes) -> ProviderHealth | None:
        """None for what no version up to this one has written. It is telemetry, so nothing may fail for it."""
        try:
            found = self._health(data)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            return None
        return ProviderHealth(**msgspec.structs.asdict(found))


JSON = Codec("json")
MSGPACK = Codec("msgpack")


def codec_of(content_type: str) -> Codec:
    """The codec that wrote a record, by its content type. Raises ValueError for one that is not ours."""
    for codec in (JSON, MSGPACK):
        if codec.content_type == content_type:
            return codec
    raise ValueError(f"not a content type of ours: {content_type!r}")
