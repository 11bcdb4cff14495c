"""Which subscriptions of a Solana node tell of the changes of a watch, and which are made when not all may be. Pure."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from watcher.hints.channel import WatchedScope
from watcher.model.addresses import SOLANA, AddressError, solana
from watcher.model.associated_accounts import SPL_PROGRAMS, associated_token_account
from watcher.model.hints import Hint
from watcher.model.keys import Scope

NATIVE = "native"
COMMITMENT = "confirmed"
"""Where the watch names none. The node's own default is `finalized`, which comes thirteen seconds later."""

Method = Literal["account", "logs"]


class SubscriptionRequest(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """What is asked of the node. It gives one number for equal ones on one connection, so none is asked for twice."""

    method: Method
    address: str
    commitment: str


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


def feeds(watched: Iterable[WatchedScope]) -> dict[Scope, tuple[Feed, ...]]:
    """Those of each scope on this chain, the most telling first. None at all: nothing tells of that scope."""
    found: dict[Scope, dict[Feed, None]] = {}
    for watch in watched:
        if watch.scope.chain == SOLANA:
            found.setdefault(watch.scope, {}).update(dict.fromkeys(_feeds(watch)))
    return {scope: tuple(of_scope) for scope, of_scope in found.items()}


def _feeds(watch: WatchedScope) -> list[Feed]:
    account, token = watch.scope.account, watch.scope.token
    commitment = watch.commitment or COMMITMENT
    if account is None:
        # Nobody follows all accounts there are. `TransferChecked`, which wallets use, names the mint.
        return [] if token is None or not _is_address(token) else [Feed("mint", token, commitment)]
    if not _is_address(account):
        return []
    if watch.token_account:
        return [Feed("token_account", account, commitment)]
    whole = (
        [] if token is not None else [Feed("wallet", account, commitment), Feed("transactions", account, commitment)]
    )
    mints = sorted(mint for mint in {*watch.tokens, token} if mint is not None and _is_address(mint))
    return whole + [
        Feed("associated", account, commitment, mint, program) for program in SPL_PROGRAMS for mint in mints
    ]


def _is_address(text: str) -> bool:
    """The native token and those of unknown mint are none."""
    try:
        solana(text)
    except AddressError:
        return False
    return True


class Choice(msgspec.Struct, frozen=True):
    """What has a place within the bound."""

    whole: Mapping[Scope, tuple[Feed, ...]]
    """Scopes of which everything has one: only these are covered."""
    feeds: Mapping[Feed, None]
    """In the order in which they are made."""


def choose(wanted: Mapping[Scope, Sequence[Feed]], most: int) -> Choice:
    """At most so many feeds. Providers take turns, whoever has the fewest goes first; of each the scopes that need the fewest.

    So most scopes are covered, none of a few that need many takes the places of all others, and one more token in a listing
    moves no more than its neighbours. What is left goes to those of which not everything finds a place.
    """
    whole: dict[Scope, tuple[Feed, ...]] = {}
    placed: dict[Feed, None] = {}
    partly: list[list[Feed]] = []
    turns = [(0, provider, queue) for provider, queue in _queues(wanted).items()]
    heapq.heapify(turns)
    while turns:
        used, provider, queue = turns[0]
        scope = queue.pop()
        new = [feed for feed in wanted[scope] if feed not in placed]
        if len(placed) + len(new) <= most:
            placed.update(dict.fromkeys(new))
            whole[scope] = tuple(wanted[scope])
            used += len(new)
        else:
            partly.append(new)
        if queue:
            heapq.heapreplace(turns, (used, provider, queue))
        else:
            heapq.heappop(turns)
    for new in partly:
        if len(placed) >= most:
            break
        placed.update(dict.fromkeys(new[: most - len(placed)]))
    return Choice(whole, placed)


def _queues(wanted: Mapping[Scope, Sequence[Feed]]) -> dict[str, list[Scope]]:
    """The scopes of each provider, those that need the fewest last. What nothing tells of needs no place."""
    queues: dict[str, list[Scope]] = {}
    for scope, of_scope in wanted.items():
        if of_scope:
            queues.setdefault(scope.provider, []).append(scope)
    for queue in queues.values():
        queue.sort(key=lambda scope: (len(wanted[scope]), str(scope.account), str(scope.token)), reverse=True)
    return queues
