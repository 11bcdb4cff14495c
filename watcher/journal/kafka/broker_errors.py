"""What a broker's refusal means: that it passes, that some record will never be taken, or that none will.

aiokafka knows two sorts, to be sent again and not; and `CLIENT_ERRORS` is all that it raises. What is not named here passes: a
leader that moves, a coordinator that comes back, a fence, the network (which may have spoilt what was sent), a clock that
will be put right (time stamps).
"""

import contextlib
import math
from collections.abc import Iterator

import anyio
from aiokafka import errors
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    DelegationTokenAuthorizationFailed,
    GroupAuthorizationFailedError,
    InvalidConfigurationError,
    InvalidRequiredAcksError,
    InvalidTopicError,
    InvalidTransactionTimeout,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    RecordTooLargeError,
    SaslAuthenticationFailed,
    SecurityDisabled,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedForMessageFormatError,
    UnsupportedSaslMechanismError,
)

from watcher.journal import Forbidden, Rejected, WrongJournal
from watcher.journal.kafka.oauth_tokens import TokenRefused
from watcher.model.log import JournalError, Unavailable


class InvalidRecord(BrokerResponseError):
    """A broker of today says so of a record that it has looked into; aiokafka has no name for it."""

    errno = 87
    message = "INVALID_RECORD"
    description = "This record has failed the validation on broker and hence will be rejected."


class FencedInstanceId(BrokerResponseError):
    """Another process has joined the group under our name; aiokafka has no name for it and would ask again for ever."""

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = (
        "The broker rejected this static consumer since another one with the same group.instance.id has registered."
    )


for known_to_brokers in (InvalidRecord, FencedInstanceId):
    errors.kafka_errors.setdefault(known_to_brokers.errno, known_to_brokers)

RECORD_ERRORS = (
    InvalidRecord,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    RecordTooLargeError,
    UnsupportedForMessageFormatError,
)
"""Refusals of what was sent: sent again, it is refused again."""
AUTHORIZATION_ERRORS = (
    ClusterAuthorizationFailedError,
    DelegationTokenAuthorizationFailed,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
"""Refusals of our user, or of its rights."""
CREDENTIAL_ERRORS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
"""How a broker, or a token endpoint before it, refuses our credentials."""
CONFIGURATION_ERRORS = (
    InvalidConfigurationError,
    InvalidRequiredAcksError,
    InvalidTopicError,
    InvalidTransactionTimeout,
    SecurityDisabled,
)
"""Refusals of how the cluster or this client is configured. An error about versions is none: the client guesses them while
a broker comes up."""


class DenialTimer:
    """Tells a right that is missing from one that a broker has yet to learn."""

    def __init__(self, apart: float, stands: float) -> None:
        """`apart`: seconds between two refusals that have nothing to do with one another, since whoever is refused asks
        again sooner; `stands`: seconds of refusals after which they are believed."""
        self._apart = apart
        self._stands = stands
        self._since = self._last = -math.inf

    def persists(self, now: float) -> bool:
        """Another refusal, at `now`. Whether refusals have lasted so long that they are to be believed."""
        if now - self._last > self._apart:
            self._since = now
        self._last = now
        return now - self._since >= self._stands

    def clear(self) -> None:
        """What was refused has succeeded."""
        self._last = -math.inf

    @contextlib.contextmanager
    def tolerated(self) -> Iterator[None]:
        """Turns Forbidden into Unavailable until it is to be believed."""
        try:
            yield
        except Forbidden as error:
            if self.persists(anyio.current_time()):
                raise
            raise Unavailable(str(error)) from error


def forbidden(right: str, what: str) -> Forbidden:
    """`right`: "WRITE on topic balances.state.v1"."""
    return Forbidden(f"Kafka forbids it to our user: {right} ({what}); docs/kafka.md has the table of rights")


def refused_credentials(where: str, error: BaseException) -> Forbidden:
    """`where`: of the broker that refused them, if it is known."""
    if isinstance(error, TokenRefused):
        return Forbidden(f"{error.args[0]}: [kafka] sasl_oauth_client_id, its secret or sasl_oauth_scope is wrong")
    return Forbidden(
        f"Kafka {where} refuses our credentials ({type(error).__name__}): [kafka] sasl_mechanism, sasl_username or the password "
        "(sasl_password_env, sasl_password_file), or what stands in the token (sasl_oauth_…), is wrong"
    )


def journal_error(error: BaseException, what: str, denied: str = "", *, sending: bool = False) -> JournalError:
    """The JournalError that `error` means. `what`: what was being done; `sending`: that was to send records; `denied`: the
    right that the cluster refused last, which the client's own errors do not tell.

    The client wraps some errors in others that say nothing, so causes count too.
    """
    last: BaseException | None = error
    while last is not None:
        if isinstance(last, CREDENTIAL_ERRORS):
            return refused_credentials(f"({what})", last)
        if isinstance(last, (*AUTHORIZATION_ERRORS, *CONFIGURATION_ERRORS)) or (
            sending and isinstance(last, RECORD_ERRORS)
        ):
            return _permanent(last, what, denied)
        last = last.__cause__
    return Unavailable(f"Kafka failed ({what}): {error!r}")


def _permanent(error: BaseException, what: str, denied: str) -> JournalError:
    text = f"{type(error).__name__} {error}".strip()
    if isinstance(error, RECORD_ERRORS):
        return Rejected(f"Kafka takes no such record ({what}): {text}")
    if isinstance(error, AUTHORIZATION_ERRORS):
        return forbidden(denied or text, what)
    return WrongJournal(f"Kafka refuses it for good ({what}): {text}")
