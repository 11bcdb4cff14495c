"""The words everything else is built on: keys, readings, answers, events, state, and their encodings.

Amounts travel as canonical decimal strings (plain notation, no exponent, no trailing zeros, no `-0`), so that two
amounts are equal exactly when their strings are. `canonical` is the one place that makes them, and refuses what is
not an amount.

Times that are compared with one another inside a process are monotonic seconds (`float`). Times that are published or
persisted are wall-clock microseconds since the epoch in memory (`int`) and RFC 3339 UTC on the wire (`str`).

What may be held a million times is `gc=False`: plain data makes no cycles, and a full collection that walked it would
hold the event loop for a tenth of a second and more.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Literal, Protocol

import msgspec

Unit = Literal["base", "decimal"]
Kind = Literal["total", "settled", "unsettled", "open_orders"]
Encoding = Literal["json", "msgpack"]
Ordering = Literal["strict", "weak", "none"]
"""How far the provider's ordering field can be trusted: a chain position, a refresh time, or nothing at all."""

# A u256 has 78 digits; 100 leaves room for 18 decimals behind the largest one. Inexact is trapped, so that a result
# that does not fit is an error and never a rounded balance.
EXACT = Context(prec=100, Emin=-200, Emax=200, traps=[InvalidOperation, Inexact])
SYMBOL = 64
"""Characters of a symbol: it is for display, and what is longer is none."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AmountError(ValueError):
    """What the provider sent is not the amount of a balance: not finite, negative, or beyond 100 digits."""


def canonical(value: str | int | Decimal) -> str:
    """The one spelling of an amount: `"5E-7"` → `"0.0000005"`, `"0.50"` → `"0.5"`, `"-0"` → `"0"`.

    Raises AmountError for what cannot be a balance: NaN, an infinity, a negative number, words, more than 100 digits.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 78:
        return value.lstrip("0") or "0"  # nearly every amount in base units takes this path
    try:
        number = value if isinstance(value, Decimal) else Decimal(value)
        if not number.is_finite() or not -100 <= number.adjusted() <= 100:
            raise AmountError(f"not a finite amount of at most 100 digits: {str(value)[:60]!r}")
        number = EXACT.plus(number)
    except (ArithmeticError, ValueError) as error:
        raise AmountError(f"not an exact decimal amount: {str(value)[:60]!r}") from error
    if number < 0:
        raise AmountError(f"a balance cannot be negative: {str(value)[:60]!r}")
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.lstrip("-") if number == 0 else text


def symbol(text: str | None) -> str | None:
    """As a provider gives it, unless it is too long to be one."""
    return text if text is None or len(text) <= SYMBOL else None


def subtract(amount: str, previous: str) -> str:
    """`amount - previous`, exact, canonical but for the sign, which a delta may have."""
    difference = EXACT.subtract(Decimal(amount), Decimal(previous))
    magnitude = canonical(difference.copy_abs())  # abs() would round to the default 28 digits
    return f"-{magnitude}" if difference < 0 else magnitude


def rfc3339(micros: int) -> str:
    """Wall-clock microseconds as RFC 3339 UTC with microseconds: `2026-01-25T14:43:57.000000Z`."""
    return (EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def wall(text: str) -> int:
    """Any RFC 3339 time with an offset, as wall-clock microseconds. Raises ValueError for one without."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"a time without an offset names no instant: {text!r}")
    return (time - EPOCH) // timedelta(microseconds=1)


class Key(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """One balance. `str(key)` is the Kafka record key, the ledger key and `ce_subject`."""

    provider: str
    chain: str
    account: str
    token: str
    kind: Kind = "total"

    def __str__(self) -> str:
        return f"{self.provider}/{self.chain}/{self.account}/{self.token}/{self.kind}"

    @classmethod
    def parse(cls, text: str) -> "Key":
        """The inverse of `str`. Raises ValueError for a string that is not five parts."""
        provider, chain, account, token, kind = text.split("/")
        return msgspec.convert((provider, chain, account, token, kind), _KeyParts).key()

    @property
    def home(self) -> str:
        """What decides the partition: all balances of one account stay in order for consumers."""
        return f"{self.provider}/{self.chain}/{self.account}"


class _KeyParts(msgspec.Struct, array_like=True):
    provider: str
    chain: str
    account: str
    token: str
    kind: Kind

    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)


class Scope(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """The set of keys that one complete listing speaks for. A part that is None is not narrowed."""

    provider: str
    chain: str | None = None
    account: str | None = None
    token: str | None = None

    def covers(self, key: Key) -> bool:
        return (
            self.provider == key.provider
            and (self.chain is None or self.chain == key.chain)
            and (self.account is None or self.account == key.account)
            and (self.token is None or self.token == key.token)
        )

    @property
    def record(self) -> str:
        """The key of this listing's own record in the state. Never contains `/`, so it is never a balance."""
        parts = "\n".join(part if part is not None else "\0" for part in (self.chain, self.account, self.token))
        return f"listing:{self.provider}:{hashlib.blake2b(parts.encode(), digest_size=12).hexdigest()}"


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What one answer said of one key. `amount` None means: the provider says that there is no such balance."""

    key: Key
    amount: str | None
    """Canonical; in `unit`."""
    unit: Unit
    decimals: int | None = None
    symbol: str | None = None
    order: int | None = None
    """The ordering field as an integer that grows: a slot, or a refresh time in microseconds."""
    slot: int | None = None
    as_of: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """A good answer and when it was asked and received. A failed answer never becomes one of these."""

    provider: str
    readings: Sequence[Reading]
    ordering: Ordering
    settle: float
    """Seconds; see "From reading to change" in docs/semantics.md."""
    sent: float
    """Monotonic seconds."""
    received: float
    """Monotonic seconds."""
    observed_at: int
    """Wall-clock microseconds at `received`."""
    listing: Scope | None = None
    """Set when the answer is a listing: unless it is partial, what it covers and does not name, it says is absent."""
    fingerprint: bytes = b""
    """Equal for equal bodies, where the body alone decides what a listing says. Empty: not known."""
    partial: bool = False
    """Of a listing: something in it could not be understood, or is not in it. It proves no absence."""
    lacking: int | None = None
    """Of a listing's part: how many balances were known, where the whole lacks most of them, else 0. None: the whole."""
    most: int | None = None
    """Balances of the provider that may be known: another one is not taken in, and stays unknown. None: no bound."""


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


class Had(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An amount that a key had, and when it was replaced (wall-clock microseconds)."""

    amount: str
    replaced_at: int


class BalanceState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The last committed amount of one key and what telling its next change needs. Baselines are version 0."""

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
    had: tuple[Had, ...] = ()
    """Amounts replaced within the last `settle` seconds, oldest first."""
    unslotted: bool = False
    """This amount is an absence told without a chain position."""

    @property
    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)


class Row(msgspec.Struct, frozen=True, gc=False):
    """One change, or one baseline (`event` None), and the state it leads to."""

    state: BalanceState
    event: BalanceChanged | None = None


class ProviderHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What lets a consumer tell "unchanged" from "dead". Telemetry: it follows no law but that `time` is never ahead."""

    provider: str
    time: str
    instance: str
    watches: int
    last_success: str | None
    stalest_seconds: float | None
    paused_until: str | None
    budget_used: float
    """0..1 of the binding limit."""


class Filter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """AND over the fields, OR within one; None = any. Values are canonical."""

    provider: tuple[str, ...] | None = None
    chain: tuple[str, ...] | None = None
    account: tuple[str, ...] | None = None
    token: tuple[str, ...] | None = None

    def matches(self, key: Key) -> bool:
        return (
            (self.provider is None or key.provider in self.provider)
            and (self.chain is None or key.chain in self.chain)
            and (self.account is None or key.account in self.account)
            and (self.token is None or key.token in self.token)
        )


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """A place in the log: for each partition the position of the first event that is still to come."""

    epoch: str
    """Names the log (lower-case hex), made once with the journal."""
    positions: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.epoch}.{'-'.join(map(str, self.positions))}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The inverse of `str`. Raises ValueError for anything that `str` would not have made."""
        epoch, dot, positions = text.partition(".")
        parts = positions.split("-")
        if not dot or not epoch or set(epoch) - set("0123456789abcdef"):
            raise ValueError(f"not a cursor: {text[:80]!r}")
        if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in parts):
            raise ValueError(f"not a cursor: {text[:80]!r}")
        return cls(epoch, tuple(map(int, parts)))

    def reaches(self, other: "Cursor") -> bool:
        """Nothing that `other` still has to come before it is missing here."""
        return self.epoch == other.epoch and all(
            mine >= theirs for mine, theirs in zip(self.positions, other.positions, strict=True)
        )

    def after(self, partition: int, position: int) -> "Cursor":
        """This cursor once the event at `position` of `partition` was sent."""
        positions = list(self.positions)
        positions[partition] = max(positions[partition], position + 1)
        return Cursor(self.epoch, tuple(positions))


class JournalError(Exception):
    """Anything the journal could not do. Its text is one line that says what to do."""


class Unavailable(JournalError):
    """The journal does not answer, or the outcome of a commit is unknown: open again, restore, go on."""


class Expired(JournalError):
    """A cursor points before the oldest event that is kept, beyond the head, or into another log."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the log cannot be read from there: {reason}")
        self.reason = reason
        """`expired`, `ahead` or `epoch_changed`."""


class Outlived(JournalError):
    """A snapshot was taken away from a reader that held its view for too long. Ask again, and read faster."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """One event as it stands in the journal."""

    key: Key
    version: int
    data: bytes
    """JSON, byte for byte as committed (transcoded once where the journal holds MessagePack)."""
    partition: int
    position: int
    observed_at: int
    """Wall-clock microseconds."""


class Commit(msgspec.Struct, frozen=True):
    """A slice of the log, in order. `cursor` is the place behind it."""

    cursor: Cursor
    events: list[Published] = []
    baselines: list[BalanceState] = []
    health: list[ProviderHealth] = []


class Bounds(msgspec.Struct, frozen=True):
    """The oldest cursor that can still be followed, and the head."""

    oldest: Cursor
    head: Cursor


class Snapshot(Protocol):
    """The committed state in one consistent view, read a page at a time and never held as a whole for its reader."""

    @property
    def cursor(self) -> Cursor:
        """Where in the log it holds."""

    @property
    def rows(self) -> int:
        """How many balances it has."""

    @property
    def over(self) -> bool:
        """Its view was taken away."""

    async def page(self, size: int) -> Sequence[BalanceState]:
        """The next balances, at most `size`; none at the end. Raises Outlived, Unavailable."""

    def close(self) -> None:
        """Give the view back. May be called again."""


class Whole(msgspec.Struct):
    """A small snapshot, which is at hand and holds no view."""

    cursor: Cursor
    states: list[BalanceState]
    over: bool = False
    _read: int = 0

    @property
    def rows(self) -> int:
        return len(self.states)

    async def page(self, size: int) -> Sequence[BalanceState]:
        first, self._read = self._read, self._read + size
        return self.states[first : self._read]

    def close(self) -> None:
        pass


def event_id(epoch: str, key: Key, version: int) -> str:
    """32 hex digits; the same for the same log, key and version, whoever computes it and whenever, and for no other."""
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
        if encoding == "json":
            self._encode = msgspec.json.Encoder().encode
            self._event = msgspec.json.Decoder(BalanceChanged).decode
            self._state = msgspec.json.Decoder(BalanceState).decode
        else:
            self._encode = msgspec.msgpack.Encoder().encode
            self._event = msgspec.msgpack.Decoder(BalanceChanged).decode
            self._state = msgspec.msgpack.Decoder(BalanceState).decode

    def encode(self, record: BalanceChanged | BalanceState | ProviderHealth) -> bytes:
        return self._encode(record)

    def encode_all(self, records: Sequence[BalanceChanged] | Sequence[BalanceState]) -> list[bytes]:
        """What `encode` makes of each; for JSON in one call, since no newline stands within a record."""
        if self.encoding == "json":
            return _LINES.encode_lines(records).split(b"\n")[:-1]
        return [self._encode(record) for record in records]

    def event(self, data: bytes) -> BalanceChanged:
        """Raises msgspec.DecodeError for anything that is not a BalanceChanged."""
        return self._event(data)

    def state(self, data: bytes) -> BalanceState:
        """Raises msgspec.DecodeError for anything that is not a BalanceState."""
        return self._state(data)


JSON = Codec("json")
MSGPACK = Codec("msgpack")


def codec_of(content_type: str) -> Codec:
    """The codec that wrote a record, by its content type. Raises ValueError for one that is not ours."""
    for codec in (JSON, MSGPACK):
        if codec.content_type == content_type:
            return codec
    raise ValueError(f"not a content type of ours: {content_type!r}")


def partition_of(home: str, partitions: int) -> int:
    """Our own stable hash of `Key.home`: no edit of the watches and no client library ever moves a key."""
    return int.from_bytes(hashlib.blake2b(home.encode(), digest_size=8).digest()) % partitions


def spread(readings: Iterable[Reading], partitions: int) -> dict[int, list[Reading]]:
    """Readings by the partition that their key lives in, in order."""
    out: dict[int, list[Reading]] = {}
    for reading in readings:
        out.setdefault(partition_of(reading.key.home, partitions), []).append(reading)
    return out
