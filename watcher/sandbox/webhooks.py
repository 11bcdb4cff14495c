"""TokenKit's webhooks: `balance.changed` for each move of one of its balances, signed, and sent again until it is taken.

Pure: what is sent, and when again. The real body's shape is not documented; this one has the felts that it must have.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from watcher.sandbox.push_session import ChainEvent

EVENT = "balance.changed"
PAUSES = (1.0, 5.0, 25.0)
"""Seconds before each further attempt at one delivery; after the last it is given up."""
MOST_DELIVERIES = 100
"""Under way at one time. A further one is given up at once: a receiver that is down costs no memory."""


class WebhookTarget(msgspec.Struct, frozen=True):
    """Where to, and what signs it."""

    url: str
    secret: str

    def __repr__(self) -> str:
        return f"WebhookTarget({self.url!r})"


class WebhookDelivery(msgspec.Struct, frozen=True, eq=False):
    """One message. A repetition has the same headers and body."""

    headers: Mapping[str, str]
    body: bytes
    broken: bool = False
    """The first attempt at it breaks off before anything is sent."""


class WebhookSession:
    """All deliveries to one receiver: those to begin with, and what became of the others."""

    level = ""

    def __init__(self, secret: str) -> None:
        self.under_way = 0
        self.attempts = 0
        self.accepted = 0
        self.given_up = 0
        self.ready: Callable[[], None] = lambda: None
        """Called when there is something to send."""
        self._secret = secret.encode()
        self._outgoing: list[WebhookDelivery] = []

    def outgoing(self) -> list[WebhookDelivery]:
        """Deliveries to begin with now; each is given once."""
        deliveries, self._outgoing = self._outgoing, []
        return deliveries

    def concerned(self, event: ChainEvent, _level: str) -> bool:
        return event.balance.key.provider == "tokenkit"

    def tell(self, event: ChainEvent, level: str) -> int:
        """Of the event; gives how many deliveries that makes."""
        return self._deliver(event, level, broken=False)

    def break_off(self, event: ChainEvent, level: str) -> int:
        """As `tell`, but the connection breaks at the first attempt."""
        return self._deliver(event, level, broken=True)

    def _deliver(self, event: ChainEvent, level: str, *, broken: bool) -> int:
        if not self.concerned(event, level):
            return 0
        if self.under_way >= MOST_DELIVERIES:
            self.given_up += 1
            return 0
        self.under_way += 1
        self._outgoing.append(self._delivery(event, broken=broken))
        self.ready()
        return 1

    def _delivery(self, event: ChainEvent, *, broken: bool) -> WebhookDelivery:
        """Every second forged one has a signature that another secret made; the others are signed, and untrue."""
        body = msgspec.json.encode({"event": EVENT, "data": _data(event)})
        stranger = event.forged and event.bytes32("signature")[0] % 2
        secret = b"somebody else's " + self._secret if stranger else self._secret
        headers = {
            "content-type": "application/json",
            "x-tokenkit-event": EVENT,
            "x-tokenkit-delivery": event.bytes32("delivery")[:16].hex(),
            "x-tokenkit-signature": f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}",
        }
        return WebhookDelivery(headers, body, broken)

    def attempted(self, attempts: int, status: int | None) -> float | None:
        """So many attempts at one delivery were made, and the last was answered so (None: not at all).

        Gives the seconds until the next one; None: it is done with.
        """
        self.attempts += 1
        taken = status is not None and 200 <= status < 300
        if not taken and attempts <= len(PAUSES):
            return PAUSES[attempts - 1]
        self.under_way -= 1
        self.accepted += taken
        self.given_up += not taken
        return None

    def report(self) -> dict[str, Any]:
        return {
            "attempts": self.attempts,
            "accepted": self.accepted,
            "given_up": self.given_up,
            "under_way": self.under_way,
        }


def _data(event: ChainEvent) -> dict[str, Any]:
    key = event.balance.key
    return {
        "account_address": key.account,
        "token_address": key.token,
        "balance": str(event.amount),
        "previous_balance": str(event.before),
        "block_number": event.slot,
    }
