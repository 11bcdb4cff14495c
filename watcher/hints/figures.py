"""What is counted of a source of hints, for metrics, page and terminal."""

from collections import Counter, deque
from typing import Final, Literal

import msgspec

SourceType = Literal["solana", "ethereum", "starknet", "tokenkit", "http", "kafka"]
HintResult = Literal["accepted", "unknown", "rejected", "repeated"]
RESULTS: tuple[HintResult, ...] = ("accepted", "unknown", "rejected", "repeated")
RATE_SECONDS = 60
HTTP: Final = "http"
KAFKA: Final = "kafka"
"""The two sources that stand in no table."""
SENDER = "http:"
"""Before the name of a token that posts hints. No name of a table holds a colon."""


class SourceFigures(msgspec.Struct, eq=False, kw_only=True):
    """One source. Kept by whoever owns it: the loop of a socket, the webhook's door, the router."""

    name: str
    type: SourceType
    connected: bool = False
    """It is there. A door of ours (`http`, `kafka`, `tokenkit`) always is."""
    since: int | None = None
    """Since when it is so, in microseconds of the wall clock."""
    problem: str | None = None
    """Why it is not there, without a secret."""
    connections: int = 0
    """Made so far."""
    subscriptions: int = 0
    chain: str | None = None
    """The one that it tells of, CAIP-2; None: a door of ours, which takes what comes."""
    providers: frozenset[str] = frozenset()
    """Those of which it covers something now, by their names."""
    left_out: int = 0
    """Watched scopes that it has no place for."""
    by_result: Counter[str] = msgspec.field(default_factory=lambda: Counter(dict.fromkeys(RESULTS, 0)))
    """Hints by what became of them: of a watch, of none, malformed or forged, a delivery that came before."""
    _seconds: deque[tuple[int, int]] = msgspec.field(default_factory=lambda: deque(maxlen=RATE_SECONDS))

    @property
    def is_sender(self) -> bool:
        """It is one token that posts hints."""
        return self.name.startswith(SENDER)

    def count(self, result: HintResult, now: float, number: int = 1) -> None:
        """`now`: monotonic seconds."""
        self.by_result[result] += number
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            number += self._seconds.pop()[1]
        self._seconds.append((second, number))

    def per_second(self, now: float) -> float:
        """Hints of any kind, over the last minute."""
        return sum(number for second, number in self._seconds if second > now - RATE_SECONDS) / RATE_SECONDS
