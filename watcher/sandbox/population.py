"""Who lives in the sandbox: accounts, tokens and opening balances, all made from the seed, and watches that see them all.

A few tokens bear their real mainnet addresses, so that a screen shows names that people know. Accounts are made up.
"""

import random
from collections.abc import Iterable
from typing import Protocol

from watcher.model.addresses import FELT_BOUND, base58
from watcher.sandbox.truth import BalanceKey, SimulatedBalance, some_amount

WRAPPED_SOL = "So11111111111111111111111111111111111111112"
MINTS = (
    ("USDC", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", 6),
    ("wSOL", WRAPPED_SOL, 9),
    ("USDT", "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB", 6),
    ("jupSOL", "jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v", 9),
    ("SRM", "SRMuApVNdxXokk5GT7XD5cUUgXMBCoAz2LHeuAoKWRt", 6),
)
"""Symbol, mint, decimals."""

NATIVE = "native"
EMPTY_AT_FIRST = 0.1
"""The part of the balances that open at zero, and so appear later."""


class Inhabited(Protocol):
    """What a population needs of a simulated API."""

    @property
    def name(self) -> str: ...

    def populate(self, population: "Population", /) -> None: ...


class Population:
    """Every balance of the seed, as each API populates it. The watches cover each balance exactly once."""

    def __init__(self, seed: int, apis: Iterable[Inhabited]) -> None:
        self.balances: list[SimulatedBalance] = []
        self.watches: dict[str, list[dict[str, object]]] = {}
        """Entries as `[[providers.NAME.watch]]` takes them."""
        for api in apis:
            self._entries = self.watches.setdefault(api.name, [])
            self.dice = random.Random(f"{seed}/_{api.name}")
            """Of the API that populates now: what others draw moves none of its balances."""
            api.populate(self)

    def watch(self, **entry: object) -> None:
        """One `[[providers.NAME.watch]]` of the API that populates now."""
        self._entries.append(entry)

    def solana_address(self) -> str:
        return base58(b"\x01" + self.dice.randbytes(31))

    def evm_address(self) -> str:
        return f"0x{self.dice.getrandbits(160):040x}"

    def felt_address(self) -> str:
        return f"0x{self.dice.randrange(2**200, FELT_BOUND):064x}"

    def add(
        self,
        key: BalanceKey,
        scale: int,
        symbol: str,
        *,
        digits: int,
        empty: float = EMPTY_AT_FIRST,
        in_units: bool = False,
        part: float = 1.0,
    ) -> None:
        """`scale`, `in_units`: as SimulatedBalance has them. `digits`: of the opening amount, at most. `empty`: how
        probably it opens at zero. `part`: how lively it is beside others of its rank; a provider's first ones move most.
        """
        amount = 0 if self.dice.random() < empty else some_amount(self.dice, digits)
        rank = sum(balance.key.provider == key.provider for balance in self.balances)
        weight = part / (rank + 2) ** 0.7
        self.balances.append(
            SimulatedBalance(key, amount, scale, symbol=symbol, in_units=in_units, digits=digits, weight=weight)
        )
