"""Every metric of a running instance: tables of figures, each read where it is kept, at the moment of the scrape.

Names carry their unit (`_seconds`, `_ratio`); a counter's gets `_total` behind it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import anyio
import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from watcher.app.fleet import FleetMember, Holding
from watcher.app.reload import Reloads
from watcher.ingest.committer import Committer
from watcher.ledger import Ledger
from watcher.logs import setup
from watcher.poller.poller import Poller
from watcher.relay.connections import RelayStats
from watcher.relay.http.admission import Admission
from watcher.relay.server import Relay

T = TypeVar("T")
Value = float | Mapping[str, float] | None
"""A mapping has one sample for each of its keys. None: no sample."""


class Figure(msgspec.Struct, Generic[T], frozen=True):
    """One metric: how its value is read off a T."""

    name: str
    help: str
    family: type[CounterMetricFamily] | type[GaugeMetricFamily]
    value: Callable[[T], Value]
    by: str | None = None
    """Label of the mapping's keys."""


def counter(name: str, text: str, value: Callable[[T], Value], by: str | None = None) -> Figure[T]:
    return Figure(f"watcher_{name}", text, CounterMetricFamily, value, by)


def gauge(name: str, text: str, value: Callable[[T], Value]) -> Figure[T]:
    return Figure(f"watcher_{name}", text, GaugeMetricFamily, value)


class ProviderView(msgspec.Struct, frozen=True):
    """One provider at the moment of the scrape (`now`: monotonic seconds)."""

    poller: Poller
    committers: Sequence[Committer]
    now: float

    @property
    def last_success(self) -> float | None:
        micros = self.poller.stats.last_success
        return None if micros is None else micros / 1e6

    @property
    def paused(self) -> float:
        until = self.poller.budget.paused_until(self.now)
        return 0.0 if until is None else until - self.now

    @property
    def stalest(self) -> float | None:
        found = (schedule.stalest(self.now) for schedule in self.poller.schedules)
        return max((age for _, age in filter(None, found)), default=None)

    @property
    def cycle(self) -> float | None:
        return max((schedule.cycle(self.now) for schedule in self.poller.schedules), default=None)

    @property
    def expected_delay(self) -> float | None:
        return max((schedule.expected_mean_delay(self.now) for schedule in self.poller.schedules), default=None)

    @property
    def known(self) -> int:
        return sum(committer.ledger.known(self.poller.name) for committer in self.committers)

    def age(self, since: Callable[[Ledger, str], float | None]) -> float:
        """Seconds since the earliest of those times over all ledgers; 0 without one."""
        found = (since(committer.ledger, self.poller.name) for committer in self.committers)
        return self.now - min((time for time in found if time is not None), default=self.now)


class RelayView(msgspec.Struct, frozen=True):
    stats: RelayStats
    admission: Admission


PROVIDERS: tuple[Figure[ProviderView], ...] = (
    counter("polls", "Requests begun.", lambda p: p.poller.stats.polls),
    counter("unsent", "Of them, those that never left: the lease was over.", lambda p: p.poller.stats.unsent_requests),
    counter("answers", "Good answers.", lambda p: p.poller.stats.answers),
    counter("refusals", "Requests refused for their rate (429).", lambda p: p.poller.stats.refusals),
    counter("changes", "Changes found.", lambda p: p.poller.stats.changes),
    counter(
        "candidates",
        "Readings that had to be repeated before they were believed.",
        lambda p: p.poller.stats.candidates,
    ),
    counter("stale_readings", "Readings dropped as older than what was known.", lambda p: p.poller.stats.stale),
    counter(
        "orders_went_back",
        "Times that an order was given up (order.went_back).",
        lambda p: p.poller.stats.went_back,
    ),
    counter(
        "request_seconds",
        "Time from sending to the end of the answer.",
        lambda p: p.poller.stats.request_seconds,
    ),
    gauge("max_balances", "Balances of the provider that may be known.", lambda p: p.poller.provider.max_balances),
    gauge(
        "refused_balances",
        "Balances in the last answers that were not taken in, since max_balances are known.",
        lambda p: sum(p.poller.stats.left_out.values()),
    ),
    counter("poll_failures", "Polls that gave no reading, by kind.", lambda p: p.poller.stats.failures, by="kind"),
    gauge("last_success_timestamp_seconds", "When the last good answer arrived.", lambda p: p.last_success),
    gauge("watches", "Balances and listings that are read.", lambda p: sum(map(len, p.poller.schedules))),
    gauge("stalest_seconds", "Age of the reading of the watch that waits the longest.", lambda p: p.stalest),
    gauge("paused_seconds", "How long the provider is still left alone.", lambda p: p.paused),
    gauge("budget_used_ratio", "Share of the binding limit in use.", lambda p: p.poller.budget.utilization(p.now)),
    gauge("schedule_cycle_seconds", "Average time between two readings of one watch.", lambda p: p.cycle),
    gauge(
        "schedule_expected_delay_seconds",
        "Mean delay from a change to its reading, as the schedule believes.",
        lambda p: p.expected_delay,
    ),
    gauge("known_balances", "Balances that are known of.", lambda p: p.known),
    gauge(
        "oldest_doubt_seconds",
        "Age of the oldest difference that is not believed yet; 0: there is none.",
        lambda p: p.age(Ledger.candidate_since),
    ),
    gauge(
        "longest_behind_seconds",
        "For how long all that comes for some balance is older than what is known of it; 0: for none.",
        lambda p: p.age(Ledger.stale_since),
    ),
)

JOURNAL: tuple[Figure[Committer], ...] = (
    gauge("journal_ready", "1 while the journal can be written.", lambda c: c.problem is None and c.ready.is_set()),
    gauge("pending_rows", "Rows that wait for a commit.", lambda c: c.ledger.pending),
    counter("commits", "Commits.", lambda c: c.commits),
    counter("committed_rows", "Rows committed: changes and baselines.", lambda c: c.rows),
    counter("commit_failures", "Times that the journal was in doubt or down.", lambda c: c.failures),
    counter("rejected_records", "Records that the journal will not take.", lambda c: c.rejected),
    counter("commit_seconds", "Time spent committing.", lambda c: c.commit_seconds),
)

FLEET: tuple[Figure[FleetMember], ...] = (
    gauge("owned_partitions", "Partitions that the fleet has given to this member.", lambda m: len(m.holdings)),
    counter(
        "partition_moves",
        "Partitions that this member opened, let go, and lost without letting them go.",
        lambda m: msgspec.structs.asdict(m.moves),
        by="kind",
    ),
    gauge("unowned_providers", "Providers of the config that no member polls.", lambda m: len(m.unowned)),
)

HOLDINGS: tuple[Figure[Holding], ...] = (
    gauge(
        "partition_unowned_seconds",
        "For how long this member has been given the partition without polling it; 0: it polls.",
        lambda h: h.unpolled_for,
    ),
    gauge(
        "lease_age_seconds",
        "Time since the last successful commit was begun: at 2 and above the next request waits for one.",
        lambda h: h.lease_age,
    ),
)

PROCESS: tuple[Figure[None], ...] = (
    counter("log_lines_dropped", "Log lines that stderr did not take.", lambda _: setup.dropped()),
)

RELAY: tuple[Figure[RelayView], ...] = (
    gauge("relay_connections", "Open connections.", lambda r: r.stats.connections),
    gauge(
        "relay_sockets",
        "Sockets accepted and not closed yet: connections, requests, handshakes.",
        lambda r: len(r.admission.sockets),
    ),
    counter(
        "relay_crowded_out",
        "Sockets closed because there were too many that are no connection.",
        lambda r: r.admission.crowded_out,
    ),
    counter(
        "relay_descriptors_exhausted",
        "Times that no descriptor was free for a socket.",
        lambda r: r.admission.exhausted,
    ),
    gauge("relay_stalled", "Connections that take nothing right now.", lambda r: r.stats.stalled),
    gauge("relay_reading", "Connections that read the log right now.", lambda r: r.stats.reading),
    counter("relay_accepted", "Connections accepted.", lambda r: r.stats.accepted),
    counter("relay_updates", "Updates sent.", lambda r: r.stats.sent),
    counter(
        "relay_conflated",
        "Events replaced by a later one of their key, where the client asked for that.",
        lambda r: r.stats.conflated,
    ),
    counter("relay_lagging", "Times that a reader was too slow for the live path.", lambda r: r.stats.lagging),
    counter("relay_snapshots", "Snapshots sent.", lambda r: r.stats.snapshots),
    counter("relay_log_errors", "Times that the log could not be read.", lambda r: r.stats.log_errors),
    counter("relay_refused", "Upgrades refused.", lambda r: r.stats.refused, by="reason"),
    counter("relay_dropped", "Connections ended by us.", lambda r: r.stats.dropped, by="reason"),
)


CONFIG: tuple[Figure[Reloads], ...] = (
    counter("config_reloads", "Reloads of the config (SIGHUP), by result.", lambda r: r.by_result, by="result"),
    gauge(
        "config_last_success_timestamp_seconds",
        "When the config was last read that holds now: at the start, or by a reload.",
        lambda r: r.last_success,
    ),
)


def everything(
    pollers: Sequence[Poller],
    committers: Sequence[Committer],
    relay: Relay | None,
    member: FleetMember | None,
    reloads: Reloads,
) -> Iterator[Metric]:
    yield from of_providers(pollers, committers)
    yield from families(JOURNAL, "partition", {str(committer.partition): committer for committer in committers})
    if member is not None:
        yield from families(FLEET, None, {"": member})
        yield from families(HOLDINGS, "partition", {str(holding.partition): holding for holding in member.holdings})
    yield from families(PROCESS, None, {"": None})
    yield from families(CONFIG, None, {"": reloads})
    if relay is not None:
        yield from families(RELAY, None, {"": RelayView(relay.stats, relay.listener.admission)})


def of_providers(pollers: Sequence[Poller], committers: Sequence[Committer]) -> Iterator[Metric]:
    """Each sample is of one provider, which it names."""
    now = anyio.current_time()
    yield from families(
        PROVIDERS, "provider", {poller.name: ProviderView(poller, committers, now) for poller in pollers}
    )


def families(figures: Iterable[Figure[T]], label: str | None, things: Mapping[str, T]) -> Iterator[Metric]:
    """The figures of each thing. `label`: of the things' names; None where there is one that needs none."""
    for figure in figures:
        family = figure.family(figure.name, figure.help, labels=[name for name in (label, figure.by) if name])
        for name, thing in things.items():
            labels = [] if label is None else [name]
            value = figure.value(thing)
            if isinstance(value, Mapping):
                for key, count in sorted(value.items()):
                    family.add_metric([*labels, key], count)
            elif value is not None:
                family.add_metric(labels, value)
        yield family


class _Scrape(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(metrics: Iterable[Metric]) -> bytes:
    """The text of `/metrics`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(metrics))
    return generate_latest(registry)
