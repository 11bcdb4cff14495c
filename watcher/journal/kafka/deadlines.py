"""Waiting for the client without being at its mercy.

aiokafka retries in silence and for ever: `start()` and `stop()` hang while a broker is down, and it cancels tasks of its
own. So nothing here waits without a deadline, and only our own cancellation is one.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterator

import anyio
import msgspec
from aiokafka.errors import IllegalOperation, KafkaConnectionError, KafkaError

from watcher.journal.kafka.broker_errors import forbidden, journal_error
from watcher.journal.kafka.rights import DeniedRights
from watcher.model.log import Unavailable

ANYIO_SCOPE_MESSAGE = "Cancelled via cancel scope "
"""How anyio's word for a cancellation of its own begins: it has no public way to ask whose one is."""
STOP = 2.0
"""Seconds that a client may take to end in good order."""


class Deadlines(msgspec.Struct, frozen=True):
    """How long the cluster may take. Seconds. Tests change them; the config does not."""

    reach: float = 30.0
    """A broker must have been reached."""
    start: float = 8.0
    """A client has started."""
    request: float = 5.0
    """An unanswered request is sent anew; below `commit`."""
    transaction: float = 10.0
    """The transaction's own time-out, at the coordinator."""
    commit: float = 8.0
    """A commit has ended; below `transaction`."""
    forgotten: float = 3.0
    """After the fence the ends of our transactions must show; else the cluster has forgotten one."""
    quiet: float = 15.0
    """An open transaction of somebody else may hold us back before we say so."""
    gone: float = 15.0
    """Topics must have been missing for that time before we believe that they were deleted."""
    grace: float = 0.5
    """A successor that has just fenced us writes its claim."""
    stalled: float = 15.0
    """A read without progress is given up."""
    fresh: float = 1.0
    """A look waits for what is written but not yet visible: a commit's marker, or an open transaction."""
    load: float = 3.0
    """The start waits, for each topic, for commits on their way. What is open longer than that was left by a writer that
    died, and only a writer ends it, perhaps one that this process has yet to open."""
    caught_up: float = 30.0
    """The events that came while the state was read have been read."""
    admin: float = 15.0
    """One step of administration has ended."""
    marked: float = 60.0
    """A whole partition has been read in search of a marker that is not where it should be."""
    begun: float = 5.0
    """The end of the marker's transaction stands in the events: the coordinator writes it on its own."""
    heartbeat: float = 5.0
    """A heartbeat that nobody takes is dropped."""
    hints: float = 3.0
    """Hints that nobody takes are given back to whoever sent them: what they could bring forward is read by then."""
    denied: float = 10.0
    """A right must have been missing for that time before we believe that it is: a broker that has just come up may have
    our rights to learn."""


CLIENT_ERRORS = (KafkaError, IllegalOperation, AssertionError, OSError, asyncio.TimeoutError)
"""What a client raises when it cannot go on: its own errors, its state machine's (a producer that is fenced between two
steps forgets its transaction), the network's."""


@contextlib.contextmanager
def ours_only() -> Iterator[None]:
    """A client that cancels its own tasks lets their CancelledError out, as if we had been cancelled: a task group
    that sees it ends without a word, and the whole daemon with it. Here it becomes the client's error."""
    try:
        yield
    except asyncio.CancelledError as error:
        if _asked_for(error):
            raise
        raise KafkaConnectionError("the client cancelled its own work") from error


def _asked_for(error: BaseException | None) -> bool:
    """Whether this is the cancellation of a scope around us, or else of our task by whoever made it.

    A scope that is cancelled ends nothing but what carries its own word: a foreign CancelledError that comes out at
    that very moment goes through it. It says so again at the next wait, so nothing is lost by turning that into an error.
    """
    while isinstance(error, asyncio.CancelledError):
        if error.args and str(error.args[0]).startswith(ANYIO_SCOPE_MESSAGE):
            return True
        error = error.__context__
    task = asyncio.current_task()
    return task is None or (task.cancelling() > 0 and anyio.current_effective_deadline() > -math.inf)


@contextlib.contextmanager
def within(seconds: float, what: str, denied: DeniedRights, *, sending: bool = False) -> Iterator[None]:
    """Turns what goes wrong inside, or takes longer, into the JournalError that it means; its text names `what`.

    `denied`: what the cluster refuses. A client to which it has refused something asks again in silence until its time is up.
    `sending`: records are sent inside, and may be refused.
    """
    before = denied.count
    try:
        with anyio.fail_after(seconds), ours_only():
            yield
    except TimeoutError:
        if denied.since(before):
            raise forbidden(denied.last, what) from None
        raise Unavailable(f"Kafka did not answer within {seconds:g} s ({what}): is the broker up?") from None
    except CLIENT_ERRORS as error:
        meant = journal_error(error, what, denied.last, sending=sending)
        if isinstance(meant, Unavailable) and denied.since(before):
            meant = forbidden(denied.last, what)
        raise meant from error
