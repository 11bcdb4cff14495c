"""Hints from a Starknet node: the Transfer events of tokens. Pure.

`starknet_subscribeEvents` of the websocket specification, versions 0.8, 0.9 and 0.10:
https://github.com/starkware-libs/starknet-specs/blob/master/api/starknet_ws_api.json. It is asked only for what all of them
take: one contract in `from_address`, and no `finality_status`. Without it an event comes once, when its block is accepted on
L2: before, an API that reads accepted blocks would still tell the old balance.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Literal

import msgspec

from watcher.hints.channel import ChannelError, News, WatchedScope
from watcher.hints.chunks import Chunk, Chunks
from watcher.hints.json_rpc import JsonRpc, NodeError, Notification, Request, SubscriptionId, Word
from watcher.hints.named import WATCHES_PER_STEP, Named, named
from watcher.hints.repeats import Repeats
from watcher.hints.subscriptions import Subscriptions, first_come
from watcher.hints.unlisted_tokens import UnlistedTokens
from watcher.model.addresses import STARKNET, AddressError, felt
from watcher.model.hints import Hint
from watcher.model.keys import Scope

TRANSFER = "0x99cd8bde557814842a3121e8ddfd433a539b8c9f14bf31ebf108d12e6196e9"
"""The selector of `Transfer`: keccak256 of the name, its lowest 250 bits."""
CHAIN_ID = int.from_bytes(b"SN_MAIN", "big")
MOST_IN_FILTER = 1000
"""Holders in one filter. Juno takes 1,024 keys in all."""
MOST_SUBSCRIPTIONS = 500
MOST_TOKENS = 100
"""Of one listing that are subscribed by themselves."""
MOST_WORDS = 8
"""Of an event's keys, and of its data, that are looked at."""


class EventFilter(msgspec.Struct, frozen=True, cache_hash=True):
    """One subscription: all Transfers of a token, or those of any token that have a holder in their first or second key."""

    token: str | None = None
    side: Literal["first", "second"] = "first"
    holders: Chunk = Chunk()

    def request(self) -> Request:
        if self.token is not None:
            return "starknet_subscribeEvents", {"from_address": _short(self.token), "keys": [[TRANSFER]]}
        holders = [_short(holder) for holder in self.holders.members]
        return "starknet_subscribeEvents", {"keys": [[TRANSFER], *([[]] if self.side == "second" else []), holders]}


class _Event(msgspec.Struct, frozen=True):
    from_address: Word
    keys: list[str]
    data: list[str] = msgspec.field(default_factory=list)
    block_hash: Word | None = None
    transaction_hash: Word | None = None

    def parties(self) -> tuple[str, ...]:
        """Sender and receiver, padded, without the zero of what is made or burnt; none where nothing moves.

        Tokens of Cairo 0, and some later ones, have both in the data, behind the only key; the others have them as keys.
        """
        if not self.keys or _number(self.keys[0]) != int(TRANSFER, 16):
            return ()
        words = [*self.keys[1:MOST_WORDS], *self.data[:MOST_WORDS]]
        amount = {_number(word) for word in words[2:4]}  # its low and its high half
        if len(words) < 3 or (amount == {0} and not self.is_unique_token):
            return ()
        return tuple(address for address in map(_address, words[:2]) if address)

    @property
    def is_unique_token(self) -> bool:
        """Whether its key goes on with the number of one token (ERC-721): no balance that a listing of amounts shows."""
        return len(self.keys) == 5


class StarknetChannel:
    """Transfers of the tokens watched, from and to the accounts watched.

    | watch | subscribed |
    |---|---|
    | account and token, or token | all Transfers of that token |
    | account | those of the tokens that its last listing named; those of other tokens that have the account in their keys |
    | neither | nothing: left out |
    """

    def __init__(self) -> None:
        self._rpc = JsonRpc()
        self._watched: list[WatchedScope] = []
        self._events: Subscriptions[EventFilter] = Subscriptions(
            self._rpc, EventFilter.request, _unsubscribe, MOST_SUBSCRIPTIONS
        )
        self._named = Named()
        self._chunks = Chunks(MOST_IN_FILTER)
        self._repeats = Repeats()
        self._unlisted = UnlistedTokens()
        self._last_reorganisation: object = None

    def watch(self, watched: Sequence[WatchedScope]) -> Generator[None, None, None]:
        here = [one for one in watched if one.scope.chain == STARKNET]
        if here == self._watched:
            return
        self._named = yield from named(here)
        self._unlisted.update(self._named.listed)
        choice = yield from first_come((yield from self._needs(here)), MOST_SUBSCRIPTIONS)
        yield from self._events.want(choice.keys, choice.whole.items(), choice.without_place)
        self._watched = here

    def give_turn(self) -> None:
        self._events.give_turn()

    def connected(self) -> None:
        self.disconnected()
        self._rpc.ask(("starknet_chainId", []), _chain_answered)
        self._events.connected()

    def disconnected(self) -> None:
        self._rpc.reset()
        self._events.disconnected()

    def received(self, frame: str | bytes) -> News:
        message = self._rpc.received(frame)
        if isinstance(message, NodeError):
            return News(refused=str(message))
        if message is None:
            return News()
        if message.method == "starknet_subscriptionReorg":
            return News(missed=self._is_new_reorganisation(message))
        if message.method == "starknet_subscriptionEvents":
            return News(hints=tuple(self._hints(message)))
        return News()

    def outgoing(self) -> list[str]:
        self._events.ask()
        return self._rpc.outgoing()

    def covered(self) -> Collection[Scope]:
        return self._events.covered()

    @property
    def subscriptions(self) -> int:
        return len(self._events)

    @property
    def left_out(self) -> int:
        return self._events.left_out

    def _needs(self, watched: Sequence[WatchedScope]) -> Generator[None, None, dict[Scope, list[EventFilter]]]:
        chunks = yield from self._chunks.arrange(self._named.holders)
        needs: dict[Scope, list[EventFilter]] = {}
        for number, one in enumerate(watched):
            account, token = one.scope.account, one.scope.token
            if token:
                needs[one.scope] = [EventFilter(token)]
            elif account:
                chunk = chunks[account]
                keyed = [EventFilter(side="first", holders=chunk), EventFilter(side="second", holders=chunk)]
                needs[one.scope] = [*keyed, *map(EventFilter, one.tokens[:MOST_TOKENS])]
            else:
                needs[one.scope] = []  # a whole chain: every Transfer there is
            if number % WATCHES_PER_STEP == 0:
                yield
        return needs

    def _hints(self, message: Notification) -> Iterator[Hint]:
        try:
            event = msgspec.convert(message.params.get("result"), _Event)
        except msgspec.ValidationError:
            return
        token, parties = _address(event.from_address), event.parties()
        if token is None or self._is_repeated(event, token, parties):
            return
        for account in dict.fromkeys(parties):
            if self._is_watched(account, token, event):
                yield Hint(account=account, chain=STARKNET, token=token)

    def _is_watched(self, account: str, token: str, event: _Event) -> bool:
        if token in self._named.tokens or (account, token) in self._named.balances:
            return True
        return account in self._named.holders and not event.is_unique_token and self._unlisted.is_news(account, token)

    def _is_repeated(self, event: _Event, token: str, parties: tuple[str, ...]) -> bool:
        """Two alike in one transaction are one: they bring the same reads forward."""
        if event.transaction_hash is None:
            return False
        return self._repeats.is_repeated((event.transaction_hash, token, parties), event.block_hash)

    def _is_new_reorganisation(self, message: Notification) -> bool:
        """Every subscription tells of the same one."""
        orphaned = message.params.get("result")
        if orphaned == self._last_reorganisation and orphaned is not None:
            return False
        self._last_reorganisation = orphaned
        self._repeats.forget()
        return True


def _chain_answered(result: object, error: NodeError | None) -> None:
    """An error is no answer: the specification of the websocket has no such method."""
    number = _number(result) if isinstance(result, str) else None
    if not error and number != CHAIN_ID:
        raise ChannelError("it serves another chain than SN_MAIN of Starknet: give a URL of a node of that one")


def _number(word: str) -> int | None:
    """A felt as a number; None: it is none."""
    try:
        return int(word, 16) if word.startswith("0x") and len(word) <= 66 else None
    except ValueError:
        return None


def _address(word: str) -> str | None:
    try:
        return felt(word)
    except AddressError:
        return None


def _short(address: str) -> str:
    """Without leading zeros: the specification allows none."""
    return hex(int(address, 16))


def _unsubscribe(_filter: EventFilter, number: SubscriptionId) -> Request:
    return "starknet_unsubscribe", {"subscription_id": number}
