"""What a simulated API is, and all that one of another package needs for it."""

import random
from collections.abc import Mapping
from typing import Any, Protocol

from watcher.sandbox.faults import Lens, Seen
from watcher.sandbox.limits import Quota, QuotaRuling
from watcher.sandbox.messages import VALID_KEY, SimulatedReply, SimulatedRequest, json_reply, page_reply
from watcher.sandbox.population import Population
from watcher.sandbox.truth import BalanceKey, SimulatedBalance

__all__ = [
    "VALID_KEY",
    "BalanceKey",
    "Lens",
    "Population",
    "Quota",
    "QuotaRuling",
    "Seen",
    "SimulatedApi",
    "SimulatedBalance",
    "SimulatedReply",
    "SimulatedRequest",
    "json_reply",
    "page_reply",
]


class SimulatedApi(Protocol):
    """One provider's shapes: who lives there, what it asks of a caller, how it answers, and how it says no.

    Made without arguments. An entry point of the group `balance_watcher.sandbox` adds one; it is served under `/NAME`.
    Times are monotonic seconds, `wall` is Unix seconds.
    """

    @property
    def name(self) -> str: ...

    @property
    def cost(self) -> int:
        """Calls of a quota that one request takes."""
        ...

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """Its limits, unless `--limits` says otherwise."""
        ...

    @property
    def demo(self) -> Mapping[str, Any]:
        """Keys of its table in `watcher demo`, which serves ten times these limits."""
        ...

    def populate(self, population: Population, /) -> None:
        """Accounts with their opening balances, and watches that cover each of them exactly once."""
        ...

    def admit(self, request: SimulatedRequest, now: float, /) -> SimulatedReply | None:
        """The answer to a caller who may not ask; None for one who may."""
        ...

    def endpoint(self, request: SimulatedRequest, /) -> str:
        """Which quotas count it beside those over all endpoints."""
        ...

    def resource(self, request: SimulatedRequest, /) -> str:
        """What is asked. Faults are drawn for each resource apart."""
        ...

    def limit_headers(self, ruling: QuotaRuling, wall: float, /) -> dict[str, str]:
        """Of a good answer."""
        ...

    def throttled(self, request: SimulatedRequest, ruling: QuotaRuling, wall: float, /) -> SimulatedReply: ...

    def failed(self, status: int, request: SimulatedRequest, /) -> SimulatedReply:
        """500 or 503."""
        ...

    def disguised(self, request: SimulatedRequest, dice: random.Random, /) -> SimulatedReply:
        """A failure that looks like an answer, as a page with status 200."""
        ...

    def answer(self, request: SimulatedRequest, lens: Lens, /) -> SimulatedReply:
        """`lens` shows the balances, with the faults that this answer has. Raises nothing."""
        ...
