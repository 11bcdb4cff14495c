"""What goes wrong on demand, seeded and replayable: the n-th request for one resource always meets the same fate.

Some faults are lies that nobody could tell from the truth: an earlier answer given again where there is no ordering
field, or a row left out of a listing. Two in a row about one balance would be the truth to any client, so a lie is
never followed by another about the same balance before one honest and whole answer has gone out.
"""

import random
from collections import deque

import msgspec

from watcher.sandbox.truth import BalanceKey, SimulatedBalance, Truth

REPEATABLE = 20.0
"""Seconds for which an earlier answer may be given again: less than the shortest default `settle`, 30 s."""
LAG = (2, 40)
"""Slots that a lagging replica is behind."""


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Probabilities for each request, and those of pushes for each move; `latency`, `cache` and `push_delay` are seconds."""

    late: float = 0.0
    """Held back for 0.3 to 2 s."""
    stale: float = 0.0
    """A lagging replica: older slots, or an earlier answer where there are none."""
    torn: float = 0.0
    """Half a body, or a connection closed."""
    refused: float = 0.0
    """500, 503, at times a 429 without cause."""
    missing: float = 0.0
    """A row left out of a listing, once."""
    error: float = 0.0
    """An error that arrives with status 200, where the API does that; an HTML page elsewhere."""
    cached: float = 0.0
    """A cache that ignores its age (TokenKit, Ondo)."""
    mislabel: float = 0.0
    """Helius: the value of slot N labelled N-1."""
    latency: float = 0.0
    """Median seconds of the network, each way."""
    cache: float = 0.0
    """Seconds that Ondo's edge caches an answer (60 at the real one)."""
    push_late: float = 0.0
    """Pushed 2 to 10 s later than it should be."""
    push_repeated: float = 0.0
    """Pushed twice."""
    push_lost: float = 0.0
    """Never pushed."""
    push_cut: float = 0.0
    """The socket breaks instead."""
    push_forged: float = 0.0
    """Pushed besides: a balance that has not moved; of a webhook at times with a wrong signature."""
    push_delay: float = 0.5
    """Seconds from a move to its push."""


SECONDS = ("latency", "cache", "push_delay")


DEFAULT = Faults(
    late=0.03,
    stale=0.05,
    torn=0.01,
    refused=0.02,
    missing=0.02,
    error=0.02,
    cached=0.02,
    mislabel=0.01,
    push_late=0.05,
    push_repeated=0.05,
    push_lost=0.05,
    push_cut=0.01,
    push_forged=0.05,
)


def parse(text: str) -> Faults:
    """`--faults`: `none`, `default`, or `late=0.05,stale=0.05`, the latter also after `default`. Raises ValueError."""
    faults = Faults()
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if part in ("none", "default"):
            faults = DEFAULT if part == "default" else Faults()
            continue
        if name not in Faults.__struct_fields__:
            raise ValueError(f"--faults: no fault is called {name!r}; they are {', '.join(Faults.__struct_fields__)}")
        faults = msgspec.structs.replace(faults, **{name: _number(name, value)})
    return faults


def _number(name: str, value: str) -> float:
    most = 1.0 if name not in SECONDS else 3600.0
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise ValueError(f"--faults: {name}={value!r} is not a number from 0 to {most:g}")
    return number


class Memory:
    """Which balances were last shown falsely, and when each resource was last read honestly."""

    def __init__(self, seed: int) -> None:
        self.lied: set[BalanceKey] = set()
        self._seed = seed
        self._asked: dict[str, int] = {}
        self._views: dict[str, deque[float]] = {}

    def dice(self, resource: str) -> random.Random:
        """The fate of the next request for this resource."""
        self._asked[resource] = number = self._asked.get(resource, 0) + 1
        return random.Random(f"{self._seed}/{resource}/{number}")

    def earlier(self, resource: str, now: float, dice: random.Random) -> float | None:
        """When an answer was given that may be given again."""
        views = [view for view in self._views.get(resource, ()) if view > now - REPEATABLE]
        return dice.choice(views) if views else None

    def remember(self, lens: "Lens", *, seen: bool) -> None:
        """The answer went out. `seen`: certainly, in time; what may not have arrived does not count as honest."""
        self.lied |= lens.lies
        if not seen:
            return
        self.lied -= lens.honest
        for resource in lens.viewed:
            self._views.setdefault(resource, deque(maxlen=8)).append(lens.now)


class Seen(msgspec.Struct, frozen=True):
    """One row of an answer: a balance as this answer shows it."""

    balance: SimulatedBalance
    amount: int
    slot: int


class Lens:
    """How the ledger looks to one request, with that request's faults."""

    def __init__(
        self, truth: Truth, faults: Faults, memory: Memory, dice: random.Random, now: float, *, wall_start: float
    ) -> None:
        """`now`: monotonic seconds. `wall_start`: Unix seconds when monotonic time was 0."""
        self.truth = truth
        self.faults = faults
        self.now = now
        self.dice = dice
        self.lies: set[BalanceKey] = set()
        self.honest: set[BalanceKey] = set()
        self.viewed: list[str] = []
        self.faults_met: list[str] = []
        """The faults that this request met."""
        self._memory = memory
        self._wall_start = wall_start

    def wall(self, time: float) -> float:
        """Unix seconds at monotonic `time`."""
        return self._wall_start + time

    def hit(self, fault: str) -> bool:
        """Throw the dice for one fault. Every call throws, so that one probability does not move another's fate."""
        thrown = self.dice.random()
        return thrown < float(getattr(self.faults, fault))

    def slotted(self, balances: list[SimulatedBalance], behind: int) -> list[Seen]:
        """The balances at a complete slot, `behind` the one in the making; a stale replica shows an older one."""
        slot = self.truth.slot(self.now) - behind
        older = slot - self.dice.randint(*LAG)
        if self.hit("stale") and self._may_hide(balances, slot, older):
            self.faults_met.append("stale")
            slot = older
        return [self._shown(balance, balance.at_slot(slot), slot) for balance in balances]

    def _shown(self, balance: SimulatedBalance, amount: int, slot: int) -> Seen:
        """An absence has no slot to tell its age by; whatever else a lagging replica says, it does."""
        (self.lies if balance.amount and not amount else self.honest).add(balance.key)
        return Seen(balance, amount, slot)

    def _may_hide(self, balances: list[SimulatedBalance], slot: int, older: int) -> bool:
        hidden = (balance for balance in balances if balance.at_slot(slot) and not balance.at_slot(older))
        return not any(balance.key in self._memory.lied for balance in hidden)

    def unslotted(self, balances: list[SimulatedBalance], resource: str) -> list[Seen]:
        """The balances now; a stale replica shows them as an earlier answer did, and nothing betrays it."""
        slot = self.truth.slot(self.now)
        time = self.now
        earlier = self._memory.earlier(resource, self.now, self.dice)
        if self.hit("stale") and earlier is not None and self._may_lie(balances, earlier):
            self.faults_met.append("stale")
            time = earlier
        else:
            self.viewed.append(resource)
        return [self.show(balance, balance.at(time), slot) for balance in balances]

    def show(self, balance: SimulatedBalance, amount: int, slot: int) -> Seen:
        """Note whether this amount is a lie."""
        (self.honest if amount == balance.amount else self.lies).add(balance.key)
        return Seen(balance, amount, slot)

    def without_one(self, rows: list[Seen]) -> list[Seen]:
        """A listing that forgets one row, at times."""
        thrown = self.dice.random()
        if not self.hit("missing") or not rows:
            return rows
        lost = rows[int(thrown * len(rows))]
        if lost.balance.key in self._memory.lied or lost.balance.key in self.lies:
            return rows
        self.faults_met.append("missing")
        self.lies.add(lost.balance.key)
        self.honest.discard(lost.balance.key)
        return [row for row in rows if row is not lost]

    def _may_lie(self, balances: list[SimulatedBalance], time: float) -> bool:
        return not any(balance.at(time) != balance.amount and balance.key in self._memory.lied for balance in balances)
