"""The configured providers, each with its key, and what they watch."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from watcher.app.settings import Settings
from watcher.limits.windows import BudgetError
from watcher.model.watches import Watched, WatchIndex
from watcher.poller.assembly import budget_of
from watcher.providers import registry
from watcher.providers.protocol import Credentials, Provider
from watcher.providers.settings import ProviderSettings, Watch
from watcher.redaction import secret
from watcher.redaction.secret import Secret
from watcher.runtime.config_section import Mistakes, SettingsError

Kinds = Mapping[str, type[Provider]]


class Source(msgspec.Struct, frozen=True):
    """One configured provider and its key, which is never shown."""

    provider: Provider
    secret: Secret | None = None

    def __repr__(self) -> str:
        return f"Source({self.provider.name})"

    def credentials(self) -> Credentials:
        """What the provider makes of the key."""
        return self.provider.credentials(None if self.secret is None else self.secret.reveal())


def sources(config: Settings, environment: Mapping[str, str]) -> list[Source]:
    """All providers of the config with their keys. Raises SettingsError."""
    if not config.providers:
        raise SettingsError(
            "no provider is configured: add a [providers.NAME] table, as in config/watcher.toml (`watcher sample` prints it)"
        )
    known = registry.known()
    found, mistakes = [], Mistakes()
    for name, table in config.providers.items():
        key, keyed = None, True
        with mistakes.gathered():
            key = secret_of(name, table, environment)
            keyed = key is not None
        with mistakes.gathered():
            found.append(Source(_built(name, table, known, keyed=keyed), key))
    mistakes.raise_any()
    return found


def _built(name: str, table: ProviderSettings, kinds: Kinds, *, keyed: bool) -> Provider:
    """The provider of one table. Raises SettingsError for each of its watches that is wrong."""
    try:
        provider = registry.build(name, table, kinds, keyed=keyed)
        budget_of(provider)
    except BudgetError as error:
        raise SettingsError(f"[providers.{name}]: {error}", next_step="raise the limits, or lower the cost") from None
    except SettingsError as error:
        if len(table.watch) > 1:
            _raise_each_watch(name, table, kinds, keyed=keyed)
        raise error from None
    return provider


def _raise_each_watch(name: str, table: ProviderSettings, kinds: Kinds, *, keyed: bool) -> None:
    """Raises SettingsError for each watch that is wrong where it stands alone, and no other is for the same reason."""
    wrong: dict[str, list[int]] = {}
    for number, watch in enumerate(table.watch):
        try:
            registry.build(name, msgspec.structs.replace(table, watch=(watch,)), kinds, keyed=keyed)
        except SettingsError as error:
            for one in error.errors:
                wrong.setdefault(str(one), []).append(number)
    mistakes = Mistakes()
    for text, numbers in wrong.items():
        if len(numbers) == len(table.watch):  # it is the table's
            mistakes.add(SettingsError(text))
            continue
        for number in numbers:
            where = f"providers.{name}.watch[{number}]"
            mistakes.add(SettingsError(text.replace(f"[providers.{name}]", f"[{where}]", 1), where=where))
    mistakes.raise_any()


def secret_of(name: str, table: ProviderSettings, environment: Mapping[str, str]) -> Secret | None:
    """The key of one provider; None when none is configured. Raises SettingsError for one that cannot be used."""
    what, env, file = f"[providers.{name}]: api_key", table.api_key_env, table.api_key_file
    return secret.read(what, environment, env=env, file=file, judge=secret.key)


def watch_index(providers: Iterable[Provider]) -> WatchIndex:
    """What they watch, with labels and tags. Without any provider nothing is known of what others watch."""
    held = list(providers)
    return WatchIndex((watch for provider in held for watch in _watched(provider)), whole=bool(held))


def unasked_providers(config: Settings) -> list[Provider]:
    """The configured providers for a process that asks none of them, and so needs no key. Raises SettingsError."""
    known = registry.known()
    return [registry.build(name, table, known, keyed=True) for name, table in config.providers.items()]


def _watched(provider: Provider) -> Iterator[Watched]:
    """What each of its watches covers is what it would ask with the watches of those names alone: it may be of any package."""
    named: dict[tuple[str | None, tuple[str, ...]], list[Watch]] = defaultdict(list)
    for watch in provider.settings.watch:
        # A provider of another package may have a struct of its own, that has no names.
        names = getattr(watch, "label", None), getattr(watch, "tags", ())
        if names != (None, ()):
            named[names].append(watch)
    known, scopes = registry.known() if named else {}, set()
    for (label, tags), watches in named.items():
        table = msgspec.structs.replace(provider.settings, watch=tuple(watches))
        part = registry.build(provider.name, table, known, keyed=True)
        for group in part.groups:
            for target in group.targets:
                scopes.add(target.scope)
                yield Watched(target.scope, label, tags)
    for group in provider.groups:
        yield from (Watched(target.scope) for target in group.targets if target.scope not in scopes)
