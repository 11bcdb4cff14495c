"""What a channel has subscribed at its node, what it is to have, and what is heard of by it. Pure.

Thousands of watches are taken over in steps, so that whoever runs them can let others go on in between. After each step all
that is said here holds.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping
from functools import partial
from typing import Generic, TypeVar

import msgspec

from watcher.hints.channel import ChannelError
from watcher.hints.json_rpc import JsonRpc, NodeError, Request, SubscriptionId, is_subscription_id, whatever
from watcher.model.keys import Scope

METHOD_NOT_FOUND = -32601
MOST_PASSES = 512
"""Turns that a refused subscription passes over, at most."""
MOST_DIGITS = 20
"""Of an id that is an integer of 64 bits."""
SCOPES_PER_STEP = 50

K = TypeVar("K", bound=Hashable)


class Choice(msgspec.Struct, Generic[K], frozen=True):
    """What has a place within the bound of subscriptions."""

    keys: Mapping[K, None]
    """In the order in which they are made."""
    whole: Mapping[Scope, Collection[K]]
    """Scopes of which everything has a place, with what they take, each once: only these are covered."""
    without_place: int
    """The other scopes."""


class _Need(msgspec.Struct, Generic[K], eq=False):
    """What one scope takes. How much of it is not there, and how much of that was refused."""

    keys: Collection[K]
    lacking: int
    refused: int


class _Refused(msgspec.Struct, eq=False):
    """A subscription that the node did not give."""

    times: int = 0
    passes: int = 0
    """Turns that go by before its next try."""


class Subscriptions(Generic[K]):
    """At one node, over one socket. `K` names one subscription: equal ones are one, whoever needs it.

    What takes the place of another is confirmed first, as long as there is room for both: nothing is missed in between.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        subscribe: Callable[[K], Request],
        unsubscribe: Callable[[K, SubscriptionId], Request],
        most: int,
    ) -> None:
        """`most`: subscriptions at a time."""
        self._rpc = rpc
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._most = most
        self._connected = False
        self._wanted: dict[K, None] = {}
        self._queue: OrderedDict[K, None] = OrderedDict()
        """Of the wanted ones those to be asked for."""
        self._asked: set[K] = set()
        self._ids: dict[K, SubscriptionId] = {}
        self._keys: dict[SubscriptionId, K] = {}
        self._idle: OrderedDict[K, None] = OrderedDict()
        """Those that are there and that nobody wants any more."""
        self._refused: dict[K, _Refused] = {}
        """In the order of their turns."""
        self._needs: dict[Scope, _Need[K]] = {}
        self._of_key: dict[K, dict[Scope, _Need[K]]] = {}
        self._without_place = 0
        self._with_refused = 0
        """Scopes of which something was refused."""
        self._covered: frozenset[Scope] | None = None

    def want(
        self, keys: Iterable[K], whole: Iterable[tuple[Scope, Collection[K]]], without_place: int
    ) -> Generator[None, None, None]:
        """From now on these, as of a `Choice`. `keys` has a step for each, since it may take a while to make one."""
        kept: dict[K, None] = {}
        for key in keys:
            kept[key] = None
            self._want(key)
            yield
        there = set()
        for number, (scope, needed) in enumerate(whole):
            there.add(scope)
            self._replace(scope, needed)
            if number % SCOPES_PER_STEP == 0:
                yield
        for scope in list(self._needs):
            if scope not in there:
                self._forget(scope)
                yield
        for key in list(self._wanted):
            if key not in kept:
                self._drop(key)
                yield
        self._wanted = kept  # the same ones, in their order
        self._without_place = without_place

    def ask(self) -> None:
        """For what is to be subscribed or ended next, as far as the node can be asked now."""
        while self._connected and self._rpc.room > 0:
            full = len(self._ids) + len(self._asked) >= self._most
            if self._queue and not full:
                key, _ = self._queue.popitem(last=False)
                self._asked.add(key)
                self._rpc.ask(self._subscribe(key), partial(self._answered, key))
            elif self._idle and (self._queue or not self._asked):
                self._end(self._idle.popitem(last=False)[0])
            else:
                return

    def give_turn(self) -> None:
        """To the next one that was refused: so they are no storm, however many there are, and each waits longer each time."""
        key = next(iter(self._refused), None)
        if key is None:
            return
        refused = self._refused[key] = self._refused.pop(key)
        refused.passes -= 1
        if refused.passes < 0 and key not in self._asked:
            self._queue[key] = None
            self._queue.move_to_end(key, last=False)

    def connected(self) -> None:
        """There is a socket on which nothing is subscribed yet."""
        self.disconnected()
        self._connected = True
        self._queue = OrderedDict(self._wanted)

    def disconnected(self) -> None:
        self._connected = False
        for known in (self._queue, self._asked, self._ids, self._keys, self._idle, self._refused):
            known.clear()
        for need in self._needs.values():
            need.lacking, need.refused = len(need.keys), 0
        self._with_refused = 0
        self._covered = None

    def key_of(self, number: SubscriptionId | None) -> K | None:
        """What the node tells of by that number; None: nothing that is known."""
        return None if number is None else self._keys.get(number)

    def covered(self) -> frozenset[Scope]:
        """Scopes with all that they take confirmed. The same object as long as nothing has changed."""
        if self._covered is None:
            self._covered = frozenset(scope for scope, need in self._needs.items() if not need.lacking)
        return self._covered

    @property
    def left_out(self) -> int:
        """Scopes that nothing can be heard of: no place, or refused."""
        return self._without_place + self._with_refused

    def __len__(self) -> int:
        """Those confirmed."""
        return len(self._ids)

    def _want(self, key: K) -> None:
        if key in self._wanted:
            return
        self._wanted[key] = None
        if key in self._idle:
            del self._idle[key]
        elif self._connected and key not in self._asked:
            self._queue[key] = None

    def _drop(self, key: K) -> None:
        """No scope needs it any more."""
        del self._wanted[key]
        self._queue.pop(key, None)
        self._refused.pop(key, None)
        if key in self._ids:
            self._idle[key] = None

    def _replace(self, scope: Scope, keys: Collection[K]) -> None:
        if scope in self._needs:
            if self._needs[scope].keys == keys:
                return
            self._forget(scope)
        need = self._needs[scope] = _Need(keys, 0, 0)
        for key in keys:
            self._of_key.setdefault(key, {})[scope] = need
            need.lacking += key not in self._ids
            need.refused += key in self._refused
        self._with_refused += need.refused > 0
        self._covered = None

    def _forget(self, scope: Scope) -> None:
        need = self._needs.pop(scope)
        for key in need.keys:
            of_key = self._of_key[key]
            del of_key[scope]
            if not of_key:
                del self._of_key[key]
        self._with_refused -= need.refused > 0
        self._covered = None

    def _answered(self, key: K, result: object, error: NodeError | None) -> NodeError | None:
        self._asked.discard(key)
        if error and error.code == METHOD_NOT_FOUND and not self._ids:
            raise ChannelError(f"it does not know {self._subscribe(key)[0]}: {error}")
        if error or not is_subscription_id(result):
            if key in self._wanted:
                self._refuse(key)
            return error or NodeError(message="an answer without the id of a subscription")
        if result in self._keys:
            raise ChannelError("it gives one id to two subscriptions")
        self._ids[key], self._keys[result] = result, key
        if key not in self._wanted:
            self._idle[key] = None
            return None
        self._count(key, lacking=-1, refused=-1 if self._refused.pop(key, None) else 0)
        return None

    def _refuse(self, key: K) -> None:
        refused = self._refused.pop(key, None)
        if refused is None:
            refused = _Refused()
            self._count(key, lacking=0, refused=1)
        refused.times += 1
        refused.passes = min(2 ** (refused.times - 1), MOST_PASSES)
        self._refused[key] = refused

    def _count(self, key: K, *, lacking: int, refused: int) -> None:
        for need in self._of_key.get(key, {}).values():
            self._with_refused -= need.refused > 0
            need.lacking += lacking
            need.refused += refused
            self._with_refused += need.refused > 0
        self._covered = None

    def _end(self, key: K) -> None:
        number = self._ids.pop(key)
        del self._keys[number]
        self._rpc.ask(self._unsubscribe(key, number), partial(self._end_answered, key, number))

    def _end_answered(self, key: K, number: SubscriptionId, _result: object, error: NodeError | None) -> None:
        """Refused: some nodes of Starknet tell ids as strings and take them as integers. If that fails too, the socket's
        end will end it."""
        if error and isinstance(number, str) and number.isdecimal() and len(number) < MOST_DIGITS:
            self._rpc.ask(self._unsubscribe(key, int(number)), whatever)


def first_come(needs: Mapping[Scope, Collection[K]], most: int) -> Generator[None, None, Choice[K]]:
    """At most so many subscriptions; the last scopes that find no place are left out. One that takes none cannot be heard of."""
    keys: dict[K, None] = {}
    whole: dict[Scope, Collection[K]] = {}
    for number, (scope, needed) in enumerate(needs.items()):
        fresh = [key for key in needed if key not in keys]
        if needed and len(keys) + len(fresh) <= most:
            keys.update(dict.fromkeys(fresh))
            whole[scope] = needed
        if number % SCOPES_PER_STEP == 0:
            yield
    return Choice(keys, whole, len(needs) - len(whole))
