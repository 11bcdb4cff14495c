"""Hints from an Ethereum node, or one of BNB Chain: the logs of tokens that move balances. Pure.

geth's `eth_subscribe` with `logs`: https://geth.ethereum.org/docs/interacting-with-geth/rpc/pubsub. One address is one chain.
"""

import re
from collections.abc import Collection, Generator, Iterator, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from watcher.hints.channel import ChannelError, News, WatchedScope
from watcher.hints.chunks import Chunk, Chunks
from watcher.hints.json_rpc import JsonRpc, NodeError, Notification, Request, SubscriptionId, Word
from watcher.hints.named import WATCHES_PER_STEP, Named, named
from watcher.hints.repeats import Repeats
from watcher.hints.subscriptions import Subscriptions, first_come
from watcher.hints.unlisted_tokens import UnlistedTokens
from watcher.model.addresses import ETHEREUM
from watcher.model.hints import Hint
from watcher.model.keys import Scope

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""keccak256 of `Transfer(address,address,uint256)`: of ERC-20, and of ERC-721 with the token's number as a fourth topic."""
DEPOSIT = "0xe1fffcc4923d04b559f4d29a8bfc6cda04eb5b0d3c460751c2402c5c5cc9109c"
WITHDRAWAL = "0x7fcf532c15f0a6db0bd6d0e038bea71d30d808c7d98cb3bf7268a95bf5081b65"
"""Of `Deposit(address,uint256)` and `Withdrawal(address,uint256)`: wrapped ether comes and goes without a Transfer."""
PARTIES = {TRANSFER: 2, DEPOSIT: 1, WITHDRAWAL: 1}
"""Events that are listened to, and how many addresses each begins with."""
MOST_HOLDERS = 1000
"""Topics in one position: geth refuses more."""
MOST_TOKENS = 100
"""Addresses. Nodes that bound them differ; this is the lowest bound that we know of."""
MOST_SUBSCRIPTIONS = 300
ZERO = "0x" + "0" * 40
"""Where tokens are made and burnt."""
_ADDRESS = re.compile("0{24}([0-9a-f]{40})")


class LogFilter(msgspec.Struct, frozen=True, cache_hash=True):
    """One subscription: which logs."""

    side: Literal["first", "second", "any"]
    """Of the event's addresses, which one is a holder. A sender is the first; so is who deposits or withdraws."""
    tokens: Chunk = Chunk()
    """Contracts; none: of whatever contract."""
    holders: Chunk = Chunk()

    def request(self) -> Request:
        topics: list[list[str] | None] = [[TRANSFER] if self.side == "second" else list(PARTIES)]
        if self.side == "second":
            topics.append(None)
        if self.holders.members:
            topics.append([f"0x{holder[2:]:0>64}" for holder in self.holders.members])
        wanted: dict[str, object] = {"topics": topics}
        if self.tokens.members:
            wanted["address"] = list(self.tokens.members)
        return "eth_subscribe", ["logs", wanted]


class _Log(msgspec.Struct, frozen=True, rename="camel"):
    address: Word
    topics: list[str]
    data: str = "0x"
    removed: bool | None = False
    block_hash: Word | None = None
    log_index: Word | int | None = None

    def words(self) -> Iterator[str]:
        """The event's first three arguments, 64 digits each. Those that are indexed are topics, the others data: some old
        tokens index none."""
        yield from (topic[2:].lower() for topic in self.topics[1:4])
        yield from (self.data[start : start + 64].lower() for start in range(2, len(self.data[:194]), 64))

    def moved(self) -> tuple[str, ...]:
        """Accounts of which it moves a balance; none for what is no such event, and for a Transfer of nothing, which
        anybody can make in anybody's name."""
        count = PARTIES.get(self.topics[0].lower(), 0) if self.topics else 0
        words = list(self.words())[: count + 1]
        nothing = not self.is_unique_token and words[-1:] == ["0" * 64]
        if not count or len(words) <= count or nothing:
            return ()
        return tuple(f"0x{found[1]}" for found in map(_ADDRESS.fullmatch, words[:count]) if found)

    @property
    def is_unique_token(self) -> bool:
        """Whether what moved is one of ERC-721: no balance that a holder's listing of amounts shows."""
        return len(self.topics) == 4


class EthereumChannel:
    """One chain's logs of Transfer, Deposit and Withdrawal: from and to the holders watched, of the tokens watched.

    | watch | subscribed |
    |---|---|
    | account and token | that token's logs with that account |
    | account | logs with that account of any contract; a token that no listing names is news a few times only |
    | token | all logs of that token |
    | neither | nothing: left out |

    No log tells of native ether, of a rebase, or of an amount that follows from time alone.
    """

    def __init__(self, chain: str = ETHEREUM) -> None:
        """`chain`: CAIP-2, `eip155:…`."""
        self._chain = chain
        self._rpc = JsonRpc()
        self._watched: list[WatchedScope] = []
        self._logs: Subscriptions[LogFilter] = Subscriptions(
            self._rpc, LogFilter.request, _unsubscribe, MOST_SUBSCRIPTIONS
        )
        self._named = Named()
        self._chunks = {
            "tokens": Chunks(MOST_TOKENS),
            "holders": Chunks(MOST_HOLDERS),
            "tokens of balances": Chunks(MOST_TOKENS),
            "holders of balances": Chunks(MOST_HOLDERS),
        }
        self._repeats = Repeats()
        self._unlisted = UnlistedTokens()

    def watch(self, watched: Sequence[WatchedScope]) -> Generator[None, None, None]:
        here = [one for one in watched if one.scope.chain == self._chain]
        if here == self._watched:
            return
        self._named = yield from named(here)
        self._unlisted.update(self._named.listed)
        choice = yield from first_come((yield from self._needs(here)), MOST_SUBSCRIPTIONS)
        yield from self._logs.want(choice.keys, choice.whole.items(), choice.without_place)
        self._watched = here

    def give_turn(self) -> None:
        self._logs.give_turn()

    def connected(self) -> None:
        self.disconnected()
        self._rpc.ask(("eth_chainId", []), self._chain_answered)

    def disconnected(self) -> None:
        self._rpc.reset()
        self._logs.disconnected()

    def received(self, frame: str | bytes) -> News:
        message = self._rpc.received(frame)
        if isinstance(message, NodeError):
            return News(refused=str(message))
        if message is None or message.method != "eth_subscription":
            return News()
        return News(hints=tuple(self._hints(message)))

    def outgoing(self) -> list[str]:
        self._logs.ask()
        return self._rpc.outgoing()

    def covered(self) -> Collection[Scope]:
        return self._logs.covered()

    @property
    def subscriptions(self) -> int:
        return len(self._logs)

    @property
    def left_out(self) -> int:
        return self._logs.left_out

    def _chain_answered(self, result: object, error: NodeError | None) -> None:
        if error:
            raise ChannelError(f"it does not say which chain it serves: {error}")
        try:
            served = f"eip155:{int(result, 16)}" if isinstance(result, str) and len(result) < 20 else ""
        except ValueError:
            served = ""
        if not served:
            raise ChannelError("it answers eth_chainId with what is no number of a chain")
        if served != self._chain:
            raise ChannelError(
                f"it serves the chain {served}, not {self._chain}: set `chain`, or give a URL of that chain"
            )
        self._logs.connected()

    def _needs(self, watched: Sequence[WatchedScope]) -> Generator[None, None, dict[Scope, Sequence[LogFilter]]]:
        of_all, of_any = self._named.tokens, self._named.holders
        pairs = [pair for pair in self._named.balances if pair[0] not in of_any and pair[1] not in of_all]
        yield
        tokens = yield from self._chunks["tokens"].arrange(of_all)
        holders = yield from self._chunks["holders"].arrange(of_any)
        pair_tokens = yield from self._chunks["tokens of balances"].arrange(dict.fromkeys(token for _, token in pairs))
        pair_holders = yield from self._chunks["holders of balances"].arrange(dict.fromkeys(one for one, _ in pairs))
        needs: dict[Scope, Sequence[LogFilter]] = {}
        for number, scope in enumerate(one.scope for one in watched):
            account, token = scope.account, scope.token
            if token in of_all:
                needs[scope] = _all_of(tokens[token])
            elif account in of_any:
                needs[scope] = _both_sides(Chunk(), holders[account])
            elif account and token:
                needs[scope] = _both_sides(pair_tokens[token], pair_holders[account])
            else:
                needs[scope] = ()  # a whole chain: every log of every contract
            if number % WATCHES_PER_STEP == 0:
                yield
        return needs

    def _hints(self, message: Notification) -> Iterator[Hint]:
        try:
            log = msgspec.convert(message.params.get("result"), _Log)
        except msgspec.ValidationError:
            return
        token, parties = log.address.lower(), log.moved()
        if self._is_repeated(log, parties):
            return
        for account in dict.fromkeys(parties):
            if self._is_watched(account, token, log):
                yield Hint(account=account, chain=self._chain, token=token)

    def _is_watched(self, account: str, token: str, log: _Log) -> bool:
        if (account, token) in self._named.balances or (token in self._named.tokens and account != ZERO):
            return True
        return account in self._named.holders and not log.is_unique_token and self._unlisted.is_news(account, token)

    def _is_repeated(self, log: _Log, parties: tuple[str, ...]) -> bool:
        """A log that is removed and comes back in the same block is none that repeats. The number alone names no log: some
        nodes count anew in each transaction."""
        if log.block_hash is None or log.log_index is None:
            return False
        return self._repeats.is_repeated((log.block_hash, log.log_index, log.address, parties), bool(log.removed))


@lru_cache(maxsize=MOST_SUBSCRIPTIONS)
def _both_sides(tokens: Chunk, holders: Chunk) -> Sequence[LogFilter]:
    return LogFilter("first", tokens, holders), LogFilter("second", tokens, holders)


@lru_cache(maxsize=MOST_SUBSCRIPTIONS)
def _all_of(tokens: Chunk) -> Sequence[LogFilter]:
    return (LogFilter("any", tokens),)


def _unsubscribe(_filter: LogFilter, number: SubscriptionId) -> Request:
    return "eth_unsubscribe", [number]
