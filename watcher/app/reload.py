"""What a reload changes: a config as it is read, and the difference between two of them. Pure but for what `loaded` reads."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from watcher.app.hint_sources import HintSource, hint_sources
from watcher.app.provider_sources import Source, sources, unasked_providers, watch_index
from watcher.app.settings import Settings
from watcher.app.webhook_runs import webhooks_of
from watcher.hints.settings import HintSettings, TokenkitHints
from watcher.model.alert_index import NO_ALERTS, AlertIndex
from watcher.model.targets import Target
from watcher.model.watches import WatchIndex
from watcher.providers.settings import ProviderSettings, Watch
from watcher.redaction.secret import Secret
from watcher.relay.http import auth, sockets
from watcher.relay.http.auth import Tokens
from watcher.webhooks.settings import Webhook

ONCE = ("journal", "encoding", "retention", "checkpoints", "metrics_port")
"""Keys of the top level that are read at the start alone."""
RELAY_ONCE = ("host", "port", "certificate", "key", "max_connections")
"""Those of `[relay]`."""

Credential = tuple[str, Secret | None]
"""(address, key): what a provider counts our requests by. Without a key it counts those of this machine."""


class Loaded(msgspec.Struct, frozen=True):
    """A config, with what the files and variables hold that it names."""

    config: Settings
    sources: Sequence[Source]
    """None for a relay alone."""
    tokens: Tokens | None
    watches: WatchIndex
    """What its watches cover, and how people call it; for a relay alone too."""
    hints: Sequence[HintSource] = ()
    """For a relay alone the webhooks."""
    alerts: AlertIndex = NO_ALERTS
    webhooks: Sequence[Webhook] = ()
    """None for a relay alone: whoever owns a partition delivers."""


def loaded(config: Settings, environment: Mapping[str, str], *, polls: bool) -> Loaded:
    """Reads keys and tokens. Raises SettingsError for whatever could not run."""
    tokens = auth.load(config.relay, environment)
    found = sources(config, environment) if polls else []
    providers = [source.provider for source in found] if polls else unasked_providers(config)
    watches, hints = watch_index(providers), hint_sources(config, environment, polls=polls)
    alerts, webhooks = AlertIndex(config.alerts, watches), webhooks_of(config, environment, polls=polls)
    return Loaded(config, found, tokens, watches, hints, alerts, webhooks)


def require_servable(one: Loaded) -> None:
    """That the relay could serve so. Looks at its files and addresses, and binds nothing. Raises SettingsError."""
    sockets.tls(one.config.relay)
    sockets.addresses(one.config.relay, guarded=one.tokens is not None)


class Difference(msgspec.Struct, frozen=True):
    """From what holds to what a file says. Providers by name, in the order of the file."""

    wanted: Loaded
    """What holds from now on: what the file says, and what needs a restart as it was."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Polled otherwise than before; the key alone does not count."""
    renewed: tuple[str, ...]
    """Of those that stay, with another key."""
    relay: bool
    """Its tokens or origins are others."""
    named: bool
    """Labels or tags of watches are others."""
    hints_added: tuple[str, ...]
    hints_removed: tuple[str, ...]
    hints_changed: tuple[str, ...]
    """Sources of hints by name. One that has another address or secret is changed too."""
    alerts_added: tuple[str, ...]
    alerts_removed: tuple[str, ...]
    alerts_changed: tuple[str, ...]
    """By name. One that has another is removed and added."""
    webhooks_added: tuple[str, ...]
    webhooks_removed: tuple[str, ...]
    webhooks_changed: tuple[str, ...]
    """By name. One whose address or secret is another is changed too."""
    edited: bool
    """Anything in the file is another that holds from now on."""
    needs_restart: tuple[str, ...]
    """Keys and tables of the file that say something else than what runs."""
    watches_added: Mapping[str, int]
    watches_removed: Mapping[str, int]
    """Provider → how many. One that comes or goes does so with all of its watches."""

    @property
    def judges(self) -> bool:
        """Alerts are to be judged otherwise than before: labels and tags may stand in them."""
        return bool(self.named or self.alerts_added or self.alerts_removed or self.alerts_changed)

    @property
    def result(self) -> Literal["applied", "unchanged"]:
        return "applied" if self._takes_effect else "unchanged"

    @property
    def _takes_effect(self) -> bool:
        return bool(self.edited or self.renewed or self.relay or self.hints_changed or self.webhooks_changed)


class Reloads:
    """What became of the reloads of one process. Times are unix seconds."""

    def __init__(self, started: float) -> None:
        self.by_result: Counter[str] = Counter(applied=0, unchanged=0, refused=0)
        self.last_success = started
        """When the config was last read that holds now."""

    def refused(self) -> None:
        self.by_result["refused"] += 1

    def succeeded(self, change: Difference, now: float) -> None:
        self.by_result[change.result] += 1
        self.last_success = now


def difference(old: Loaded, new: Loaded) -> Difference:
    before, after = by_name(old.sources), by_name(new.sources)
    stay = [name for name in after if name in before]
    config, needs_restart = _without_restart(old.config, new.config)
    was, will = Counter(_targets(old.sources)), Counter(_targets(new.sources))
    had, has = ({source.name: source for source in one.hints} for one in (old, new))
    warned, warns = ({alert.name: alert for alert in one.config.alerts} for one in (old, new))
    sent, sends = ({webhook.title: webhook for webhook in one.webhooks} for one in (old, new))
    return Difference(
        wanted=Loaded(config, new.sources, new.tokens, new.watches, new.hints, new.alerts, new.webhooks),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in stay if _polled_as(before[name]) != _polled_as(after[name])),
        renewed=tuple(name for name in stay if before[name].secret != after[name].secret),
        relay=old.tokens != new.tokens or old.config.relay.origins != new.config.relay.origins,
        named=_names(old.config) != _names(new.config),
        hints_added=tuple(name for name in has if name not in had),
        hints_removed=tuple(name for name in had if name not in has),
        hints_changed=tuple(name for name in has if name in had and has[name] != had[name]),
        alerts_added=tuple(name for name in warns if name not in warned),
        alerts_removed=tuple(name for name in warned if name not in warns),
        alerts_changed=tuple(name for name in warns if name in warned and warns[name] != warned[name]),
        webhooks_added=tuple(name for name in sends if name not in sent),
        webhooks_removed=tuple(name for name in sent if name not in sends),
        webhooks_changed=tuple(name for name in sends if name in sent and sends[name] != sent[name]),
        edited=old.config != config,
        needs_restart=needs_restart,
        watches_added=Counter(name for name, _ in will - was),
        watches_removed=Counter(name for name, _ in was - will),
    )


def in_environment(config: Settings) -> list[str]:
    """What of the config has its secret in a variable, which cannot change while a process runs."""
    tables = [f"[providers.{name}]" for name, table in config.providers.items() if table.api_key_env is not None]
    hints = [f"[[hints]] {table.source}" for table in config.hints if _variable(table) is not None]
    webhooks = [
        f"[[webhook]] {table.title}"
        for table in config.webhooks
        if table.secret_env is not None or table.url_env is not None
    ]
    return tables + hints + webhooks + ["[relay] tokens_env"] * (config.relay.tokens_env is not None)


def _variable(table: HintSettings) -> str | None:
    return table.secret_env if isinstance(table, TokenkitHints) else table.url_env


def by_name(found: Iterable[Source]) -> dict[str, Source]:
    return {source.provider.name: source for source in found}


def credential(source: Source) -> Credential:
    return source.provider.base_url, source.secret


def targets(source: Source) -> set[Target]:
    return {target for group in source.provider.groups for target in group.targets}


def _targets(found: Iterable[Source]) -> set[tuple[str, Target]]:
    return {(source.provider.name, target) for source in found for target in targets(source)}


def _polled_as(source: Source) -> tuple[ProviderSettings, bool]:
    """What its poller is made from: a table, but for key and names, and whether there is a key, which changes its defaults."""
    settings = source.provider.settings
    watch = tuple(_nameless(one) for one in settings.watch)
    return msgspec.structs.replace(
        settings, watch=watch, api_key_env=None, api_key_file=None
    ), source.secret is not None


def _nameless(watch: Watch) -> Watch:
    """A plug-in's watch may have none."""
    names = {name: default for name, default in (("label", None), ("tags", ())) if hasattr(watch, name)}
    return msgspec.structs.replace(watch, **names)


def _names(config: Settings) -> dict[tuple[str, Watch], tuple[str | None, tuple[str, ...]]]:
    """Of those watches that have any."""
    return {
        (name, _nameless(watch)): names
        for name, table in config.providers.items()
        for watch in table.watch
        if (names := (getattr(watch, "label", None), getattr(watch, "tags", ()))) != (None, ())
    }


def _without_restart(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The new config as far as it can be applied, and the names of what cannot."""
    top = [key for key in ONCE if getattr(old, key) != getattr(new, key)]
    relay = [key for key in RELAY_ONCE if getattr(old.relay, key) != getattr(new.relay, key)]
    journal = [] if old.journal_settings == new.journal_settings else [f"[{new.journal.partition('://')[0]}]"]
    kept = msgspec.structs.replace(
        new,
        **{key: getattr(old, key) for key in ONCE},
        journal_settings=old.journal_settings,
        relay=msgspec.structs.replace(new.relay, **{key: getattr(old.relay, key) for key in RELAY_ONCE}),
    )
    return kept, (*top, *journal, *(f"[relay] {key}" for key in relay))
