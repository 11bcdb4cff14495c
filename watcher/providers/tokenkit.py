"""TokenKit on Starknet: pairs of account and token twenty at a time or one by one, and listings of an account.

Felts come padded or not, times in two formats. The time of the last refresh is a weak order: a refresh through a
lagging node can carry a newer time with an older value. A pair that an answer does not name is unobserved.
"""

import contextlib
import math
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, ClassVar, Generic, NoReturn, TypeVar

import msgspec

from watcher.limits.windows import Limit
from watcher.model.addresses import STARKNET, AddressError, felt
from watcher.model.amounts import symbol
from watcher.model.keys import Key, Scope
from watcher.model.readings import Reading
from watcher.model.targets import LISTING, Lane, Target, TargetGroup
from watcher.model.times import format_rfc3339, parse_rfc3339
from watcher.providers.answers import (
    ROWS_PER_STEP,
    Decimals,
    Order,
    attempt,
    base_units,
    decode,
    decode_either,
    distinct,
    documented_error,
    glimpse,
    quoting,
    refuse,
)
from watcher.providers.failures import Malformed, Temporary
from watcher.providers.gaps import Gaps, Sums, open_rows
from watcher.providers.json_pieces import PIECE, PLACEHOLDER, NotCuttable, decode_pieces, list_layout
from watcher.providers.protocol import Credentials, ReadResult, Request, Response
from watcher.providers.settings import ConfiguredProvider, ProviderSettings
from watcher.redaction.safe_text import one_line
from watcher.runtime.slicing import run_at_once

T = TypeVar("T")

BATCH = 20
LONGEST_DETAIL = 1000
"""Characters of a refusal that are read."""
MOST_ROWS = 100
"""Of one pair: each is the same, or they contradict one another."""
AHEAD = 300.0
"""Seconds that a refresh may seem to lie ahead of the arrival of its answer: clocks differ, but not by more."""
NOTHING = (b"", b"null")
IP_BLOCK = 300.0
"""Seconds. How long a block lasts is not published."""


class TokenKitSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `tokenkit`."""

    max_age: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds; None: the interval at which the watch is read, since a cached answer is no news."""
    force_refresh: bool = False


class _Pair(msgspec.Struct, gc=False):
    account: str = msgspec.field(name="account_address")
    token: str = msgspec.field(name="token_address")


class _Row(_Pair, gc=False):
    balance: msgspec.Raw
    last_updated: str


class _Address(msgspec.Struct, gc=False):
    address: str


class _Token(_Address, gc=False):
    symbol: str | None = None
    decimals: Decimals | None = None


class _Holding(msgspec.Struct, gc=False):
    token: _Address


class _Held(msgspec.Struct, gc=False):
    account: _Address
    token: _Token
    balance: msgspec.Raw
    last_updated: str
    id: Order | str | None = None


class _Single(msgspec.Struct):
    success: bool
    data: _Row | None = None
    errors: msgspec.Raw = msgspec.Raw()


class _Rows(msgspec.Struct, Generic[T]):
    success: bool
    data: list[T] | None = None
    errors: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()
    links: msgspec.Raw = msgspec.Raw()


class _Links(msgspec.Struct):
    next: msgspec.Raw = msgspec.Raw()


class _Complaint(msgspec.Struct, forbid_unknown_fields=True):
    """Problem details of others (RFC 9457) have a `detail` too, among other things."""

    detail: str
    code: str | None = None


_SINGLE = msgspec.json.Decoder(_Single)
_BATCH = msgspec.json.Decoder(_Rows[_Row])
_LISTING = msgspec.json.Decoder(_Rows[_Held])
_CLOSED = msgspec.json.Decoder(_Rows[msgspec.Raw])
_HELD_ROWS = msgspec.json.Decoder(list[_Held])
_CLOSED_ROWS = msgspec.json.Decoder(list[msgspec.Raw])
_DATA = list_layout(b"data")
_ROW = msgspec.json.Decoder(_Row)
_PAIR = msgspec.json.Decoder(_Pair)
_HELD = msgspec.json.Decoder(_Held)
_HOLDING = msgspec.json.Decoder(_Holding)
_LINKS = msgspec.json.Decoder(_Links)
_COMPLAINT = msgspec.json.Decoder(_Complaint)
_CHALLENGE = re.compile(r"(?:^|,)\s*api-key\b", re.IGNORECASE)
"""`WWW-Authenticate: api-key realm="tokenkit"`. Another scheme is another's."""


class TokenKit(ConfiguredProvider[TokenKitSettings]):
    """`GET /api/balance/`, `POST /api/balances/` and `GET /api/account-balances/`."""

    Settings: ClassVar[type[ProviderSettings]] = TokenKitSettings
    HOST = "https://api.tokenkithq.io"
    LIMITS = (Limit(1, 10.0),)
    ORDERING = "weak"
    ENDPOINTS = ("balance", "balances", "account-balances")

    def __init__(self, name: str, settings: TokenKitSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self._max_age = settings.max_age
        self._force_refresh = settings.force_refresh
        self._sums = Sums()
        self.groups = self._groups(settings)
        self.limits += tuple(self._uncovered())

    def _groups(self, settings: TokenKitSettings) -> tuple[TargetGroup, ...]:
        listings = {self._scope(account, None): None for account in self._accounts(settings, listed=True)}
        pairs = {
            self._scope(self.account(STARKNET, watch), self.address(STARKNET, watch.token)): None
            for watch in settings.watch
            if watch.token is not None
        }
        listed = tuple(Target(LISTING, scope) for scope in listings)
        paired = tuple(
            Target("pair", scope) for scope in pairs if self._scope(str(scope.account), None) not in listings
        )
        pair_lanes = [Lane("balances", BATCH)]
        if any(limit.endpoint == "balance" for limit in self.limits):
            pair_lanes.append(Lane("balance"))
        groups = (TargetGroup(paired, tuple(pair_lanes)), TargetGroup(listed, (Lane("account-balances"),)))
        return tuple(group for group in groups if group.targets)

    def _accounts(self, settings: TokenKitSettings, *, listed: bool) -> Iterable[str]:
        for watch in settings.watch:
            self.only(watch, STARKNET)
            if listed == (watch.token is None):
                yield self.account(STARKNET, watch)

    def _scope(self, account: str, token: str | None) -> Scope:
        return Scope(self.name, STARKNET, account, token)

    def _uncovered(self) -> Iterable[Limit]:
        """The default, for each endpoint in use that none of the limits given covers."""
        covered = {limit.endpoint for limit in self.limits}
        if None not in covered:
            for lane in chain.from_iterable(group.lanes for group in self.groups):
                if lane.endpoint not in covered:
                    yield Limit(self.LIMITS[0].requests, self.LIMITS[0].per, lane.endpoint)

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"api-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:
        path = f"/api/{lane.endpoint}/"
        fresh = self._freshness(interval)
        if lane.endpoint == "balances":
            body = msgspec.json.encode({"balances": [_pair(target) for target in targets], **fresh})
            return Request("POST", path, tuple(targets), body=body, endpoint=lane.endpoint)
        (target,) = targets
        asked = _pair(target) | {name: str(value).lower() for name, value in fresh.items()}
        return Request("GET", path, (target,), params=tuple(asked.items()), endpoint=lane.endpoint)

    def _freshness(self, interval: float) -> dict[str, int | bool]:
        age = self._max_age if self._max_age is not None else interval
        fresh: dict[str, int | bool] = {"max_age": math.floor(min(max(age, 0.0), 86400.0))}
        return fresh | {"force_refresh": True} if self._force_refresh else fresh

    def read(self, request: Request, response: Response) -> ReadResult:
        if response.status != 200:
            _refuse(request, response)
        if request.endpoint == "balance":
            return self._single(request, decode(_SINGLE, response.body), _latest(response))
        if request.endpoint == "balances":
            return self._batch(request, decode_either(_BATCH, _CLOSED, response.body), _latest(response))
        return run_at_once(self.read_in_slices(request, response))

    def read_in_slices(self, request: Request, response: Response) -> Generator[None, None, ReadResult]:
        """The same of a listing with status 200, `ROWS_PER_STEP` rows at a time. An empty one says that the account is not indexed
        yet: nothing about balances."""
        answer = yield from _opened(response.body)
        if not answer.success or answer.data is None or _failed(answer.errors):
            raise Temporary(f"the account could not be read: {_shown(answer.errors)}")
        if not answer.data:
            return ReadResult([], missing=request.targets, remark="the account is not indexed yet")
        return (yield from self._listing(request, answer, _latest(response)))

    def _single(self, request: Request, answer: _Single, latest: int) -> ReadResult:
        if not answer.success or _failed(answer.errors) or answer.data is None:
            raise Temporary(f"the pair could not be read: {_shown(answer.errors)}")
        return self._pairs(request, [answer.data], latest)

    def _batch(self, request: Request, answer: _Rows[Any], latest: int) -> ReadResult:
        if not answer.success or answer.data is None:
            raise Temporary(f"the batch could not be read: {_shown(answer.errors)}")
        if len(answer.data) > MOST_ROWS * len(request.targets):
            raise Malformed(f"{len(answer.data)} rows where {len(request.targets)} pairs were asked for")
        rows = open_rows(answer.data, _ROW)
        found = self._pairs(request, rows, latest)
        if not found.readings:
            raise Temporary(f"no pair of the batch could be read: {_shown(answer.errors)}")
        if found.missing and found.remark is None:
            found.remark = f"{len(found.missing)} of {len(request.targets)} pairs not read: {_shown(answer.errors)}"
        return found

    def _pairs(self, request: Request, rows: Iterable[_Row | msgspec.Raw], latest: int) -> ReadResult:
        """The pairs in the answer. A pair whose row cannot be understood is missing."""
        due = {self._key(str(target.scope.account), str(target.scope.token)): target for target in request.targets}
        readings, gaps = [], Gaps()
        for row in rows:
            pair = attempt(_PAIR, row) if isinstance(row, msgspec.Raw) else row
            if pair is None:
                gaps.add("a row is not as documented")
                continue
            key = gaps.key(self._pair_key, pair)
            if key is None:
                continue
            if key not in due:
                raise Malformed(f"the answer tells of {key}, which we did not ask for")
            reading = gaps.reading(key, key.token, _reading, key, row, latest)
            if reading is not None:
                readings.append(reading)
        known = distinct(gaps.without(readings))
        known_keys = {reading.key for reading in known}
        missing = tuple(target for key, target in due.items() if key not in known_keys)
        return ReadResult(known, missing=missing, remark=gaps.remark() if gaps.count else None)

    def _listing(self, request: Request, answer: _Rows[Any], latest: int) -> Generator[None, None, ReadResult]:
        """Rows of an account. A listing that counts more rows than it holds, or fewer, speaks for those rows, but for no
        absent one."""
        assert answer.data is not None
        (target,) = request.targets
        sums: dict[Key, Reading] = {}
        counts: Counter[Key] = Counter()
        gaps = Gaps()
        rows = open_rows(answer.data, _HELD)
        for number, row in enumerate(_unrepeated(rows), 1):
            if number % ROWS_PER_STEP == 0:
                yield
            reading = self._listed(str(target.scope.account), row, latest, gaps)
            if reading is not None:
                # Several rows of one token (ERC-1155 has one for each id) are one balance.
                one = sums.get(reading.key)
                sums[reading.key] = reading if one is None else _sum(one, reading)
                counts[reading.key] += 1
        cut = _cut(answer, len(answer.data))
        if gaps.nameless or cut is not None:
            gaps.keys |= self._sums.incomplete(counts)
        elif not gaps.count:
            self._sums.remember(counts)
        return gaps.listing(list(sums.values()), target, cut)

    def _listed(self, asked: str, row: _Held | msgspec.Raw, latest: int, gaps: Gaps) -> Reading | None:
        """One row. None, and a gap, for what cannot be understood. Raises Malformed for an account that was not asked for."""
        holding = attempt(_HOLDING, row) if isinstance(row, msgspec.Raw) else row
        if holding is None:
            gaps.add("a row is not as documented")
            return None
        token = gaps.key(felt, holding.token.address)
        if token is None:
            return None
        key = self._key(asked, token)
        held = gaps.reading(key, token, _held, key, row, latest)
        if held is None:
            return None
        account, reading = held
        if account != asked:
            raise Malformed(f"the answer tells of account {account}, which we did not ask for")
        return reading

    def _key(self, account: str, token: str) -> Key:
        return Key(self.name, STARKNET, account, token)

    def _pair_key(self, pair: _Pair) -> Key:
        """Raises AddressError."""
        return self._key(felt(pair.account), felt(pair.token))


def _opened(body: bytes) -> Generator[None, None, _Rows[Any]]:
    """A listing. Raises Malformed."""
    if len(body) > PIECE:
        with contextlib.suppress(NotCuttable):
            around, found = yield from decode_pieces(body, _DATA, _HELD_ROWS, _CLOSED_ROWS)
            answer = decode(_CLOSED, around)
            if answer.data == [PLACEHOLDER]:
                return msgspec.structs.replace(answer, data=list(chain.from_iterable(found)))
    return decode_either(_LISTING, _CLOSED, body)


def _latest(response: Response) -> int:
    """The last refresh, in wall-clock microseconds, that the answer can know of."""
    return round((response.wall + AHEAD) * 1e6)


def _felt(text: str) -> str:
    try:
        return felt(text)
    except AddressError as error:
        raise Malformed(error) from None


def _reading(key: Key, row: _Row | _Held | msgspec.Raw, latest: int) -> Reading:
    """One row; its refresh is not later than `latest`, in wall-clock microseconds. Raises Malformed."""
    if isinstance(row, msgspec.Raw):
        raise Malformed("the row is not as documented")
    try:
        order = parse_rfc3339(row.last_updated)
    except (ValueError, OverflowError):
        raise Malformed(quoting("not a time: {}", row.last_updated)) from None
    if not 0 <= order <= latest:
        when = "before 1970" if order < 0 else "in the future"
        raise Malformed(quoting(f"a refresh {when}: {{}}", row.last_updated))
    return Reading(key, base_units(row.balance), "base", order=order, as_of=format_rfc3339(order))


def _held(key: Key, row: _Held | msgspec.Raw, latest: int) -> tuple[str, Reading]:
    """Whose row it is, and its reading. Raises Malformed."""
    reading = _reading(key, row, latest)
    assert isinstance(row, _Held)
    decorated = msgspec.structs.replace(reading, symbol=symbol(row.token.symbol), decimals=row.token.decimals)
    return _felt(row.account.address), decorated


def _cut(answer: _Rows[Any], rows: int) -> str | None:
    """Why a listing does not hold all rows, if it does not say that it does."""
    links = attempt(_LINKS, answer.links) if bytes(answer.links) not in NOTHING else _Links()
    if links is None or bytes(links.next) not in NOTHING:
        return "the listing goes on elsewhere"
    count = bytes(answer.count)
    return None if count == b"%d" % rows else f"the listing counts {glimpse(count)} rows, and holds {rows}"


def _pair(target: Target) -> dict[str, Any]:
    parts = {"account_address": target.scope.account, "token_address": target.scope.token}
    return {name: part for name, part in parts.items() if part is not None}


def _unrepeated(rows: Iterable[_Held | msgspec.Raw]) -> Iterator[_Held | msgspec.Raw]:
    """Each row once. Raises Malformed when two rows of one id differ."""
    found: dict[str, _Held] = {}
    for row in rows:
        # By its spelling: whole numbers can be chosen so that a dictionary of them takes very long.
        if isinstance(row, msgspec.Raw) or row.id is None or found.setdefault(repr(row.id), row) is row:
            yield row
        elif found[repr(row.id)] != row:
            raise Malformed(f"the answer contradicts itself on row {one_line(str(row.id))}")


def _sum(one: Reading, other: Reading) -> Reading:
    latest = one if (one.order or 0) >= (other.order or 0) else other
    return msgspec.structs.replace(latest, amount=str(int(one.amount or 0) + int(other.amount or 0)))


def _failed(errors: msgspec.Raw) -> bool:
    return bytes(errors) not in (*NOTHING, b"[]", b"{}")


def _shown(errors: msgspec.Raw) -> str:
    """Their shape is not documented, so they are shown as they came."""
    return glimpse(bytes(errors)) if _failed(errors) else "no reason given"


def _refuse(request: Request, response: Response) -> NoReturn:
    complaint = documented_error(_COMPLAINT, response.body)
    if complaint is None and response.status == 401 and _CHALLENGE.search(response.headers.get("www-authenticate", "")):
        complaint = _Complaint("the key is asked for")
    word = None if complaint is None else complaint.detail
    refuse(request, response, word, wait=_stated(word or ""))


def _stated(detail: str) -> float:
    """Seconds to wait by the text of a refusal: "available in 86 seconds", else a block, else the hourly cap."""
    detail = detail[:LONGEST_DETAIL]
    stated = re.search(r"\b(\d{1,4}) second", detail)
    if stated:
        return max(1.0, float(stated[1]))
    return IP_BLOCK if re.search(r"block|hour", detail, re.IGNORECASE) else 60.0
