"""`watcher check`, from the config to the last answer."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import msgspec

from watcher.app import settings
from watcher.app.check import machine
from watcher.app.check.alert_plan import DecimalsCheck, alert_line, speaking_of_nothing, watches_by_alert
from watcher.app.check.ask import Questions
from watcher.app.check.hint_plan import hint_line, useless
from watcher.app.check.learned import learned_rates
from watcher.app.check.likely_mistakes import likely_mistakes
from watcher.app.check.plan import limit_lines, plan, same_credentials, same_watches, shared_partitions
from watcher.app.check.report import HeldReport, Report
from watcher.app.check.webhook_plan import unreachable, useless_webhook, webhook_line
from watcher.app.daemon import Daemon, journal_of, wall
from watcher.app.exposed_secrets import exposed
from watcher.app.findings import Finding
from watcher.app.hint_sources import HintSource, hint_sources
from watcher.app.limit_words import duration_words
from watcher.app.provider_sources import Source, sources, watch_index
from watcher.app.settings import Settings
from watcher.app.webhook_runs import webhooks_of
from watcher.journal import Journal, OlderFormat, Reader
from watcher.limits.budget import Budget
from watcher.limits.lease import STAMPS
from watcher.model.keys import Filter
from watcher.model.log import JournalError, Unavailable
from watcher.relay.http import auth
from watcher.webhooks.settings import Webhook

PAGE = 1000
"""Balances."""
FRESH = 30.0
"""Seconds: stamps that were saved so lately are those of a daemon that runs."""


class Wish(msgspec.Struct, frozen=True):
    """The flags of the command."""

    offline: bool = False
    all: bool = False
    json: bool = False
    schedule: bool = False


async def check(path: Path, environment: Mapping[str, str], wish: Wish) -> None:
    """Raises Exit: 2, 69 or 78 as `run` would, 69 when a provider did not answer, 78 when one refused its credential."""
    report = Report(json=wish.json)
    config = report.tried(lambda: settings.load(path), "config")
    if config is not None:
        await _Check(config, environment, wish, report).run()
    report.end()


class _Check:
    def __init__(self, config: Settings, environment: Mapping[str, str], wish: Wish, report: Report) -> None:
        self._config = config
        self._environment = environment
        self._wish = wish
        self._report = report
        self._sources: Sequence[Source] = ()
        self._hints: Sequence[HintSource] = ()
        self._webhooks: Sequence[Webhook] = ()
        self._swapping = anyio.Lock()
        """One at a time: a file that many write at once is locked for some of them."""

    async def run(self) -> None:
        config, environment, report = self._config, self._environment, self._report
        report.tried(lambda: auth.load(config.relay, environment), "relay.tokens_file")
        guarded = config.relay.tokens_env is not None or config.relay.tokens_file is not None
        self._sources = report.tried(lambda: sources(config, environment), "providers") or ()
        self._hints = report.tried(lambda: hint_sources(config, environment, polls=True), "hints") or ()
        self._webhooks = report.tried(lambda: webhooks_of(config, environment, polls=True), "webhook") or ()
        for source in self._sources:
            self._plan(source)
        self._tell_hints()
        self._tell_alerts()
        await self._tell_webhooks()
        busy = machine.look(config, report, guarded=guarded, now=wall)
        journal = report.tried(lambda: journal_of(config, environment), "journal")
        if journal is None:
            return
        async with AsyncExitStack() as stack:
            stack.push_async_callback(journal.close)
            reader = await self._reader(journal)
            if reader is not None:
                stack.push_async_callback(reader.close)
                await self._tell_decimals(reader)
            self._warn(journal)
            if self._sources and not report.failed:
                report.tried(lambda: Daemon(config, environment), "config")  # whatever else `run` would refuse
            if self._wish.schedule and reader is not None:
                for line in learned_rates(self._sources, await reader.notes(), wall()):
                    report.say(line)
            if not self._wish.offline:
                await self._ask_all(journal, reader, busy=busy)

    def _plan(self, source: Source) -> None:
        provider, report = source.provider, self._report
        allowed = plan(provider)
        report.plan(provider, allowed)
        for line in limit_lines(provider, allowed):
            report.say(line)
        for text in allowed.warnings:
            report.found(Finding.of("warning", text, where=f"providers.{provider.name}"), indent="  ")
        for finding in likely_mistakes(provider):
            report.found(finding, indent="  ")

    def _tell_hints(self) -> None:
        providers = [source.provider for source in self._sources]
        for source in self._hints:
            self._report.say(hint_line(source, providers))
            for finding in useless(source, providers):
                self._report.found(finding, indent="  ")

    async def _tell_webhooks(self) -> None:
        watches = watch_index(source.provider for source in self._sources)
        for webhook in self._webhooks:
            self._report.say(webhook_line(webhook))
            for finding in useless_webhook(webhook, watches, self._config):
                self._report.found(finding, indent="  ")
        if not self._wish.offline:
            for finding in await unreachable(self._webhooks):
                self._report.found(finding)

    def _tell_alerts(self) -> None:
        """Not while there is no provider to speak of, which has been told."""
        alerts, providers = self._config.alerts, [source.provider for source in self._sources]
        if not alerts or not providers:
            return
        scopes = [target.scope for provider in providers for group in provider.groups for target in group.targets]
        counts = self._report.alerts = watches_by_alert(alerts, scopes, watch_index(providers))
        self._report.say(alert_line(counts))
        for finding in speaking_of_nothing(alerts, counts):
            self._report.found(finding, indent="  ")

    async def _tell_decimals(self, reader: Reader) -> None:
        decimals = DecimalsCheck(self._config.alerts, watch_index(source.provider for source in self._sources))
        if not decimals:
            return
        with contextlib.suppress(
            JournalError
        ):  # a second look: whatever keeps `run` from reading it is told of the first
            snapshot = await reader.snapshot(Filter())
            try:
                while decimals and (states := await snapshot.page(PAGE)):
                    for finding in decimals.look(states):
                        self._report.found(finding)
            finally:
                snapshot.close()

    def _warn(self, journal: Journal) -> None:
        providers = [source.provider for source in self._sources]
        for line in shared_partitions([provider.name for provider in providers], journal.partitions):
            self._report.say(line)
        hosts = {source.provider.name: (source.provider.base_url, source.secret) for source in self._sources}
        for text in itertools.chain(
            same_watches(providers),
            same_credentials(hosts),
            exposed(self._config, self._sources, self._hints, self._webhooks),
        ):
            self._report.tell("warning", text)

    async def _reader(self, journal: Journal) -> Reader | None:
        """What reads the journal, once that is looked at as `run` would, and nothing is changed; None: it cannot be read."""
        report = self._report
        if journal.path is not None:
            if not machine.database(journal.path, report):
                return None
        elif self._wish.offline and not self._wish.schedule:
            report.found(Finding("info", "journal", "the broker is not asked for its topics", "leave --offline out"))
            return None
        try:
            await journal.check()
            return await journal.reader()
        except OlderFormat as error:
            report.tell("info", f"{error}, and so does `run`", "journal")
        except JournalError as error:
            if isinstance(error, Unavailable) and journal.path is not None:
                step = "nothing, if the daemon runs already; else end who holds it"
                report.found(Finding("warning", "journal", str(error), step))
            else:
                report.failure(error, "journal")
        return None

    async def _ask_all(self, journal: Journal, reader: Reader | None, *, busy: bool) -> None:
        """Side by side, so that who waits for a slot holds no other up. What is found is told in the order of the config."""

        async def ask(source: Source, report: HeldReport) -> None:
            await self._ask(source, report, journal, reader, busy=busy)
            report.complete.set()

        reports = [HeldReport(self._report, json=self._wish.json) for _ in self._sources]
        async with anyio.create_task_group() as tasks:
            for source, report in zip(self._sources, reports, strict=True):
                tasks.start_soon(ask, source, report)
            for report in reports:
                await report.complete.wait()
                self._report.add(report)

    async def _ask(
        self, source: Source, report: Report, journal: Journal, reader: Reader | None, *, busy: bool
    ) -> None:
        """Each request takes a slot that the daemon's stamps leave free, and is added to them where nobody else writes them."""

        async def notes() -> Mapping[str, bytes]:
            return {} if reader is None else await reader.notes()

        name = source.provider.name
        live = busy or (_fresh((await notes()).get(STAMPS + name)) and not await journal.released())
        questions = Questions(source, report, wall, notes, live=live)
        counted = await questions.ask(every=self._wish.all)
        if counted is None or reader is None:
            return
        where, step = f"providers.{name}", None
        if live:
            what = f"a running daemon does not count what `check` asks {name}: it may be refused once"
        elif await self._swapped(journal, STAMPS + name, questions.stamps, counted):
            return
        else:
            what = f"the journal does not count what `check` asked {name}"
            step = f"start `run` no sooner than in {duration_words(min(limit.per for limit in source.provider.limits))}"
        report.found(Finding("warning" if live else "info", where, what, step))

    async def _swapped(self, journal: Journal, key: str, before: bytes | None, after: bytes) -> bool:
        async with self._swapping:
            return await journal.swap_note(key, before, after)


def _fresh(stamps: bytes | None) -> bool:
    """Whether they were saved so lately that a daemon may run."""
    try:
        return stamps is not None and wall() - Budget.saved_at(stamps) < FRESH * 1e6
    except ValueError:
        return False
