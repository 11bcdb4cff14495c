"""What watches name: tokens of all holders, holders of any tokens, balances. Pure."""

from collections.abc import Generator, Iterable

import msgspec

from watcher.hints.channel import WatchedScope

WATCHES_PER_STEP = 100


class Named(msgspec.Struct, frozen=True):
    """What a transfer is looked up in. In the order of the watches where that makes a difference."""

    tokens: dict[str, None] = msgspec.field(default_factory=dict)
    """Watched with all their holders."""
    holders: dict[str, None] = msgspec.field(default_factory=dict)
    """Watched with all their tokens."""
    balances: dict[tuple[str, str], None] = msgspec.field(default_factory=dict)
    """Holder and token."""
    listed: set[str] = msgspec.field(default_factory=set)
    """Tokens that listings name."""


def named(watched: Iterable[WatchedScope]) -> Generator[None, None, Named]:
    """Of these, which are of one chain."""
    found = Named()
    for number, one in enumerate(watched):
        account, token = one.scope.account, one.scope.token
        if account and token:
            found.balances[account, token] = None
        elif account:
            found.holders[account] = None
        elif token:
            found.tokens[token] = None
        found.listed.update(one.tokens)
        if number % WATCHES_PER_STEP == 0:
            yield
    return found
