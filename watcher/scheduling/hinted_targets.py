"""Which targets a hint is for, found by their account and not by a look at all of them."""

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from itertools import chain

from watcher.model.addresses import filter_forms
from watcher.model.hints import Hint
from watcher.model.keys import UNKNOWN_MINT, Scope
from watcher.model.targets import Target, TargetGroup
from watcher.runtime.slicing import run_at_once
from watcher.scheduling.schedule import Schedule

TARGETS_PER_STEP = 200
FEW = 20
"""Targets of one account that are looked through. Of a wallet whose tokens are watched one by one there may be thousands."""


class HintedTargets:
    """Of one provider. Its index is made when somebody asks for the first time: without hints it costs nothing."""

    def __init__(self, groups: Sequence[TargetGroup], schedules: Sequence[Schedule[Target]]) -> None:
        """`schedules`: one for each group, in their order."""
        self._groups = groups
        self._schedules = schedules
        self._made: list[_AccountIndex] | None = None

    def index(self) -> Generator[None, None, list["_AccountIndex"]]:
        """One for each schedule, made in steps if it is not there: of thousands of targets that takes a while."""
        if self._made is None:
            made = []
            for group in self._groups:
                made.append(index := _AccountIndex())
                for number, target in enumerate(group.targets):
                    index.add(target)
                    if number % TARGETS_PER_STEP == 0:
                        yield
            self._made = made
        return self._made

    def find(self, hint: Hint) -> Iterator[tuple[Schedule[Target], Target]]:
        """Those whose next reading would show what the hint is of, each with its schedule."""
        accounts = list(hint.accounts())
        for schedule, index in zip(self._schedules, run_at_once(self.index()), strict=True):
            for target in index.possible(accounts, hint.token):
                if hint.touches(target.scope):
                    yield schedule, target

    def of_scopes(self, scopes: Collection[Scope]) -> Iterator[tuple[Schedule[Target], list[Target]]]:
        """Of each schedule the targets whose scopes are these; none too."""
        for schedule, index in zip(self._schedules, run_at_once(self.index()), strict=True):
            yield schedule, [target for scope in scopes for target in index.of_scope(scope)]


class _AccountIndex:
    """Targets by account; those that name none, by token."""

    def __init__(self) -> None:
        self._by_account: dict[str, list[Target]] = {}
        self._of_any_account: dict[str | None, list[Target]] = {}
        self._of_many: dict[str, dict[Scope, list[Target]]] = {}
        """Accounts with more than a few, once somebody has asked."""

    def add(self, target: Target) -> None:
        account, token = target.scope.account, target.scope.token
        if account is None:
            self._of_any_account.setdefault(token, []).append(target)
        else:
            self._by_account.setdefault(account, []).append(target)

    def possible(self, accounts: Sequence[str], token: str | None) -> Iterator[Target]:
        """Each once, and more than a hint touches: chains are not looked at."""
        for account in accounts:
            yield from self._by_account.get(account, ())
        if not self._of_any_account:
            return
        if token is None:
            yield from chain.from_iterable(self._of_any_account.values())
            return
        for form in dict.fromkeys((*filter_forms(token), UNKNOWN_MINT, None)):
            yield from self._of_any_account.get(form, ())

    def of_scope(self, scope: Scope) -> Iterable[Target]:
        account = scope.account
        if account is None:
            return (target for target in self._of_any_account.get(scope.token, ()) if target.scope == scope)
        found = self._by_account.get(account, ())
        if len(found) <= FEW:
            return (target for target in found if target.scope == scope)
        if account not in self._of_many:
            many = self._of_many[account] = {}
            for target in found:
                many.setdefault(target.scope, []).append(target)
        return self._of_many[account].get(scope, ())
