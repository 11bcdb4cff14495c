"""What was known of a balance at a past time."""

from typing import Literal

import msgspec

from watcher.model.keys import Key, Kind
from watcher.model.log import Published
from watcher.model.readings import Unit

PastStatus = Literal["certain", "changing", "unseen"]
"""`certain`: the amount was seen at or before that time and at or after it. `changing`: it became another one at some instant
of an interval around that time. `unseen`: it was seen before, and not since."""


class PastBalance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One balance at a past time. One that was unknown then has none."""

    provider: str
    chain: str
    account: str
    token: str
    kind: Kind
    symbol: str | None
    unit: Unit
    decimals: int | None
    status: PastStatus
    amount: str
    """`changing`: the one that it became."""
    previous_amount: str | None = None
    """`changing`: the one before."""
    between: tuple[str, str] | None = None
    """`changing`: the last time that the one before was seen, and the first that the new one was. RFC 3339."""
    last_seen: str | None = None
    """`unseen`: RFC 3339."""

    @property
    def key(self) -> Key:
        return Key(self.provider, self.chain, self.account, self.token, self.kind)


class Closing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A balance at the end of a day, kept beyond the events."""

    day: str
    """The day that ended: `2026-12-31` is what was held at 2027-01-01T00:00:00Z."""
    balance: PastBalance


class HistorySlice(msgspec.Struct, frozen=True):
    """Some events of a past interval, in the order of the log, and how far the reading is."""

    events: list[Published]
    done: int
    """Records looked at."""
    of: int
    """About how many there are to look at."""
