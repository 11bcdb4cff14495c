"""The seam between a source of hints and the protocol that it speaks: what is watched, what comes, what is covered."""

from collections.abc import Collection, Generator, Sequence
from typing import Protocol

import msgspec

from watcher.model.hints import Hint
from watcher.model.keys import Scope


class WatchedScope(msgspec.Struct, frozen=True):
    """What one watch covers, and what a channel must know to hear of it."""

    scope: Scope
    token_account: bool = False
    """Its account is an SPL token account itself, and not the owner of some."""
    tokens: tuple[str, ...] = ()
    """Tokens of it that are known, sorted: those that its last listing named, or the one that the watch names."""
    commitment: str | None = None
    """As its provider reads; None: as the channel likes."""


class News(msgspec.Struct, frozen=True):
    """What one frame told."""

    hints: tuple[Hint, ...] = ()
    missed: bool = False
    """Something was lost or undone: whatever the channel covers may have changed."""
    refused: str | None = None
    """A subscription was refused with these words of the other side."""


class ChannelError(Exception):
    """The other side does not speak the protocol, or refuses it: one line why, without a secret. The connection is of no
    more use."""


class Channel(Protocol):
    """A protocol of subscriptions over one websocket. Pure: it never sends, waits or reads a clock.

    What it has to send collects, and is taken with `outgoing`.
    """

    def watch(self, watched: Sequence[WatchedScope]) -> Generator[None, None, None]:
        """From now on these, all of them; what stays subscribed is left alone.

        In steps, since there may be thousands: all else here may be called in between, and another `watch` only when this one
        has ended.
        """

    def give_turn(self) -> None:
        """Once a second while there is a connection: what was refused has its next try."""

    def connected(self) -> None:
        """There is a new socket: nothing is subscribed on it yet."""

    def disconnected(self) -> None:
        """The socket is gone, and everything that was subscribed with it."""

    def received(self, frame: str | bytes) -> News:
        """A message came. Raises ChannelError."""

    def outgoing(self) -> list[str]:
        """Messages to send now, in order; each is given once."""

    def covered(self) -> Collection[Scope]:
        """Of what is watched: that of which changes are told now, as far as the other side has confirmed it."""

    @property
    def subscriptions(self) -> int:
        """Those confirmed."""

    @property
    def left_out(self) -> int:
        """Watched scopes of this chain that found no place within the bound of subscriptions, or were refused."""


class HintSink(Protocol):
    """Where hints go. It never waits."""

    def take(self, source: str, hints: Sequence[Hint]) -> None:
        """These came from the source of that name."""

    def missed(self, source: str) -> None:
        """What this source covers may have changed unseen: all of it is hinted once, spread over a cycle."""

    def covers(self, source: str, scopes: Collection[Scope]) -> None:
        """This source tells of changes in these from now on, and of no others."""
