"""Crossings: a committed amount went beyond the threshold of an alert, or came back."""

import hashlib
from typing import Literal

import msgspec

from watcher.model.keys import Key, Kind

Direction = Literal["below", "above", "cleared"]


class Crossing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An alert fired on one balance, or cleared. Version 1 of the schema. Committed with the change that made it."""

    id: str
    """Deterministic from the log's epoch, alert, key, version and direction."""
    alert: str
    """Its name in the config."""
    direction: Direction
    threshold: str
    """That of the alert, in the unit of the amounts."""
    amount: str
    previous_amount: str | None
    """None: no change led here; a first reading, or the alert, was new."""
    provider: str
    chain: str
    """CAIP-2."""
    account: str
    token: str
    kind: Kind
    version: int
    """Of the change; 0: the first reading lay beyond already."""
    observed_at: str

    @property
    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)


def crossing_id(epoch: str, alert: str, key: Key, version: int, direction: Direction) -> str:
    """32 hex digits; always the same for one crossing, and different for any other and for any change."""
    text = f"{epoch}\n{key}\n{version}\n{direction}\n{alert}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
