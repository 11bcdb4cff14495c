"""What the config watches and how people call it, found by the key of a balance. Names stand in no key and in no event."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec

from watcher.model.keys import Key, Scope

PARTS = ("account", "token", "chain")
"""Of a scope, the most telling first."""
NAMES = ("chain", "token", "label", "tag")


class Watched(msgspec.Struct, frozen=True, gc=False):
    """One watch: what it covers, and what people call it."""

    scope: Scope
    label: str | None = None
    tags: tuple[str, ...] = ()


class WatchInfo(msgspec.Struct, frozen=True, gc=False):
    """What the watches say of one key."""

    watched: bool
    """False: by this config nobody reads it any more."""
    label: str | None = None
    tags: tuple[str, ...] = ()
    """Sorted, each once."""


UNWATCHED = WatchInfo(watched=False)
NAMELESS = WatchInfo(watched=True)


class _Pattern:
    """The watches of a provider whose scopes name the same parts: one look finds the one that covers a key."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        self.parts = parts
        self.of = attrgetter(*parts) if parts else _nothing
        """The values of those parts, of a key or a scope."""
        self.found: dict[object, WatchInfo] = {}

    def add(self, watch: Watched) -> None:
        place = self.of(watch.scope)
        before = self.found.get(place, NAMELESS)
        if watch.label is None and not watch.tags:
            self.found[place] = before
            return
        label = min(filter(None, (watch.label, before.label)), default=None)
        self.found[place] = WatchInfo(True, label, tuple(sorted({*watch.tags, *before.tags})))

    @property
    def telling(self) -> tuple[int, bool, bool]:
        return len(self.parts), "account" in self.parts, "token" in self.parts


class WatchIndex:
    """Every watch of a config. `info` is asked for each row of a snapshot and each event: one look for each kind of watch.

    The label of a key is that of the watch that says most of it and has one: which names more parts, then which names the
    account, then the token. Of two labels for the very same watch it is the first by the alphabet. Tags are united.
    """

    def __init__(self, watches: Iterable[Watched] = (), *, whole: bool = True) -> None:
        """`whole`: these are all. Otherwise a key that none covers counts as watched: by somebody else."""
        self._unknown = UNWATCHED if whole else NAMELESS
        self._patterns: dict[str, list[_Pattern]] = {}
        self._by_account: dict[tuple[str, str | None], list[Watched]] = {}
        self._values: dict[str, dict[str, set[str | None]]] = {}
        self.all_values: dict[str, list[str]] = {}
        """What watches have as `chain`, `token`, `label` and `tag`, sorted."""
        self.named: tuple[Watched, ...] = ()
        """Those with a label or a tag."""
        self._fill(watches)

    def _fill(self, watches: Iterable[Watched]) -> None:
        patterns: dict[tuple[str, tuple[str, ...]], _Pattern] = {}
        named = []
        for watch in watches:
            scope = watch.scope
            parts = tuple(part for part in PARTS if getattr(scope, part) is not None)
            pattern = patterns.get((scope.provider, parts))
            if pattern is None:
                pattern = patterns[scope.provider, parts] = _Pattern(parts)
            pattern.add(watch)
            self._by_account.setdefault((scope.provider, scope.account), []).append(watch)
            self._note_values(watch)
            if watch.label is not None or watch.tags:
                named.append(watch)
        self.named = tuple(named)
        for name in NAMES:
            given = {value for values in self._values.values() for value in values[name] if value is not None}
            self.all_values[name] = sorted(given)
        for (provider, _), pattern in patterns.items():
            self._patterns.setdefault(provider, []).append(pattern)
        for found in self._patterns.values():
            found.sort(key=lambda pattern: pattern.telling, reverse=True)

    def _note_values(self, watch: Watched) -> None:
        scope = watch.scope
        values = self._values.get(scope.provider)
        if values is None:
            values = self._values[scope.provider] = {name: set() for name in NAMES}
        values["chain"].add(scope.chain)
        values["token"].add(scope.token)
        values["label"].add(watch.label)
        values["tag"].update(watch.tags)

    def info(self, key: Key) -> WatchInfo:
        """HOT."""
        info: WatchInfo | None = None
        for pattern in self._patterns.get(key.provider, ()):
            found = pattern.found.get(pattern.of(key))
            if found is not None:
                info = found if info is None else _merged(info, found)
        return self._unknown if info is None else info

    def may_read(self, provider: str) -> bool:
        """False: by this config nobody reads anything there any more."""
        return self._unknown.watched or provider in self._patterns

    @property
    def providers(self) -> Iterable[str]:
        return self._patterns.keys()

    def values(self, provider: str, name: str) -> set[str | None]:
        """What the watches of a provider have as `chain`, `token`, `label` or `tag`; None among them: one names none."""
        return self._values[provider][name]

    def names(self, name: str, value: str) -> bool:
        """Whether some watch has that as its `account`, `chain`, `token`, `label` or a tag."""
        if name == "account":
            return any((provider, value) in self._by_account for provider in self.providers)
        return any(value in values[name] for values in self._values.values())

    def of_account(self, provider: str, account: str) -> Iterator[Watched]:
        """Those that name the account or none."""
        yield from self._by_account.get((provider, account), ())
        yield from self._by_account.get((provider, None), ())


def _merged(telling: WatchInfo, other: WatchInfo) -> WatchInfo:
    """Of one key: the label of the first that has one, all tags."""
    label = other.label if telling.label is None else telling.label
    return WatchInfo(True, label, tuple(sorted({*telling.tags, *other.tags})))


def _nothing(_: object) -> None:
    return None


NOT_KNOWN = WatchIndex(whole=False)
"""Of a process whose config says nothing of what is watched."""
