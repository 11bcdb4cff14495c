"""Hints: "look here". One brings the next read of a watch forward, and its content is never believed."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from watcher.model.addresses import AddressError, canonical, chain, families, filter_forms
from watcher.model.keys import UNKNOWN_MINT, Scope

MOST_BYTES = 4096
"""Of one hint, encoded."""


class HintError(ValueError):
    """Not a hint. One line for whoever sent it."""


class Hint(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Which watches to read soon, as its sender spells it. A part that is None says nothing.

    Hints from outside name a provider; those of a source of ours are for every provider that watches the account. A watch of
    a whole chain is not read for these: no source covers it, and nearly all that one tells of is nothing to that provider.
    Nor is one of all holders of a token, unless the token is named: a wallet's transactions are of any.
    """

    account: str
    provider: str | None = None
    chain: str | None = None
    token: str | None = None

    def touches(self, scope: Scope) -> bool:
        """Whether a reading of that scope would show what happened there."""
        return (
            self._is_for(scope)
            and (self.chain is None or scope.chain is None or scope.chain == self.chain)
            and (
                _may_stand_on(scope.chain, self.account)
                if scope.account is None
                else scope.account in _forms(self.account)
            )
            and (self.token is None or scope.token in (None, UNKNOWN_MINT) or scope.token in _forms(self.token))
        )

    def _is_for(self, scope: Scope) -> bool:
        if self.provider is None:
            return not scope.is_whole_chain and (scope.account is not None or self.token is not None)
        return self.provider == scope.provider

    def accounts(self) -> Iterator[str]:
        """The canonical spellings that its account may stand for."""
        yield from _forms(self.account)


@lru_cache(maxsize=8)
def _forms(text: str) -> tuple[str, ...]:
    """As `filter_forms`. One hint is laid beside every watch of its account, and there may be thousands; so few are kept, for
    a text from outside may be long."""
    return filter_forms(text)


@lru_cache(maxsize=8)
def _may_stand_on(chain_id: str | None, account: str) -> bool:
    """Whether it may be an account of that chain. A watch of everything there is not read anew for an address of another."""
    if chain_id is None or chain_id.partition(":")[0] not in families():
        return True
    try:
        canonical(chain_id, account)
    except AddressError:
        return False
    return True


def parse(raw: object) -> Hint:
    """A hint as somebody sent it, decoded; its chain in CAIP-2. Raises HintError."""
    if not isinstance(raw, dict):
        raise HintError("a hint is an object with provider, account, and any of chain, token")
    for name in raw:
        if name not in Hint.__struct_fields__:
            fields = ", ".join(Hint.__struct_fields__)
            raise HintError(f"a hint has no field {str(name)[:40]!r}: the fields are {fields}")
    for name, words in (("provider", "a provider"), ("account", "an account")):
        if not raw.get(name):
            raise HintError(f"a hint names {words}")
    given: dict[str, Any] = {name: value for name, value in raw.items() if value is not None}
    if not all(isinstance(value, str) for value in given.values()):
        raise HintError("each field of a hint is a string")
    if "chain" in given:
        try:
            given["chain"] = chain(given["chain"])
        except AddressError as error:
            raise HintError(f"what it has as chain {error.reason}") from None
    return Hint(**given)


def decode(record: bytes) -> Hint:
    """A hint as it stands alone in a record, in JSON. Raises HintError."""
    if len(record) > MOST_BYTES:
        raise HintError(f"a hint has at most {MOST_BYTES} bytes")
    try:
        return parse(msgspec.json.decode(record))
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, HintError) else HintError(f"no JSON: {error}") from None


def encode(hint: Hint) -> bytes:
    """As `decode` takes it."""
    return msgspec.json.encode(hint)
