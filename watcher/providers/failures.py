"""What a provider's answer can mean when it is not balances: whose fault it is, and what follows.

Failure
├── Throttled            ours: too fast. The whole scope pauses, then goes on
├── Exhausted            ours: the credits are used up. Long pause and an alert
├── RefusedCredential    the operator's: wrong, missing or forbidden key. Long pause and an alert
├── Misconfigured        the operator's: this watch or this setting asks for what is not there
├── Temporary            theirs, or of whoever stands between: down, lagging, paused, moved. Asked again soon
└── Malformed            theirs: the answer cannot be understood, or contradicts itself or what we asked

Exhausted, RefusedCredential and Misconfigured are the provider's own word, in the shape that it documents for errors;
what anybody else says under the same status is Temporary. What worked before is doubted first: see poller/failure_policy.py.
No failure carries a reading: what a failed answer says of balances is unknown, and unknown is never zero.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Failure(Exception):
    """An answer that gives no readings. `reason` is one line and holds no secret.

    `retry_after`: seconds from now in which the provider wants no request; None: it did not say.
    """

    status: int | None = None
    """Of the answer that it stands for; whoever reads the answer puts it here."""

    def __init__(self, reason: object, retry_after: float | None = None) -> None:
        """`reason`: a text, or what becomes one when it is asked for (see `Quoting`)."""
        super().__init__(reason)
        self._reason = reason
        self.retry_after = retry_after

    @property
    def reason(self) -> str:
        return str(self._reason)

    @reason.setter
    def reason(self, text: str) -> None:
        self._reason = text

    def __str__(self) -> str:
        return self.reason


class Quoting(Generic[T]):
    """A text that quotes what came from outside, made when it is asked for.

    Of a hundred thousand rows that cannot be understood one is reported. To make a quotation safe to show takes longer
    than to find the row wrong.
    """

    def __init__(self, template: str, quoted: T, shown: Callable[[T], str]) -> None:
        """`template`: with `{}` where the quotation goes."""
        self._template = template
        self._quoted = quoted
        self._shown = shown

    def __str__(self) -> str:
        return self._template.format(self._shown(self._quoted))


class Throttled(Failure):
    """Too many requests."""


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
