"""What a running instance reports of itself: `/readyz` and `/metrics`, as far as the rights of a token go."""

from collections.abc import Callable, Collection, Sequence
from itertools import chain

from msgspec import UNSET

from watcher.app import metrics, webhook_metrics
from watcher.app.alert_metrics import AlertMetrics
from watcher.app.balance_gauges import BalanceGauges
from watcher.app.fleet import FleetMember
from watcher.app.metrics_exposition import exposition
from watcher.app.partitions import Partitions
from watcher.app.provider_sources import Source
from watcher.app.reload import Reloads
from watcher.hints.figures import SourceFigures
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter
from watcher.relay.http.auth import EVERYTHING
from watcher.relay.http.routes import MetricsText, Readiness, Status, named
from watcher.relay.server import Relay
from watcher.webhooks.figures import WebhookFigures


class StatusReport:
    """Looks at the parts of one instance when it is asked. Its partitions come and go."""

    def __init__(
        self,
        sources: Sequence[Source],
        partitions: Partitions,
        member: Callable[[], FleetMember | None],
        relay: Callable[[], Relay | None],
        *,
        gauges: BalanceGauges,
        alerts: AlertMetrics,
        reloads: Reloads,
        hints: Callable[[], Collection[SourceFigures]],
        webhooks: Callable[[], Collection[WebhookFigures]],
        journal: str,
    ) -> None:
        """`hints`, `webhooks`: the figures of each. `journal`: the kind that it is, `sqlite`, `kafka` or a plug-in's."""
        self._gauges = gauges
        self._alerts = alerts
        self._hints = hints
        self._webhooks = webhooks
        self._journal = journal
        self._partitions = partitions
        self._member = member
        self._relay = relay
        self._reloads = reloads
        self._visible: dict[tuple[Filter, str], bool] = {}
        """By the rights of each token, of which there are as many as the config has."""
        self.watch(sources)

    def watch(self, sources: Sequence[Source]) -> None:
        """These are configured from now on."""
        self._watched_scopes = {
            source.provider.name: [target.scope for group in source.provider.groups for target in group.targets]
            for source in sources
        }
        self._visible.clear()

    def status(self) -> Status:
        """For the routes of a port."""
        return Status(metrics=self.metrics, readiness=self.readiness, sees=self.may_see)

    def readiness(self) -> Readiness:
        """Ready means that changes can be committed and published. A member of a fleet is, when it polls what it was given,
        and be it nothing."""
        problems = [committer.problem for committer in self._partitions.committers]
        if (member := self._member()) is not None:
            problems.append(member.problem)
        problem = next(filter(None, problems), None)
        webhooks = {one.name: one.problem or "ok" for one in self._webhooks()}
        return Readiness(
            ready=problem is None and all(committer.ready.is_set() for committer in self._partitions.committers),
            journal=problem or "ok",
            providers={poller.name: poller.stats.problem or "ok" for poller in self._partitions.pollers},
            webhooks=webhooks or UNSET,
        )

    def metrics(self, rights: Filter, accept: str = "") -> MetricsText:
        """Everything, or the figures of the providers that these rights may see."""
        partitions = self._partitions
        if rights == EVERYTHING:
            parts = (partitions.pollers, partitions.committers, self._relay(), self._member(), self._reloads)
            found = metrics.everything(*parts, sources=self._hints())
            sent = webhook_metrics.families_of(self._webhooks())
            build = metrics.of_the_build(self._journal)
            return exposition(chain(build, found, self._alerts.families(), sent, self._gauges.families(rights)), accept)
        visible = [poller for poller in partitions.pollers if self.may_see(rights, poller.name)]
        others = [source.name for source in self._hints() if not source.is_sender]  # who else has a token is not theirs
        of_providers = metrics.of_providers(visible, partitions.committers, others)
        return exposition(chain(of_providers, self._gauges.families(rights)), accept)

    def line(self) -> str:
        """In one line, for `systemctl status`: names of providers and counts, since everybody on the machine may read it."""
        pollers, relay, member = self._partitions.pollers, self._relay(), self._member()
        watches = sum(len(schedule) for poller in pollers for schedule in poller.schedules)
        parts = [f"polling {len(pollers)} providers, {watches} watches"] if self._watched_scopes else []
        if troubled := [poller.name for poller in pollers if poller.stats.problem is not None]:
            parts.append(f"in trouble: {', '.join(troubled)}")
        if any(committer.problem is not None for committer in self._partitions.committers):
            parts.append("the journal takes nothing")
        if member is not None and member.problem is not None:
            parts.append("not all of its partitions are polled")
        if relay is not None:
            parts.append(f"{relay.stats.connections} subscribers")
        return "; ".join(parts)

    def may_see(self, rights: Filter, provider: str) -> bool:
        """Whether these rights may know the status of a provider: it reads a balance that they may see.

        An instance without pollers cannot know what is read, and goes by the providers that the rights name.
        """
        if not named(rights, provider):
            return False
        scopes = self._watched_scopes.get(provider)
        if scopes is None or rights == EVERYTHING:
            return True
        if (known := self._visible.get((rights, provider))) is None:
            matcher = FilterMatcher.of(rights)
            known = self._visible[rights, provider] = any(matcher.touches(scope) for scope in scopes)
        return known
