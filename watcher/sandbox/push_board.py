"""What is pushed, when and to whom: every move of the ledger on its way to the sockets that subscribed to it.

Pure, and seeded like the faults of answers: the n-th move of a balance always meets the same fate.
"""

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from watcher.model.addresses import BSC, ETHEREUM, SOLANA, STARKNET
from watcher.sandbox.faults import Faults
from watcher.sandbox.push_evm import EvmDialect
from watcher.sandbox.push_session import ChainEvent, PushDialect, PushReceiver, PushSession
from watcher.sandbox.push_solana import SolanaDialect
from watcher.sandbox.push_starknet import StarknetDialect
from watcher.sandbox.truth import Move, SimulatedBalance, Truth
from watcher.sandbox.webhooks import WebhookSession

WEBHOOK = "webhook"
DIALECTS: Mapping[str, PushDialect] = {
    "solana": SolanaDialect(),
    "ethereum": EvmDialect(1),
    "bsc": EvmDialect(56),
    "starknet": StarknetDialect(),
}
"""Channel of sockets → what is spoken there."""
CHAINS: Mapping[str, str] = {
    "solana": SOLANA,
    "ethereum": ETHEREUM,
    "bsc": BSC,
    "starknet": STARKNET,
    WEBHOOK: STARKNET,
}
"""Channel → the chain whose moves it tells."""
AT_ONCE: Mapping[str, int] = {"": 0}
"""The levels of a channel that has no dialect."""
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
        self.messages = 0
        self.connections = 0
        """Made so far."""
        self.faults: Counter[str] = Counter()


class PushBoard:
    """Sessions and pushes of all channels. Times are monotonic seconds."""

    def __init__(self, truth: Truth, seed: int, faults: Callable[[], Faults]) -> None:
        self.receivers: dict[str, list[PushReceiver]] = {name: [] for name in CHAINS}
        self.figures = {name: ChannelFigures() for name in CHAINS}
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
            for name, chain in CHAINS.items()
        }
        truth.observers.append(self._moved)

    @property
    def next_at(self) -> float:
        """When `advance` has something to do; infinite: never."""
        listened = any(self.receivers.values())
        due = self._waiting[0].due if self._waiting else math.inf
        return min(due, self._truth.next_move if listened else math.inf)

    def connect(self, channel: str, now: float) -> PushSession:
        """A new socket of one of DIALECTS."""
        session = PushSession(DIALECTS[channel])
        self.join(channel, session, now)
        return session

    def join(self, channel: str, receiver: PushReceiver, now: float) -> None:
        """It is told of what happens on that channel from now on."""
        self._truth.advance(now)
        self.receivers[channel].append(receiver)
        self.figures[channel].connections += 1
        self.earlier()

    def leave(self, receiver: PushReceiver) -> None:
        """Nobody is there any more."""
        for receivers in self.receivers.values():
            if receiver in receivers:
                receivers.remove(receiver)

    def advance(self, now: float) -> None:
        """Let happen what happens up to `now`, and hand the sessions what is due."""
        self._truth.advance(now)
        while self._waiting and self._waiting[0].due <= now:
            self._deliver(heapq.heappop(self._waiting))

    def _moved(self, balance: SimulatedBalance, move: Move, before: int) -> None:
        for name, chain in CHAINS.items():
            if chain == balance.key.chain and self.receivers[name]:
                self.figures[name].moves += 1
                self._announce(name, ChainEvent(balance, move, before, len(balance.moves) - 1))
        self.earlier()

    def _announce(self, channel: str, event: ChainEvent) -> None:
        fate = self._fate(channel, event)
        self.figures[channel].faults.update(fate.faults)
        levels = DIALECTS[channel].levels if channel in DIALECTS else AT_ONCE
        for level, behind in levels.items():
            reached = self._truth.begins(event.slot + behind) if behind else event.time
            due = max(event.time + self._faults().push_delay, reached) + fate.late
            self._wait(channel, event, level, due, fate.what)
            if "push_repeated" in fate.faults:
                again = msgspec.structs.replace(event, again=True)
                self._wait(channel, again, level, due + fate.again, "repeated")
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
        messages = 0
        for receiver in self.receivers[push.channel]:
            if push.what == "lost":
                messages += receiver.concerned(push.event, push.level)
            elif push.what == "cut":
                messages += receiver.break_off(push.event, push.level)
            else:
                messages += receiver.tell(push.event, push.level)
        if messages:
            key = "/".join(push.event.balance.key)
            self.pushed.append(Pushed(push.due, push.event.time, push.channel, key, push.what))
            self.figures[push.channel].messages += 0 if push.what in SILENT else messages

    def report(self, wall: Callable[[float], float], *, history: bool) -> dict[str, Any]:
        """For `/_truth`. `wall`: monotonic seconds to Unix ones. `history`: name the pushes, too."""
        found: dict[str, Any] = {name: self._channel(name) for name in CHAINS}
        if history:
            found["pushed"] = [
                {**each._asdict(), "time": wall(each.time), "moved": wall(each.moved)} for each in self.pushed
            ]
        return found

    def _channel(self, name: str) -> dict[str, Any]:
        figures = self.figures[name]
        sessions = [each for each in self.receivers[name] if isinstance(each, PushSession)]
        webhooks = [each.report() for each in self.receivers[name] if isinstance(each, WebhookSession)]
        return {
            "connected": len(self.receivers[name]),
            "connections": figures.connections,
            "subscriptions": sum(len(session.subscriptions) for session in sessions),
            "moves": figures.moves,
            "messages": figures.messages,
            "faults": dict(sorted(figures.faults.items())),
            **({"deliveries": webhooks} if name == WEBHOOK else {}),
        }


def _unmoved(balance: SimulatedBalance, beside: ChainEvent) -> ChainEvent:
    """As if a little had left it. Pushed beside that event."""
    move = Move(beside.time, beside.slot, balance.amount)
    return ChainEvent(balance, move, balance.amount + 1, beside.number, forged=True)
