"""How many bytes a second the bodies of one sender may have, and those of all senders on one port. Pure."""

from watcher.relay.budgets import TokenBucket

BYTES = 8 * 1024 * 1024
"""Of one sender at once: sixteen of the largest bodies, or forty with a thousand hints of the usual size."""
BYTES_PER_SECOND = 2 * 1024 * 1024
"""The same for as long as it goes on."""
ALL_BYTES = 16 * 1024 * 1024
"""Of all tokens on one port at once, and as much of all who have none: those must not use up what tokens may send."""
ALL_BYTES_PER_SECOND = 8 * 1024 * 1024
"""The same for as long as they go on."""
FEW = 256 * 1024
"""Bytes that a sender has free, this body among them, while others have used up what there is for all."""
FEW_OF_ALL = 8 * 1024 * 1024
"""Bytes of all who send so few: more is more than there may be, whoever sends it."""

Sender = bytes | str
"""The digest of a token, or the address of who has none; see `admission.address_group`."""


class BodyBudget:
    """What each sender may send, and all of them together. `now`: monotonic seconds."""

    def __init__(self) -> None:
        self._tokens, self._strangers = (TokenBucket(ALL_BYTES, ALL_BYTES_PER_SECOND) for _ in range(2))
        self._senders: dict[Sender, TokenBucket] = {}
        """The one that has sent nothing for longest comes first. Who may send all again is forgotten."""

    def __len__(self) -> int:
        """Senders that are known."""
        return len(self._senders)

    def take(self, sender: Sender, size: int, now: float) -> float:
        """Begin a body of so many bytes. Seconds until it may be begun, and nothing is taken; 0: it may now."""
        self._forget(now)
        own = self._senders.pop(sender, None) or TokenBucket(BYTES, BYTES_PER_SECOND)
        self._senders[sender] = own
        everybody = self._everybody_like(sender)
        few = own.left(now) - size >= BYTES - FEW
        wait = max(own.debt(now), everybody.debt(now) - (FEW_OF_ALL / ALL_BYTES_PER_SECOND if few else 0.0))
        if wait > 0:
            return wait
        own.take(size, now)
        everybody.take(size, now)
        return 0.0

    def give_back(self, sender: Sender, size: int) -> None:
        """So many bytes of what was taken have not come, and will not."""
        self._everybody_like(sender).spend(-size)
        if (own := self._senders.get(sender)) is not None:
            own.spend(-size)

    def _everybody_like(self, sender: Sender) -> TokenBucket:
        return self._tokens if isinstance(sender, bytes) else self._strangers

    def _forget(self, now: float) -> None:
        while self._senders:
            sender, own = next(iter(self._senders.items()))
            if own.left(now) < BYTES:
                return
            del self._senders[sender]
