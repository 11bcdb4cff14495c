"""A source of hints behind a websocket: one loop for every channel. It connects, sends at a pace, reads at a pace, comes back.

What the other side sends is not believed, and bounded: the size of a message, what waits to be read, how much is read in a
second. Whatever it does, this goes on: only cancellation ends it.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from math import inf
from typing import NoReturn, cast

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from watcher.hints.channel import Channel, ChannelError, HintSink, WatchedScope
from watcher.hints.figures import SourceFigures, SourceType
from watcher.hints.pace import Pace
from watcher.hints.socket_source_connection import MOST_FRAGMENTS, PacedConnection
from watcher.redaction.safe_text import one_line
from watcher.redaction.secret import Secret
from watcher.runtime.backoff import Backoff

LONGEST_WAIT = 3600.0
"""That the other side may ask for."""

logger = structlog.get_logger()


class SocketTuning(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, and sizes. Tests shorten them; the config does not."""

    open: float = 10.0
    """For name, connection, TLS and handshake together."""
    ping: float = 60.0
    """Between two pings: Helius ends a connection on which nothing came from us for ten minutes."""
    pong: float = 20.0
    """Without an answer to a ping the connection is dead."""
    answer: float = 30.0
    """Without any message after something was asked for, it is of no use."""
    close: float = 2.0
    """For a farewell."""
    backoff: Backoff = Backoff(first=0.5, longest=60.0)
    """Between two tries."""
    steady: float = 10.0
    """Who stayed so long is connected to anew without a long pause."""
    tick: float = 1.0
    """Between two looks at what is covered and what was refused."""
    settle: float = 60.0
    """After a reconnect, until what was missed is hinted although more is still being covered. From one time that a node has
    lost something to the next."""
    message_bytes: int = 2**20
    queue: int = 16
    """Messages that wait to be read; beyond, the other side has to wait."""
    sends: float = 50.0
    """Messages a second: five thousand subscriptions are not sent at once."""
    sends_at_once: int = 50
    reads: float = 2000.0
    """Frames a second, pings and fragments too; a long one counts as several."""
    reads_at_once: int = 4000


TURN = 64
"""Messages that are read before others have their turn: what waits already is given without one."""


class _Connect(connect):
    """Follows no redirect: the key in the address is for that host alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class SocketSource:
    """One `[[hints]]` table with an address. `run` keeps it there; `watch` says what it is to tell of."""

    def __init__(  # noqa: PLR0917 - finished collaborators
        self,
        name: str,
        type: SourceType,  # noqa: A002 - the config's word
        url: Secret,
        channel: Channel,
        sink: HintSink,
        figures: SourceFigures,
        *,
        wall: Callable[[], int],
        seed: int,
        tuning: SocketTuning = SocketTuning(),  # noqa: B008 - it is frozen
    ) -> None:
        """`wall` gives wall-clock microseconds. `seed` makes pauses replayable."""
        self.name = name
        self.type = type
        self._url = url
        self._channel = channel
        self._sink = sink
        self._figures = figures
        self._wall = wall
        self._random = random.Random(seed)  # noqa: S311 - it only spreads the crowd
        self._tuning = tuning
        self._pause = 0.0
        """The last one, before it was spread."""
        self._entered: float | None = None
        """Since when it is there, in monotonic seconds."""
        self._coverage = _Coverage(name, channel, sink, tuning)

    def watch(self, watched: Sequence[WatchedScope]) -> Generator[None, None, None]:
        """From now on these, all of them; within a second after the last step while it is connected. As `Channel.watch`."""
        yield from self._channel.watch(watched)
        self._coverage.changed = True
        self._show_counts()

    async def run(self) -> NoReturn:
        """For ever. Raises nothing but cancellation."""
        while True:
            try:
                problem, wait = await self._connection()
            finally:
                lived = self._leave()
            await asyncio.sleep(self._next_pause(problem, wait, lived))

    async def _connection(self) -> tuple[str, float]:
        """One connection, until it is lost: why, and how many seconds to wait at least."""
        tuning = self._tuning
        try:
            async with _Connect(
                self._url.reveal(),
                compression=None,  # a few bytes of it may become gigabytes
                proxy=None,  # as for the providers: no proxy that the environment names sees the key
                open_timeout=tuning.open,
                ping_interval=tuning.ping,
                ping_timeout=tuning.pong,
                close_timeout=tuning.close,
                max_size=tuning.message_bytes,
                max_queue=tuning.queue,
                create_connection=cast(
                    "type[ClientConnection]", partial(PacedConnection, Pace(tuning.reads, tuning.reads_at_once))
                ),
            ) as socket:
                try:
                    self._enter()
                    await self._converse(socket)
                except asyncio.CancelledError:
                    # Who is cancelled cannot wait for a farewell. What is lost already has none.
                    if not socket.connection_lost_waiter.done():
                        socket.transport.abort()
                    raise
        except ChannelError as error:
            return one_line(str(error)), 0.0
        except InvalidStatus as refused:
            return _refusal(refused, tuning.backoff.longest)
        except ConnectionClosed as closed:
            return _closing(closed, tuning), 0.0
        except TimeoutError:
            return f"no connection within {tuning.open:g} s", 0.0
        except (OSError, WebSocketException, ValueError) as error:  # ValueError: a host that no lookup takes
            return _words(error), 0.0

    async def _converse(self, socket: ClientConnection) -> NoReturn:
        """Raises what ends it."""
        clock = asyncio.get_running_loop().time
        sends = Pace(self._tuning.sends, self._tuning.sends_at_once)
        waiting: deque[str] = deque()
        asked: float | None = None
        """Since when nothing has come, although something was asked for."""
        ticked, turn = clock(), 0
        while True:
            now, turn = clock(), turn + 1
            if now >= ticked + self._tuning.tick:
                ticked = now
                self._channel.give_turn()
                self._coverage.tell(now, settled=not waiting)
            waiting += self._channel.outgoing()
            while waiting and not sends.wait(now):
                sends.take()
                await socket.send(waiting.popleft())
                asked = now if asked is None else asked
            if asked is not None and now > asked + self._tuning.answer:
                raise ChannelError(f"it takes what we ask for and says nothing for {self._tuning.answer:g} s")
            frame = await self._frame(socket, sends.wait(now) if waiting else ticked + self._tuning.tick - now)
            if frame is None:
                continue
            asked = None
            if self._received(frame, clock()):
                sends.slow_down()
            if turn % TURN == 0:
                await asyncio.sleep(0)

    async def _frame(self, socket: ClientConnection, seconds: float) -> str | bytes | None:
        """The next message; None: there was none within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(seconds, self._tuning.tick))):
                return await socket.recv()
        if socket.state is not State.OPEN:
            # Who broke the protocol is waited for by `recv` without an end, and it takes what was left for whole messages.
            await socket.close()
            await socket.wait_closed()
            raise socket.protocol.close_exc
        return None

    def _received(self, frame: str | bytes, now: float) -> bool:
        """Whether the other side refused something with it. Raises ChannelError."""
        before = self._channel.subscriptions, self._channel.left_out
        try:
            news = self._channel.received(frame)
        except ChannelError:
            self._figures.count("rejected", now)
            raise
        if news.hints:
            self._sink.take(self.name, news.hints)
        if news.missed:
            self._coverage.undone = True
        if news.refused is not None:
            logger.warning("hints.refused", source=self.name, type=self.type, why=news.refused)
        if before != (self._channel.subscriptions, self._channel.left_out):
            self._coverage.changed = True
            self._show_counts()
        return news.refused is not None

    def _enter(self) -> None:
        self._channel.connected()
        self._figures.connected, self._figures.problem = True, None
        self._figures.since = self._wall()
        self._figures.connections += 1
        self._entered = now = asyncio.get_running_loop().time()
        self._coverage.begin(now, again=self._figures.connections > 1)
        logger.info("hints.connected", source=self.name, type=self.type, connections=self._figures.connections)

    def _leave(self) -> float:
        """It is away, or never was there. For how many seconds it was there."""
        self._channel.disconnected()
        entered, self._entered = self._entered, None
        if self._figures.connected or self._figures.since is None:
            self._figures.since = self._wall()
        self._figures.connected = False
        self._coverage.end()
        self._show_counts()
        return 0.0 if entered is None else asyncio.get_running_loop().time() - entered

    def _show_counts(self) -> None:
        self._figures.subscriptions = self._channel.subscriptions
        self._figures.left_out = self._channel.left_out

    def _next_pause(self, problem: str, wait: float, lived: float) -> float:
        """Seconds; says why. They grow while connections do not last, so that one that is cut at once is no storm."""
        self._pause = self._tuning.backoff.after(0.0 if lived >= self._tuning.steady else self._pause)
        pause = max(self._pause, min(wait, LONGEST_WAIT)) * self._random.uniform(0.5, 1.0)
        self._figures.problem = problem
        logger.warning("hints.away", source=self.name, type=self.type, why=problem, again_in=round(pause, 1))
        return pause


class _Coverage:
    """What of it the sink knows: which scopes are covered, and that something was missed while it was away."""

    def __init__(self, name: str, channel: Channel, sink: HintSink, tuning: SocketTuning) -> None:
        self._name = name
        self._channel = channel
        self._sink = sink
        self._tuning = tuning
        self.changed = False
        """It may be another than the sink knows."""
        self.undone = False
        """Something was lost while it was there: all of it is hinted, and a node that says so without an end is not obeyed."""
        self._undone_at = -inf
        self._covered: Collection[object] = ()
        self._missed_since: float | None = None
        """Since when it is there again, while nobody has been told what that means."""

    def begin(self, now: float, *, again: bool) -> None:
        self._missed_since = now if again else None

    def tell(self, now: float, *, settled: bool) -> None:
        """`settled`: nothing more is being asked for."""
        grown = False
        if self.changed:
            self.changed = False
            scopes = self._channel.covered()
            grown = len(scopes) > len(self._covered)
            self._covered = scopes
            self._sink.covers(self._name, scopes)
        if self.undone and now >= self._undone_at + self._tuning.settle:
            self.undone, self._undone_at = False, now
            self._sink.missed(self._name)
        since = self._missed_since
        # Only what is covered is hinted, so it is told once all is; a channel that never gets there does not hold it back.
        if since is not None and self._covered and ((settled and not grown) or now >= since + self._tuning.settle):
            self._missed_since = None
            self._sink.missed(self._name)

    def end(self) -> None:
        self.changed = self.undone = False
        if self._covered:
            self._covered = ()
            self._sink.covers(self._name, ())


def _refusal(refused: InvalidStatus, longest: float) -> tuple[str, float]:
    """In our words, and the seconds that it asks for; a key that is refused does not mend soon."""
    response = refused.response
    status = response.status_code
    meaning = {
        401: ": it does not take the key in the address",
        403: ": it does not take the key in the address, or not from here",
        404: ": there is nothing at that path",
        429: ": too often, or more connections than the plan has",
    }.get(status, ": write the address that it leads to; no redirect is followed" if 300 <= status < 400 else "")
    later = response.headers.get_all("Retry-After")
    seconds = float(later[0]) if later and later[0].isdecimal() and len(later[0]) < 10 else 0.0
    return f"HTTP {status}{meaning}", longest if status in (401, 403) and not seconds else seconds


def _closing(closed: ConnectionClosed, tuning: SocketTuning) -> str:
    if closed.rcvd is not None and (closed.rcvd_then_sent or closed.sent is None):
        return f"closed by the other side with {closed.rcvd.code} {one_line(closed.rcvd.reason)}".rstrip()
    meaning = {
        1002: "it speaks no websocket as it should",
        1007: "it sent a text that is not UTF-8",
        1009: f"it sent a message of more than {tuning.message_bytes} bytes, or in more than {MOST_FRAGMENTS} pieces",
        1011: f"no answer to a ping within {tuning.pong:g} s",
    }
    return meaning.get(closed.sent.code, "the connection was lost") if closed.sent else "the connection was lost"


def _words(error: Exception) -> str:
    """Of what went wrong before there was a connection. What the library says may hold the address: that is withheld."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return one_line(text) or type(error).__name__
