"""`watcher rehearse`, from the configs to the table."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import msgspec

from watcher.app import journals, settings
from watcher.app.daemon import journal_of
from watcher.app.provider_sources import watch_index
from watcher.app.rehearse.report import RehearsalReport, lines
from watcher.app.settings import Settings
from watcher.journal import Journal, NotMade
from watcher.limits.forecast import DAY
from watcher.limits.windows import BudgetError
from watcher.model.log import Unavailable
from watcher.poller.assembly import budget_of
from watcher.providers import registry
from watcher.providers.protocol import Provider
from watcher.providers.settings import ProviderSettings
from watcher.redaction import safe_text
from watcher.rehearsal import recorded
from watcher.rehearsal.history import History
from watcher.rehearsal.outcome import ProviderOutcome
from watcher.rehearsal.pieces import STEPS, answer_age, shares, steps_of
from watcher.rehearsal.recorded import Recorded
from watcher.rehearsal.synthetic import zipf_rates
from watcher.rehearsal.task import Task, Wishes
from watcher.rehearsal.workers import rehearse_all
from watcher.runtime.config_section import Mistakes, SettingsError
from watcher.runtime.progress import Progress


class RehearsalOptions(msgspec.Struct, frozen=True):
    """The flags of the command."""

    config: Path
    old: Path | None = None
    journal: str | None = None
    days: float = 30.0
    seed: int = 1
    latency: float = 0.15
    per_hour: float = 1.0
    synthetic: bool = False
    whole: bool = False
    json: bool = False


class RehearsedConfig(msgspec.Struct, frozen=True):
    """One config, as far as a rehearsal needs it."""

    path: Path
    config: Settings
    providers: list[Provider]


def rehearse(options: RehearsalOptions, environment: Mapping[str, str]) -> None:
    """Raises Exit's known errors: SettingsError for what is wrong in a config, JournalError for a journal that cannot be read."""
    new = configured(options.config)
    old = None if options.old is None else configured(options.old)
    found = Recorded() if options.synthetic else anyio.run(read_journal, new.config, options, environment)
    before = new if old is None else old  # what the journal was written under
    caches = {provider.name: answer_age(provider) for provider in (*new.providers, *before.providers)}
    histories = found.histories(options.days * DAY, new.config.retention, options.seed, caches)
    configs = [config for config in (old, new) if config is not None]
    outcomes = rehearsed_outcomes(configs, histories, found.stamps, options)
    report = RehearsalReport(
        days=options.days,
        seed=options.seed,
        latency=options.latency,
        history={name: one.seconds for name, one in histories.items()},
        old=outcomes[0] if old is not None else None,
        new=outcomes[-1],
    )
    if options.json:
        print(safe_text.json_document(report))  # noqa: T201 (each of its lines is fit)
    else:
        for line in lines(report):
            safe_text.print_line(line)


def configured(path: Path) -> RehearsedConfig:
    """A config with its providers; their keys are not read. Raises SettingsError."""
    config = settings.load(path)
    if not config.providers:
        raise SettingsError(f"{path}: no provider is configured: add a [providers.NAME] table, or name another file")
    mistakes, known, providers = Mistakes(), registry.known(), []
    for name, table in config.providers.items():
        with mistakes.gathered():
            provider = registry.build(name, table, known, keyed=keyed(table))
            try:
                budget_of(provider)
            except BudgetError as error:
                raise SettingsError(f"[providers.{name}]: {error}: raise the limits, or lower the cost") from None
            providers.append(provider)
    mistakes.raise_any()
    return RehearsedConfig(path, config, providers)


def keyed(table: ProviderSettings) -> bool:
    """Whether a key is named, as far as that decides the limits: what it is, nobody looks."""
    return table.api_key_env is not None or table.api_key_file is not None


async def read_journal(config: Settings, options: RehearsalOptions, environment: Mapping[str, str]) -> Recorded:
    """What the journal has which is named, or else the config's own: where nothing stands yet, nothing."""
    if options.journal is not None:
        config = with_journal(config, options.journal)
    journal = journal_of(config, environment)
    try:
        try:
            return await recorded_of(journal)
        except Unavailable:
            await journal.check()  # a topic that is missing does not answer either; this says which it is
            raise
    except NotMade:
        if options.journal is not None:
            raise
        return Recorded()
    finally:
        await journal.close()


async def recorded_of(journal: Journal) -> Recorded:
    """All that it keeps. Raises JournalError."""
    reader = await journal.reader()
    try:
        return await recorded.read(reader, Shown("reading the journal").at)
    finally:
        await reader.close()


def with_journal(config: Settings, url: str) -> Settings:
    """The config with another journal; of the same kind, with the same table. Raises SettingsError."""
    plugin, kind = journals.plugin_of(url, journals.known()), url.partition("://")[0]
    table = config.journal_settings
    if kind != config.journal.partition("://")[0]:
        table = None if plugin.Settings is None else plugin.Settings()
    plugin.check(url, table)
    return msgspec.structs.replace(config, journal=url, journal_settings=table)


def rehearsed_outcomes(
    configs: Sequence[RehearsedConfig],
    histories: Mapping[str, History],
    stamps: Mapping[str, bytes],
    options: RehearsalOptions,
) -> list[list[ProviderOutcome]]:
    """Of each config the outcomes of its providers."""
    wishes = Wishes(options.days * DAY, options.seed, options.latency, options.per_hour)
    both = [(provider, config) for config in configs for provider in config.providers]
    steps = [_steps(provider, wishes, histories.get(provider.name)) for provider, _ in both]
    parts = [1.0] * len(steps) if options.whole else shares(steps, STEPS)
    indexes = {config.path: watch_index(config.providers) for config in configs}
    tasks = [
        Task(
            provider.name,
            provider.settings,
            keyed=keyed(provider.settings),
            wishes=wishes,
            history=histories.get(provider.name),
            watches=indexes[config.path],
            share=part,
            stamps=stamps.get(provider.name),
        )
        for (provider, config), part in zip(both, parts, strict=True)
    ]
    shown = Shown("rehearsing, percent", 100)
    work = [one * part for one, part in zip(steps, parts, strict=True)]
    outcomes = iter(rehearse_all(tasks, work, os.cpu_count() or 1, lambda part: shown.at(int(100 * part))))
    return [[next(outcomes) for _ in config.providers] for config in configs]


def _steps(provider: Provider, wishes: Wishes, history: History | None) -> float:
    """How much work it is, at most."""
    targets = [target for group in provider.groups for target in group.targets]
    if history is None:
        rates = zipf_rates(targets, wishes.per_hour, wishes.seed)
        return steps_of(provider, wishes.seconds, list(rates.values()), 1.0)
    changes = [len(one.times) / history.seconds for one in history.balances]
    return steps_of(provider, wishes.seconds, changes, len(history.balances) / len(targets))


class Shown:
    """Progress for who sits at a terminal; nothing in a pipe."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._progress = Progress(what, total) if sys.stderr.isatty() else None

    def at(self, done: int) -> None:
        if self._progress is not None:
            self._progress.at(done)
