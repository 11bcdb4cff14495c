"""Which subscriptions of a Solana node tell of the changes of a watch, and which are made when not all may be. Pure."""

import heapq
from collections.abc import Generator, Iterable, Iterator
from operator import itemgetter
from typing import Literal

import msgspec

from watcher.hints.channel import WatchedScope
from watcher.hints.json_rpc import Request, SubscriptionId
from watcher.hints.subscriptions import Choice
from watcher.model.addresses import SOLANA, AddressError, solana
from watcher.model.associated_accounts import SPL_PROGRAMS, associated_token_account
from watcher.model.hints import Hint
from watcher.model.keys import Scope

NATIVE = "native"
COMMITMENT = "confirmed"
"""Where the watch names none. The node's own default is `finalized`, which comes thirteen seconds later."""

SCOPES_PER_STEP = 200
NEEDS_PER_STEP = 20
"""Of watches with ten tokens each it takes half a millisecond to say what so many need."""
SORTED_AT_ONCE = 500
ORDER = itemgetter(0, 1, 2)
"""How much is needed, then account and token: no two of one provider are alike."""

Method = Literal["account", "logs"]


class SubscriptionRequest(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """What is asked of the node. It gives one number for equal ones on one connection, so none is asked for twice."""

    method: Method
    address: str
    commitment: str

    def begin(self) -> Request:
        commitment = {"commitment": self.commitment}
        if self.method == "account":
            return "accountSubscribe", [self.address, {"encoding": "base64", **commitment}]
        return "logsSubscribe", [{"mentions": [self.address]}, commitment]  # it takes exactly one address

    def end(self, number: SubscriptionId) -> Request:
        return f"{self.method}Unsubscribe", [number]


class Feed(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """One thing of an account that can be followed, and what is hinted then.

    wallet: the account itself, which its lamports change. transactions: those that name the address, which an incoming
    transfer of a token does not. associated: the account of a mint under one program. mint: transactions that name it.
    """

    kind: Literal["token_account", "wallet", "transactions", "associated", "mint"]
    address: str
    commitment: str
    mint: str = ""
    program: str = ""

    def request(self) -> SubscriptionRequest:
        """Of an associated account it takes a quarter of a millisecond, since its address has to be found."""
        if self.kind == "associated":
            return SubscriptionRequest(
                "account", associated_token_account(self.address, self.mint, self.program), self.commitment
            )
        return SubscriptionRequest(
            "logs" if self.kind in ("transactions", "mint") else "account", self.address, self.commitment
        )

    def hint(self) -> Hint:
        """For every watch that reads what changed: a listing reads all tokens, and so matches any."""
        token = {"wallet": NATIVE, "associated": self.mint, "mint": self.address}.get(self.kind)
        return Hint(chain=SOLANA, account=self.address, token=token)


def feeds(watch: WatchedScope) -> tuple[Feed, ...]:
    """All that it takes, the most telling first. None: nothing tells of that scope."""
    account, token = watch.scope.account, watch.scope.token
    commitment = watch.commitment or COMMITMENT
    if not need(watch):
        return ()
    if account is None:
        # Nobody follows all accounts there are. `TransferChecked`, which wallets use, names the mint.
        return (Feed("mint", str(token), commitment),)
    if watch.token_account:
        return (Feed("token_account", account, commitment),)
    whole = (
        () if token is not None else (Feed("wallet", account, commitment), Feed("transactions", account, commitment))
    )
    associated = (
        Feed("associated", account, commitment, mint, program) for program in SPL_PROGRAMS for mint in _mints(watch)
    )
    return (*whole, *associated)


def need(watch: WatchedScope) -> int:
    """How many feeds those are. Of most watches nothing else is asked, where there are more than have a place."""
    account, token = watch.scope.account, watch.scope.token
    if account is None:
        return int(token is not None and _is_address(token))
    if watch.token_account or not _is_address(account):
        return int(_is_address(account))
    return (2 if token is None else 0) + len(SPL_PROGRAMS) * len(_mints(watch))


def _mints(watch: WatchedScope) -> list[str]:
    """The tokens that it is known to hold, without the native one and those of an unknown mint."""
    return sorted(mint for mint in {*watch.tokens, watch.scope.token} if mint is not None and _is_address(mint))


def _is_address(text: str) -> bool:
    try:
        solana(text)
    except AddressError:
        return False
    return True


def choose(watched: Iterable[WatchedScope], most: int) -> Generator[None, None, Choice[Feed]]:
    """At most so many feeds. Providers take turns, whoever has the fewest goes first; of each the scopes that need the fewest.

    So most scopes are covered, none of a few that need many takes the places of all others, and one more token in a listing
    moves no more than its neighbours. What is left goes to the first scope of each for which it does not suffice.
    """
    here = yield from _on_this_chain(watched)
    queues = yield from _queues(here.values())
    whole: dict[Scope, tuple[Feed, ...]] = {}
    placed: dict[Feed, None] = {}
    partly: list[Feed] = []
    turns = [(0, provider, queue, next(queue)) for provider, queue in queues.items()]
    heapq.heapify(turns)
    while turns and len(placed) < most:
        used, provider, queue, watch = turns[0]
        takes = feeds(watch)
        new = [feed for feed in takes if feed not in placed]
        fits = len(placed) + len(new) <= most
        if fits:
            placed.update(dict.fromkeys(new))
            whole[watch.scope] = takes
        else:
            partly += new
        if fits and (following := next(queue, None)) is not None:
            heapq.heapreplace(turns, (used + len(new), provider, queue, following))
        else:  # the others of that provider need as many or more
            heapq.heappop(turns)
        yield
    placed.update(dict.fromkeys([feed for feed in partly if feed not in placed][: most - len(placed)]))
    return Choice(placed, whole, len(here) - len(whole))


def _on_this_chain(watched: Iterable[WatchedScope]) -> Generator[None, None, dict[Scope, WatchedScope]]:
    """Each scope once: two watches may differ in nothing but their names."""
    found: dict[Scope, WatchedScope] = {}
    for number, watch in enumerate(watched):
        if watch.scope.chain == SOLANA:
            known = found.setdefault(watch.scope, watch)
            if known is not watch:
                tokens = tuple(sorted({*known.tokens, *watch.tokens}))
                found[watch.scope] = msgspec.structs.replace(known, tokens=tokens)
        if number % SCOPES_PER_STEP == 0:
            yield
    return found


def _queues(watched: Iterable[WatchedScope]) -> Generator[None, None, dict[str, Iterator[WatchedScope]]]:
    """The scopes of each provider, those that need the fewest first; none is empty. What nothing tells of needs no place.

    They are sorted in parts, which are merged as far as there is place: all in one go hold others up.
    """
    parts: dict[str, list[list[tuple[int, str, str, WatchedScope]]]] = {}
    for number, watch in enumerate(watched):
        if needed := need(watch):
            scope = watch.scope
            of_provider = parts.setdefault(scope.provider, [[]])
            if len(of_provider[-1]) == SORTED_AT_ONCE:
                of_provider[-1].sort(key=ORDER)
                of_provider.append([])
            of_provider[-1].append((needed, scope.account or "", scope.token or "", watch))
        if number % NEEDS_PER_STEP == 0:
            yield
    for of_provider in parts.values():
        of_provider[-1].sort(key=ORDER)
    return {provider: map(itemgetter(-1), heapq.merge(*each, key=ORDER)) for provider, each in parts.items()}
