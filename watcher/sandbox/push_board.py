"""What is pushed, when and to whom: every move of the ledger on its way to the sockets that subscribed to it.

Pure, and seeded like the faults of answers: the n-th move of a balance always meets the same fate.
"""

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from watcher.model.addresses import SOLANA
from watcher.sandbox.faults import Faults
from watcher.sandbox.push_session import ChainEvent, PushDialect, PushSession
from watcher.sandbox.push_solana import SolanaDialect
from watcher.sandbox.truth import Move, SimulatedBalance, Truth

CHANNELS: Mapping[str, tuple[str, PushDialect]] = {"solana": (SOLANA, SolanaDialect())}
"""Name of a channel → the chain whose moves it tells, and how."""
LATE = (2.0, 10.0)
"""Seconds that a late push comes after its time."""
AGAIN = (0.1, 3.0)
"""Seconds after which one comes again."""
SILENT = ("lost", "cut")
"""Pushes of which nobody gets a frame."""
MOST_PUSHED = 10_000
"""Pushes that the report names, the newest."""


class PushFate(NamedTuple):
    """What goes wrong with the push of one move."""

    faults: tuple[str, ...]
    late: float
    again: float
    forged: SimulatedBalance | None
    """One that has not moved, and is pushed besides."""

    @property
    def what(self) -> str:
        """Of the push itself."""
        worst = next((name for name in ("push_cut", "push_lost", "push_late") if name in self.faults), "push_told")
        return worst.removeprefix("push_")


class DuePush(NamedTuple):
    """One that is on its way. Ordered by its time."""

    due: float
    number: int
    channel: str
    event: ChainEvent
    level: str
    what: str
    """`told`, or the fault that it is: `late`, `repeated`, `lost`, `cut`, `forged`."""


class Pushed(NamedTuple):
    """One that came to somebody who is subscribed, or should have. Times are monotonic seconds."""

    time: float
    moved: float
    channel: str
    key: str
    what: str


class ChannelFigures:
    """What went over one channel."""

    def __init__(self) -> None:
        self.moves = 0
        """Of its chain, while somebody was subscribed."""
        self.frames = 0
        self.connections = 0
        """Made so far."""
        self.faults: Counter[str] = Counter()


class PushBoard:
    """Sessions and pushes of all channels. Times are monotonic seconds."""

    def __init__(self, truth: Truth, seed: int, faults: Callable[[], Faults]) -> None:
        self.sessions: dict[str, list[PushSession]] = {name: [] for name in CHANNELS}
        self.figures = {name: ChannelFigures() for name in CHANNELS}
        self.pushed: deque[Pushed] = deque(maxlen=MOST_PUSHED)
        self.earlier: Callable[[], None] = lambda: None
        """Called when `next_at` may have come nearer."""
        self._truth = truth
        self._seed = seed
        self._faults = faults
        self._waiting: list[DuePush] = []
        self._made = 0
        self._on_chain = {
            name: [balance for balance in truth.balances.values() if balance.key.chain == chain]
            for name, (chain, _) in CHANNELS.items()
        }
        truth.observers.append(self._moved)

    @property
    def next_at(self) -> float:
        """When `advance` has something to do; infinite: never."""
        listened = any(self.sessions.values())
        due = self._waiting[0].due if self._waiting else math.inf
        return min(due, self._truth.next_move if listened else math.inf)

    def connect(self, channel: str, now: float) -> PushSession:
        """A new socket of one of CHANNELS. Nothing of the past comes on it."""
        self._truth.advance(now)
        session = PushSession(CHANNELS[channel][1])
        self.sessions[channel].append(session)
        self.figures[channel].connections += 1
        self.earlier()
        return session

    def disconnect(self, session: PushSession) -> None:
        """Its socket is gone."""
        for sessions in self.sessions.values():
            if session in sessions:
                sessions.remove(session)

    def advance(self, now: float) -> None:
        """Let happen what happens up to `now`, and hand the sessions what is due."""
        self._truth.advance(now)
        while self._waiting and self._waiting[0].due <= now:
            self._deliver(heapq.heappop(self._waiting))

    def _moved(self, balance: SimulatedBalance, move: Move, before: int) -> None:
        for name, (chain, _) in CHANNELS.items():
            if chain == balance.key.chain and self.sessions[name]:
                self.figures[name].moves += 1
                self._announce(name, ChainEvent(balance, move, before, len(balance.moves) - 1))
        self.earlier()

    def _announce(self, channel: str, event: ChainEvent) -> None:
        fate = self._fate(channel, event)
        self.figures[channel].faults.update(fate.faults)
        for level, behind in CHANNELS[channel][1].levels.items():
            reached = self._truth.begins(event.slot + behind) if behind else event.time
            due = max(event.time + self._faults().push_delay, reached) + fate.late
            self._wait(channel, event, level, due, fate.what)
            if "push_repeated" in fate.faults:
                self._wait(channel, event, level, due + fate.again, "repeated")
            if fate.forged is not None:
                self._wait(channel, _unmoved(fate.forged, event), level, due, "forged")

    def _wait(self, channel: str, event: ChainEvent, level: str, due: float, what: str) -> None:
        self._made += 1
        heapq.heappush(self._waiting, DuePush(due, self._made, channel, event, level, what))

    def _fate(self, channel: str, event: ChainEvent) -> PushFate:
        """Every fault throws, so that one probability does not move another's fate."""
        dice = random.Random(f"{self._seed}/push/{channel}/{'/'.join(event.balance.key)}/{event.number}")
        names = ("push_late", "push_repeated", "push_lost", "push_cut", "push_forged")
        met = tuple(name for name in names if dice.random() < getattr(self._faults(), name))
        late, again, place = dice.uniform(*LATE), dice.uniform(*AGAIN), dice.random()
        others = [balance for balance in self._on_chain[channel] if balance is not event.balance]
        return PushFate(
            faults=met,
            late=late if "push_late" in met else 0.0,
            again=again,
            forged=others[int(place * len(others))] if others and "push_forged" in met else None,
        )

    def _deliver(self, push: DuePush) -> None:
        frames = 0
        for session in self.sessions[push.channel]:
            if push.what in SILENT:
                concerned = session.concerned(push.event, push.level)
                session.cut = session.cut or (concerned and push.what == "cut")
                frames += concerned
            else:
                frames += session.tell(push.event, push.level)
        if frames:
            key = "/".join(push.event.balance.key)
            self.pushed.append(Pushed(push.due, push.event.time, push.channel, key, push.what))
            self.figures[push.channel].frames += 0 if push.what in SILENT else frames

    def report(self, wall: Callable[[float], float], *, history: bool) -> dict[str, Any]:
        """For `/_truth`. `wall`: monotonic seconds to Unix ones. `history`: name the pushes, too."""
        found: dict[str, Any] = {name: self._channel(name) for name in CHANNELS}
        if history:
            found["pushed"] = [
                {**each._asdict(), "time": wall(each.time), "moved": wall(each.moved)} for each in self.pushed
            ]
        return found

    def _channel(self, name: str) -> dict[str, Any]:
        sessions, figures = self.sessions[name], self.figures[name]
        return {
            "connected": len(sessions),
            "connections": figures.connections,
            "subscriptions": sum(len(session.subscriptions) for session in sessions),
            "moves": figures.moves,
            "frames": figures.frames,
            "faults": dict(sorted(figures.faults.items())),
        }


def _unmoved(balance: SimulatedBalance, beside: ChainEvent) -> ChainEvent:
    same = Move(beside.time, beside.slot, balance.amount)
    return ChainEvent(balance, same, balance.amount, beside.number)
