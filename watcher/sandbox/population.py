"""Who lives in the sandbox: accounts, tokens and opening balances, all made from the seed, and watches that see them all.

A few tokens bear their real mainnet addresses, so that a screen shows names that people know. Accounts are made up.
"""

import random

from watcher.model.addresses import BSC, ETHEREUM, FELT_BOUND, SOLANA, STARKNET
from watcher.sandbox.truth import BalanceKey, SimulatedBalance, some_amount

PROVIDERS = ("jupiter", "bloxroute", "helius", "ondo", "tokenkit")

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
WRAPPED_SOL = "So11111111111111111111111111111111111111112"
MINTS = (
    ("USDC", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", 6),
    ("wSOL", WRAPPED_SOL, 9),
    ("USDT", "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB", 6),
    ("jupSOL", "jupSoLaHXQiZZTSfEWMTRRgpnyFm8f6sZdosWBjx93v", 9),
    ("SRM", "SRMuApVNdxXokk5GT7XD5cUUgXMBCoAz2LHeuAoKWRt", 6),
)
"""Symbol, mint, decimals."""
ETHEREUM_STOCKS = {
    "AAPLon": "0x14c3abf95cb9c93a8b82c1cdcb76d72cb87b2d4c",
    "TSLAon": "0xf6b1117ec07684d3958cad8beb1b302bfd21103f",
}
STOCKS = ("AAPLon", "TSLAon", "NVDAon")
STARKNET_TOKENS = (("USDC", 6), ("ETH", 18), ("STRK", 18), ("WBTC", 8), ("LORDS", 18), ("EKUBO", 18))
STARKNET_USDC = "0x053c91253bc9682c04929ca02ed00b3e423f6710d2ee7e0d5ebb06f3ecf368a8"

NATIVE = "native"
EMPTY_AT_FIRST = 0.1
"""The part of the balances that open at zero, and so appear later."""


def base58(data: bytes) -> str:
    number, text = int.from_bytes(data), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


class Population:
    """Every balance of the seed. The watches cover each of them exactly once."""

    def __init__(self, seed: int) -> None:
        self.balances: list[SimulatedBalance] = []
        self.watches: dict[str, list[dict[str, str]]] = {name: [] for name in PROVIDERS}
        """Entries as `[[providers.NAME.watch]]` takes them."""
        self._seed = seed
        self._dice = random.Random(f"{seed}/population")
        for settle in (self._jupiter, self._bloxroute, self._helius, self._ondo, self._tokenkit):
            self._dice = random.Random(f"{seed}/{settle.__name__}")
            settle()

    def _key_bytes(self) -> str:
        return base58(b"\x01" + self._dice.randbytes(31))

    def _evm(self) -> str:
        return f"0x{self._dice.getrandbits(160):040x}"

    def _felt(self) -> str:
        return f"0x{self._dice.randrange(2**200, FELT_BOUND):064x}"

    def _add(
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
        """`part`: how lively the balance is beside others of its rank; the first ones of a provider move most."""
        amount = 0 if self._dice.random() < empty else some_amount(self._dice, digits)
        rank = sum(balance.key.provider == key.provider for balance in self.balances)
        weight = part / (rank + 2) ** 0.7
        self.balances.append(
            SimulatedBalance(key, amount, scale, symbol=symbol, in_units=in_units, digits=digits, weight=weight)
        )

    def _jupiter(self) -> None:
        for _ in range(4):
            wallet = self._key_bytes()
            self.watches["jupiter"].append({"account": wallet})
            self._add(BalanceKey("jupiter", SOLANA, wallet, NATIVE), 9, "SOL", digits=12, empty=0)
            for symbol, mint, scale in MINTS:
                self._add(BalanceKey("jupiter", SOLANA, wallet, mint), scale, symbol, digits=scale + 6)

    def _bloxroute(self) -> None:
        for _ in range(3):
            owner = self._key_bytes()
            self.watches["bloxroute"].append({"account": owner})
            for symbol, mint, scale in MINTS[:4]:
                named = "SOL" if mint == WRAPPED_SOL else symbol
                for kind, empty, part in (("settled", 0.1, 1.0), ("unsettled", 0.8, 0.15), ("open_orders", 0.8, 0.15)):
                    key = BalanceKey("bloxroute", SOLANA, owner, mint, kind)
                    self._add(key, scale, named, digits=13, empty=empty, in_units=True, part=part)

    def _helius(self) -> None:
        for rank in range(16):
            symbol, mint, scale = MINTS[rank % len(MINTS)]
            account = self._key_bytes()
            self.watches["helius"].append({"account": account, "token": mint})
            self._add(BalanceKey("helius", SOLANA, account, mint), scale, symbol, digits=scale + 5)

    def _ondo(self) -> None:
        """Ethereum: two tokens' holders and single balances; BNB Chain: holders; Solana: the whole chain."""
        watches = self.watches["ondo"]
        tokens = self._ondo_chain(ETHEREUM, holders=4)
        watches += [{"chain": "ethereum-1", "token": token} for token in tokens[:2]]
        watches += [
            {"chain": "ethereum-1", "account": balance.key.account, "token": balance.key.token}
            for balance in self.balances
            if balance.key.chain == ETHEREUM and balance.key.token == tokens[2]
        ]
        self._ondo_chain(BSC, holders=3)
        holders = {balance.key.account: None for balance in self.balances if balance.key.chain == BSC}
        watches += [{"chain": "bsc-56", "account": holder} for holder in holders]
        self._ondo_chain(SOLANA, holders=3)
        watches.append({"chain": "solana-900"})

    def _ondo_chain(self, chain: str, holders: int) -> list[str]:
        address = self._key_bytes if chain == SOLANA else self._evm
        scale = 9 if chain == SOLANA else 18
        accounts = [address() for _ in range(holders)]
        known = ETHEREUM_STOCKS if chain == ETHEREUM else {}
        tokens = [known.get(symbol) or address() for symbol in STOCKS]
        for symbol, token in zip(STOCKS, tokens, strict=True):
            for account in accounts:
                self._add(BalanceKey("ondo", chain, account, token), scale, symbol, digits=scale + 3, in_units=True)
        return tokens

    def _tokenkit(self) -> None:
        tokens = [
            (symbol, scale, STARKNET_USDC if symbol == "USDC" else self._felt()) for symbol, scale in STARKNET_TOKENS
        ]
        for rank in range(6):
            account = self._felt()
            listed = rank >= 4
            if listed:
                self.watches["tokenkit"].append({"account": account})
            for symbol, scale, token in tokens:
                self._add(BalanceKey("tokenkit", STARKNET, account, token), scale, symbol, digits=scale + 5)
                if not listed:
                    self.watches["tokenkit"].append({"account": account, "token": token})
