"""What an answer of a provider says about balances."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from watcher.model.keys import Key, Scope

Unit = Literal["base", "decimal"]
Ordering = Literal["strict", "weak", "none"]
"""How far the provider's ordering field can be trusted: a chain position, a refresh time, or nothing at all."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What one answer says about one key. `amount` None: the provider says that there is no such balance."""

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


class Times(msgspec.Struct, frozen=True, gc=False):
    """When one answer was asked for and when it came."""

    sent: float
    """Monotonic seconds."""
    received: float
    """Monotonic seconds."""
    observed_at: int
    """Wall-clock microseconds at `received`."""


class Answer(msgspec.Struct, frozen=True):
    """A good answer. A failed one never becomes one of these."""

    provider: str
    readings: Sequence[Reading]
    ordering: Ordering
    settle: float
    """Seconds; see docs/semantics.md."""
    times: Times
    listing: Scope | None = None
    """Set when the answer is a listing: unless it is partial, a balance that it covers and does not name is absent."""
    fingerprint: bytes = b""
    """Equal for equal bodies, where the body alone decides what a listing says. Empty: not known."""
    partial: bool = False
    """Of a listing: a part of it is missing or could not be understood. It proves no absence."""
    max_known: int | None = None
    """Balances of the provider that may be known; another one stays unknown. None: no bound."""
