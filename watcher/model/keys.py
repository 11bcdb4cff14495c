"""Names of balances: the key of one, the scope of a listing, a filter over keys."""

import hashlib
from typing import Literal, get_args

import msgspec

Kind = Literal["total", "settled", "unsettled", "open_orders"]
KINDS: frozenset[str] = frozenset(get_args(Kind))
UNKNOWN_MINT = "unknown"
"""Of a balance whose token neither the answer nor the watch names: it may be any."""


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

    @staticmethod
    def parsable(text: str) -> bool:
        """Whether `parse` takes it: `str` of a key with a `/` within a part, or of another kind, it does not."""
        return text.count("/") == 4 and text.rpartition("/")[2] in KINDS


class _KeyParts(msgspec.Struct, array_like=True):
    provider: str
    chain: str
    account: str
    token: str
    kind: Kind

    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)


class Scope(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """The set of keys that one complete listing covers. A part that is None matches everything."""

    provider: str
    chain: str | None = None
    account: str | None = None
    token: str | None = None

    @property
    def is_whole_chain(self) -> bool:
        """It names neither account nor token: no push channel tells of all that."""
        return self.account is None and self.token is None

    def covers(self, key: Key) -> bool:
        return (
            self.provider == key.provider
            and (self.chain is None or self.chain == key.chain)
            and (self.account is None or self.account == key.account)
            and (self.token is None or self.token == key.token)
        )

    @property
    def note_key(self) -> str:
        """The key of this listing's note. Never contains `/`, so it is never a balance."""
        parts = "\n".join(part if part is not None else "\0" for part in (self.chain, self.account, self.token))
        return f"listing:{self.provider}:{hashlib.blake2b(parts.encode(), digest_size=12).hexdigest()}"


class Filter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """AND over the fields, OR within one; None = any. Values are canonical.

    A journal is asked for parts of the key alone: the relay resolves `label` and `tag`, which stand in its config.
    """

    provider: tuple[str, ...] | None = None
    chain: tuple[str, ...] | None = None
    account: tuple[str, ...] | None = None
    token: tuple[str, ...] | None = None
    label: tuple[str, ...] | None = None
    tag: tuple[str, ...] | None = None

    def matches(self, key: Key) -> bool:
        """By the parts of the key."""
        return (
            (self.provider is None or key.provider in self.provider)
            and (self.chain is None or key.chain in self.chain)
            and (self.account is None or key.account in self.account)
            and (self.token is None or key.token in self.token)
        )
