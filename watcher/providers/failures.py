"""What a provider's answer can mean when it is not balances: whose fault it is, and what follows.

Failure
├── Throttled            ours: too fast. The whole scope pauses, then goes on
├── Exhausted            ours: the credits are used up. Long pause and an alert
├── RefusedCredential    the operator's: wrong, missing or forbidden key. Long pause and an alert
├── Misconfigured        the operator's: this watch or this setting asks for what is not there
├── Temporary            theirs: down, lagging or paused. Asked again soon
└── Malformed            theirs: the answer cannot be understood, or contradicts itself or what we asked

No failure carries a reading: what a failed answer says of balances is unknown, and unknown is never zero.
"""


class Failure(Exception):
    """An answer that gives no readings. `reason` is one line and holds no secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Throttled(Failure):
    """Too many requests. `retry_after` is in seconds from now; None: the provider did not say."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Exhausted(Failure):
    """The credits of the month, or of the plan, are used up."""


class RefusedCredential(Failure):
    """401, 403, or what the provider says instead."""


class Misconfigured(Failure):
    """The provider refuses what we asked. The reason names the watch."""


class Temporary(Failure):
    """Trouble at the provider that passes."""


class Malformed(Failure):
    """Not what the API documents, or not an answer to what we asked."""
