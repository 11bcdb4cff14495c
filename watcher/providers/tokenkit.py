"""TokenKit on Starknet: pairs of account and token twenty at a time or one by one, and listings of an account.

Felts come padded or not, times in two formats. The time of the last refresh is a weak order: a refresh through a
lagging node can carry a newer time with an older value. A pair that an answer does not name is unobserved.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar

import msgspec

from watcher.addresses import STARKNET, AddressError, felt
from watcher.events import Key, Reading, Scope, rfc3339, wall
from watcher.providers.answers import (
    Decimals,
    Order,
    base_units,
    decode,
    distinct,
    glimpse,
    one_line,
    refuse,
    spoken,
    unambiguous,
)
from watcher.providers.configured import Configured
from watcher.providers.failures import Malformed, Temporary
from watcher.providers.provider import Credentials, Found, Lane, Limit, ProviderSettings, Request, Response, Target

T = TypeVar("T")

BATCH = 20
IP_BLOCK = 300.0
"""Seconds. How long a block lasts is not published."""


class TokenKitSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `tokenkit`."""

    max_age: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds; None: the interval at which the watch is read, since a cached answer is no news."""
    force_refresh: bool = False


class _Row(msgspec.Struct, gc=False):
    account: str = msgspec.field(name="account_address")
    token: str = msgspec.field(name="token_address")
    balance: str
    last_updated: str


class _Account(msgspec.Struct, gc=False):
    address: str


class _Token(msgspec.Struct, gc=False):
    address: str
    symbol: str | None = None
    decimals: Decimals | None = None


class _Held(msgspec.Struct, gc=False):
    account: _Account
    token: _Token
    balance: str
    last_updated: str
    id: Order | str | None = None


class _Single(msgspec.Struct):
    success: bool
    data: _Row | None = None
    errors: msgspec.Raw = msgspec.Raw()


class _Batch(msgspec.Struct):
    success: bool
    data: list[_Row] | None = None
    errors: msgspec.Raw = msgspec.Raw()


class _Links(msgspec.Struct):
    next: str | None = None


class _Listing(msgspec.Struct):
    success: bool
    data: list[_Held] | None = None
    errors: msgspec.Raw = msgspec.Raw()
    count: Order | None = None
    links: _Links | None = None


class _Complaint(msgspec.Struct, forbid_unknown_fields=True):
    """Problem details of others (RFC 9457) have a `detail` too, among other things."""

    detail: str
    code: str | None = None


_SINGLE = msgspec.json.Decoder(_Single)
_BATCH = msgspec.json.Decoder(_Batch)
_LISTING = msgspec.json.Decoder(_Listing)
_COMPLAINT = msgspec.json.Decoder(_Complaint)
_CHALLENGE = re.compile(r"(?:^|,)\s*api-key\b", re.IGNORECASE)
"""`WWW-Authenticate: api-key realm="tokenkit"`. Another scheme is another's."""


class TokenKit(Configured):
    """`GET /api/balance/`, `POST /api/balances/` and `GET /api/account-balances/`."""

    Settings: ClassVar[type[ProviderSettings]] = TokenKitSettings
    HOST = "https://api.tokenkithq.io"
    LIMITS = (Limit(1, 10.0),)
    ENDPOINTS = ("balance", "balances", "account-balances")

    def __init__(self, name: str, settings: TokenKitSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        self.ordering = "weak"
        self._max_age = settings.max_age
        self._force_refresh = settings.force_refresh
        self.lanes = self._lanes(settings)
        self.limits += tuple(self._uncovered())

    def _lanes(self, settings: TokenKitSettings) -> tuple[Lane, ...]:
        listings = {self._scope(account, None): None for account in self._accounts(settings, listed=True)}
        pairs = {
            self._scope(self.account(STARKNET, watch), self.address(STARKNET, watch.token)): None
            for watch in settings.watch
            if watch.token is not None
        }
        listed = tuple(Target("listing", scope) for scope in listings)
        paired = tuple(
            Target("pair", scope) for scope in pairs if self._scope(str(scope.account), None) not in listings
        )
        lanes = [Lane("balances", paired, BATCH)] if paired else []
        if paired and any(limit.endpoint == "balance" for limit in self.limits):
            lanes.append(Lane("balance", paired))
        if listed:
            lanes.append(Lane("account-balances", listed))
        return tuple(lanes)

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
            for lane in self.lanes:
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

    def read(self, request: Request, response: Response) -> Found:
        if response.status != 200:
            _refuse(request, response)
        body = response.body
        if request.endpoint == "balance":
            return self._single(request, _whole(decode(_SINGLE, body), body, 1))
        if request.endpoint == "balances":
            batch = decode(_BATCH, body)
            return self._batch(request, _whole(batch, body, len(batch.data or ())))
        listing = decode(_LISTING, body)
        return self._listing(request, _whole(listing, body, len(listing.data or ())))

    def _single(self, request: Request, answer: _Single) -> Found:
        if not answer.success or _failed(answer.errors) or answer.data is None:
            raise Temporary(f"the pair could not be read: {_shown(answer.errors)}")
        return self._pairs(request, [answer.data])

    def _batch(self, request: Request, answer: _Batch) -> Found:
        if not answer.success or answer.data is None:
            raise Temporary(f"the batch could not be read: {_shown(answer.errors)}")
        found = self._pairs(request, answer.data)
        if not found.readings:
            raise Temporary(f"no pair of the batch could be read: {_shown(answer.errors)}")
        if found.missing:
            found.remark = f"{len(found.missing)} of {len(request.targets)} pairs not read: {_shown(answer.errors)}"
        return found

    def _pairs(self, request: Request, rows: Iterable[_Row]) -> Found:
        due = {target.scope: target for target in request.targets}
        readings = distinct([self._reading(row.account, row.token, row.balance, row.last_updated) for row in rows])
        for reading in readings:
            if due.pop(self._scope(reading.key.account, reading.key.token), None) is None:
                raise Malformed(f"the answer tells of {reading.key}, which we did not ask for")
        return Found(readings, missing=tuple(due.values()))

    def _listing(self, request: Request, answer: _Listing) -> Found:
        """Rows of an account. An empty listing says that the account is not indexed yet: nothing about balances.

        One that counts more rows than it holds speaks for those rows, but for no absent one.
        """
        if not answer.success or answer.data is None or _failed(answer.errors):
            raise Temporary(f"the account could not be read: {_shown(answer.errors)}")
        if not answer.data:
            return Found([], missing=request.targets, remark="the account is not indexed yet")
        scope = request.targets[0].scope
        readings = [self._held(scope, row) for row in _unrepeated(answer.data)]
        more = (answer.count or 0) > len(answer.data) or (answer.links is not None and answer.links.next is not None)
        return Found(_summed(readings), listing=None if more else scope, remark="the listing is cut" if more else None)

    def _held(self, scope: Scope, row: _Held) -> Reading:
        reading = self._reading(row.account.address, row.token.address, row.balance, row.last_updated)
        if reading.key.account != scope.account:
            raise Malformed(f"the answer tells of account {reading.key.account}, which we did not ask for")
        return msgspec.structs.replace(reading, symbol=row.token.symbol, decimals=row.token.decimals)

    def _reading(self, account: str, token: str, balance: str, last_updated: str) -> Reading:
        try:
            key = Key(self.name, STARKNET, felt(account), felt(token))
            order = wall(last_updated)
        except AddressError as error:
            raise Malformed(str(error)) from None
        except (ValueError, OverflowError):
            raise Malformed(f"not a time: {one_line(last_updated)!r}") from None
        if order < 0:
            raise Malformed(f"a refresh before 1970: {one_line(last_updated)!r}")
        return Reading(key, base_units(balance), "base", order=order, as_of=rfc3339(order))


def _whole(answer: T, body: bytes, rows: int) -> T:
    unambiguous(body, b'"balance"', rows)
    return answer


def _pair(target: Target) -> dict[str, Any]:
    parts = {"account_address": target.scope.account, "token_address": target.scope.token}
    return {name: part for name, part in parts.items() if part is not None}


def _unrepeated(rows: list[_Held]) -> list[_Held]:
    """Each row once. Raises Malformed when one row is told twice and differently."""
    found: dict[int | str, _Held] = {}
    unnamed = [row for row in rows if row.id is None]
    for row in rows:
        if row.id is not None and found.setdefault(row.id, row) != row:
            raise Malformed(f"the answer contradicts itself on row {one_line(str(row.id))}")
    return [*found.values(), *unnamed]


def _summed(readings: list[Reading]) -> list[Reading]:
    """One reading for each key: several rows of one token (ERC-1155 has one for each id) are one balance."""
    sums: dict[Key, Reading] = {}
    for reading in readings:
        one = sums.get(reading.key)
        sums[reading.key] = reading if one is None else _sum(one, reading)
    return list(sums.values())


def _sum(one: Reading, other: Reading) -> Reading:
    latest = one if (one.order or 0) >= (other.order or 0) else other
    return msgspec.structs.replace(latest, amount=str(int(one.amount or 0) + int(other.amount or 0)))


def _failed(errors: msgspec.Raw) -> bool:
    return bytes(errors) not in (b"", b"null", b"[]", b"{}")


def _shown(errors: msgspec.Raw) -> str:
    """Their shape is not documented, so they are shown as they came."""
    return glimpse(bytes(errors)) if _failed(errors) else "no reason given"


def _refuse(request: Request, response: Response) -> NoReturn:
    complaint = spoken(_COMPLAINT, response.body)
    if complaint is None and _CHALLENGE.search(response.headers.get("www-authenticate", "")):
        complaint = _Complaint("the key is asked for")
    word = None if complaint is None else complaint.detail
    refuse(request, response, word, wait=_stated(word or ""))


def _stated(detail: str) -> float:
    """Seconds to wait by the text of a refusal: "available in 86 seconds", else a block, else the hourly cap."""
    stated = re.search(r"\b(\d{1,4}) second", detail)
    if stated:
        return max(1.0, float(stated[1]))
    return IP_BLOCK if re.search(r"block|hour", detail, re.IGNORECASE) else 60.0
