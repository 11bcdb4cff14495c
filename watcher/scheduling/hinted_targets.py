"""Which targets a hint is for, found by their account and not by a look at all of them."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import chain

from watcher.model.addresses import filter_forms
from watcher.model.hints import Hint
from watcher.model.keys import UNKNOWN_MINT, Scope
from watcher.model.targets import Target, TargetGroup
from watcher.scheduling.schedule import Schedule


class HintedTargets:
    """Of one provider. Its index is made when somebody asks for the first time: without hints it costs nothing."""

    def __init__(self, groups: Sequence[TargetGroup], schedules: Sequence[Schedule[Target]]) -> None:
        """`schedules`: one for each group, in their order."""
        self._groups = groups
        self._schedules = schedules

    def find(self, hint: Hint) -> Iterator[tuple[Schedule[Target], Target]]:
        """Those whose next reading would show what the hint is of, each with its schedule."""
        accounts = list(hint.accounts())
        for schedule, index in zip(self._schedules, self._indexes, strict=True):
            for target in index.possible(accounts, hint.token):
                if hint.touches(target.scope):
                    yield schedule, target

    def of_scopes(self, scopes: Collection[Scope]) -> Iterator[tuple[Schedule[Target], list[Target]]]:
        """Of each schedule the targets whose scopes are these; none too."""
        for schedule, index in zip(self._schedules, self._indexes, strict=True):
            yield schedule, [target for scope in scopes for target in index.of_scope(scope)]

    @cached_property
    def _indexes(self) -> list["_AccountIndex"]:
        return [_AccountIndex(group.targets) for group in self._groups]


class _AccountIndex:
    """Targets by account; those that name none, by token."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._by_account = _grouped((target.scope.account, target) for target in targets)
        nameless = self._by_account.pop(None, ())
        self._of_any_account = _grouped((target.scope.token, target) for target in nameless)

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

    def of_scope(self, scope: Scope) -> Iterator[Target]:
        found = (
            self._of_any_account.get(scope.token, ())
            if scope.account is None
            else self._by_account.get(scope.account, ())
        )
        return (target for target in found if target.scope == scope)


def _grouped(pairs: Iterator[tuple[str | None, Target]]) -> dict[str | None, tuple[Target, ...]]:
    found: defaultdict[str | None, list[Target]] = defaultdict(list)
    for name, target in pairs:
        found[name].append(target)
    return {name: tuple(targets) for name, targets in found.items()}
