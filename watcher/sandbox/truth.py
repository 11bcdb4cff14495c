"""What really happens: a ledger of balances that moves by itself, and remembers every move.

Pure and seeded. Changes are a Poisson process over the whole ledger, drawn in the order of their own times, so that
the same seed and rate give the same history however often, and however late, it is asked.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import NamedTuple

SLOT_SECONDS = 0.4


class BalanceKey(NamedTuple):
    """The canonical parts of one balance."""

    provider: str
    chain: str
    account: str
    token: str
    kind: str = "total"


class Move(NamedTuple):
    """From `time` (monotonic seconds), within `slot`, the balance is `amount` (integer, smallest units)."""

    time: float
    slot: int
    amount: int


class SimulatedBalance:
    """One balance and its whole history, the oldest move first."""

    def __init__(
        self,
        key: BalanceKey,
        amount: int,
        scale: int,
        *,
        symbol: str,
        in_units: bool = False,
        digits: int = 15,
        weight: float = 1.0,
    ) -> None:
        self.key = key
        self.symbol = symbol
        self.scale = scale
        """Smallest units to a token: 10**scale. What the provider says of it is its own affair."""
        self.in_units = in_units
        """The provider speaks in token units (`1.5`), not in smallest ones."""
        self.digits = digits
        """Amounts start with at most so many digits."""
        self.weight = weight
        self.moves = [Move(-math.inf, 0, amount)]
        self._times = [-math.inf]
        self._slots = [0]

    @property
    def amount(self) -> int:
        return self.moves[-1].amount

    def at(self, time: float) -> int:
        """The amount after every move up to `time`."""
        return self.moves[bisect_right(self._times, time) - 1].amount

    def at_slot(self, slot: int) -> int:
        """The amount when `slot` was complete."""
        return self.moves[bisect_right(self._slots, slot) - 1].amount

    def move(self, time: float, slot: int, amount: int) -> None:
        self.moves.append(Move(time, slot, amount))
        self._times.append(time)
        self._slots.append(slot)

    def text(self, amount: int) -> str:
        """An amount as BalanceChanged writes it: exact, plain, without trailing zeros."""
        return plain(amount, self.scale) if self.in_units else str(amount)


def plain(amount: int, scale: int) -> str:
    """`plain(1500000, 6)` → `"1.5"`."""
    digits = str(amount).rjust(scale + 1, "0")
    fraction = digits[len(digits) - scale :].rstrip("0")
    whole = digits[: len(digits) - scale]
    return f"{whole}.{fraction}" if fraction else whole


class Truth:
    """All balances, and the clock that they move by. `start` and every `now` are seconds of one monotonic clock."""

    def __init__(
        self, balances: Iterable[SimulatedBalance], *, seed: int, rate: float, start: float, slot: int
    ) -> None:
        """`rate`: changes a second over the whole ledger, each provider's part is the same; `slot`: the first one."""
        self.balances = {balance.key: balance for balance in balances}
        self.start = start
        self.rate = rate
        self._first_slot = slot
        self.frozen = False
        self.moves_made = 0
        """Moves so far."""
        self.observers: list[Callable[[SimulatedBalance, Move, int], None]] = []
        """Each is given every move as it is made: the balance, the move, the amount before it."""
        self._random = random.Random(f"{seed}/moves")
        self._by_provider: dict[str, list[SimulatedBalance]] = {}
        self._by_account: dict[tuple[str, str], list[SimulatedBalance]] = {}
        for balance in self.balances.values():
            self._by_provider.setdefault(balance.key.provider, []).append(balance)
            self._by_account.setdefault((balance.key.provider, balance.key.account), []).append(balance)
        self._names = sorted(self._by_provider)
        self._weights = {
            name: list(accumulate(balance.weight for balance in found)) for name, found in self._by_provider.items()
        }
        self._next = start + self._gap()

    def slot(self, now: float) -> int:
        """The slot that is being made at `now`."""
        return self._first_slot + math.floor((now - self.start) / SLOT_SECONDS)

    def begins(self, slot: int) -> float:
        """When that slot begins to be made."""
        return self.start + (slot - self._first_slot) * SLOT_SECONDS

    @property
    def next_move(self) -> float:
        """When something will happen by itself; infinite: never."""
        return math.inf if self.frozen else self._next

    def of(self, provider: str, **parts: str) -> list[SimulatedBalance]:
        """The provider's balances whose key has all the given parts, in their fixed order."""
        account = parts.get("account")
        near = self._by_account.get((provider, account), ()) if account else self._by_provider.get(provider, ())
        return [
            balance for balance in near if all(getattr(balance.key, part) == value for part, value in parts.items())
        ]

    def advance(self, now: float) -> None:
        """Let everything happen that happens up to `now`. A time already passed changes nothing."""
        while not self.frozen and self._next <= now:
            self._happen(self._next)
            self._next += self._gap()

    def freeze(self, now: float) -> None:
        """No more moves by itself. The clock and the slots go on."""
        self.advance(now)
        self.frozen = True

    def thaw(self, now: float) -> None:
        if self.frozen:
            self.frozen = False
            self._next = now + self._gap()

    def put(self, balance: SimulatedBalance, amount: int, now: float) -> None:
        """A move on demand."""
        self.advance(now)
        if amount != balance.amount:
            self._move(balance, now, amount)

    def _gap(self) -> float:
        return self._random.expovariate(self.rate) if self.rate > 0 else math.inf

    def _happen(self, time: float) -> None:
        name = self._random.choice(self._names)
        balance = self._random.choices(self._by_provider[name], cum_weights=self._weights[name])[0]
        self._move(balance, time, self._another(balance))

    def _move(self, balance: SimulatedBalance, time: float, amount: int) -> None:
        before = balance.amount
        balance.move(time, self.slot(time), amount)
        self.moves_made += 1
        for observe in self.observers:
            observe(balance, balance.moves[-1], before)

    def _another(self, balance: SimulatedBalance) -> int:
        """An amount that differs from the present one: mostly a payment in or out, at times all of it or one undone."""
        present = balance.amount
        dice = self._random.random()
        if present == 0:
            return some_amount(self._random, balance.digits)
        if dice < 0.04:
            return 0
        if dice < 0.08 and len(balance.moves) > 1:
            return balance.moves[-2].amount
        part = max(1, int(present * self._random.uniform(0.0005, 0.2)))
        grown = present + part
        return grown if dice < 0.54 and len(str(grown)) <= balance.digits + 1 else present - part


def some_amount(dice: random.Random, digits: int) -> int:
    """A positive amount of up to so many digits, small ones as likely as large ones."""
    length = dice.randint(max(1, digits - 4), digits)
    return dice.randrange(10 ** (length - 1), 10**length)
