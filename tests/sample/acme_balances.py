"""Balances of Acme, a made-up chain with an API of its own.

`GET /v1/accounts/acme1…` answers {"height": 7, "count": 1, "vaults": [{"vault": 3, "units": "12"}]}. `count` is its mark
that the listing is whole. An error is {"reason": "…"}.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from watcher.provider import (
    LISTING,
    AddressError,
    AddressFamily,
    ConfiguredProvider,
    Credentials,
    Gaps,
    Key,
    Lane,
    Limit,
    Malformed,
    Order,
    ProviderSettings,
    Reading,
    ReadResult,
    Request,
    Response,
    Scope,
    Target,
    TargetGroup,
    Watch,
    attempt,
    base_units,
    decode,
    distinct,
    documented_error,
    refuse,
)

CHAIN = "acme:main"


# The chain: how its addresses are written.


def address(text: str) -> str:
    """Its one spelling: lower case. Raises AddressError."""
    if not re.fullmatch(r"acme1[0-9a-z]{8,40}", text.lower()):
        raise AddressError(text, "is no Acme address: write acme1 and 8 to 40 letters or digits")
    return text.lower()


def respelled(text: str) -> str | None:
    """For the filters of subscribers, which name no chain."""
    return text.lower() if text.lower().startswith("acme1") else None


ADDRESSES = AddressFamily("acme", address, respelled)


# The config: keys of the table and of a watch, beside those that every provider has.


class AcmeWatch(Watch, frozen=True, forbid_unknown_fields=True):
    """`[[providers.NAME.watch]]`: an account, or one of its vaults."""

    vault: int | None = None


class AcmeSettings(ProviderSettings, frozen=True, kw_only=True):
    """`[providers.NAME]` of type `acme`."""

    final: bool = True
    """Whether only final blocks count."""
    watch: tuple[AcmeWatch, ...] = ()


# The answers, as the API documents them. Rows stay closed, so that one that is wrong spoils no other.


class _Account(msgspec.Struct):
    height: Order
    count: int
    vaults: list[msgspec.Raw]


class _Vault(msgspec.Struct):
    vault: int
    units: msgspec.Raw


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


_ACCOUNT = msgspec.json.Decoder(_Account)
_VAULT = msgspec.json.Decoder(_Vault)
_ERROR = msgspec.json.Decoder(_Error)


class Acme(ConfiguredProvider[AcmeSettings]):
    """`GET /v1/accounts/{account}`, with `vault` where a watch names one."""

    Settings: ClassVar[type[ProviderSettings]] = AcmeSettings
    HOST = "https://api.acme.example"
    LIMITS = (Limit(5, 1.0),)
    ORDERING = "strict"

    def __init__(self, name: str, settings: AcmeSettings, *, keyed: bool) -> None:
        super().__init__(name, settings, keyed=keyed)
        targets = dict.fromkeys(map(self._target, settings.watch))  # two watches may mean the same
        self.groups = (TargetGroup(tuple(targets)),)

    def _target(self, watch: AcmeWatch) -> Target:
        self.only(watch, CHAIN)
        account = self.account(CHAIN, watch)
        if watch.token is not None:
            raise self.mistake("a watch names a token: Acme has vaults, write vault = 3")
        if watch.vault is None:
            return Target(LISTING, Scope(self.name, CHAIN, account))
        return Target("vault", Scope(self.name, CHAIN, account, str(watch.vault)))

    def credentials(self, secret: str | None) -> Credentials:
        return Credentials() if secret is None else Credentials(headers={"x-acme-key": secret})

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:
        (target,) = targets  # one, since the lane's batch is 1
        params = [("final", str(self.settings.final).lower())]
        if target.family != LISTING:
            params.append(("vault", str(target.scope.token)))
        return Request("GET", f"/v1/accounts/{target.scope.account}", (target,), params=tuple(params))

    def read(self, request: Request, response: Response) -> ReadResult:
        if response.status != 200:
            error = documented_error(_ERROR, response.body)
            refuse(request, response, None if error is None else error.reason)
        (target,) = request.targets
        account = decode(_ACCOUNT, response.body)
        readings, gaps = self._readings(target, account)
        if target.family == LISTING:
            whole = account.count == len(account.vaults)
            return gaps.listing(readings, target, None if whole else "it counts other rows than it holds")
        return ReadResult(gaps.without(readings), missing=() if readings else (target,))

    def _readings(self, target: Target, account: _Account) -> tuple[list[Reading], Gaps]:
        readings, gaps = [], Gaps()
        for row in account.vaults:
            vault = attempt(_VAULT, row)
            if vault is None:
                gaps.add("a vault is not as documented")
                continue
            key = Key(self.name, CHAIN, str(target.scope.account), str(vault.vault))
            if not target.scope.covers(key):
                raise Malformed(f"the answer tells of {key}, which we did not ask for")
            amount = gaps.reading(key, key.token, base_units, vault.units)
            if amount is not None:
                readings.append(Reading(key, amount, "base", order=account.height, slot=account.height))
        return distinct(readings), gaps
