"""Tokens that a holder moves and no API lists: stablecoins that pay for others, spam. Pure."""

from collections import OrderedDict
from collections.abc import Collection

MOST_TRIES = 3
"""Moves of one that are news: a token that is new to its holder is in the listing that is read then."""
MOST_REMEMBERED = 10_000
"""Pairs of a holder and a token."""


class UnlistedTokens:
    """What moves for a holder of any tokens is news where some listing names the token, and a few times where none does."""

    def __init__(self) -> None:
        self._listed: Collection[str] = frozenset()
        self._tries: OrderedDict[tuple[str, str], int] = OrderedDict()

    def update(self, tokens: Collection[str]) -> None:
        """From now on listings name these, which are looked up in."""
        self._listed = tokens

    def is_news(self, account: str, token: str) -> bool:
        """Counts it as one move more."""
        if token in self._listed:
            self._tries.pop((account, token), None)
            return True
        tries = self._tries[account, token] = self._tries.pop((account, token), 0) + 1
        if len(self._tries) > MOST_REMEMBERED:
            self._tries.popitem(last=False)
        return tries <= MOST_TRIES
