"""Every metric of a running instance: tables of figures, each read where it is kept, at the moment of the scrape.

Names carry their unit (`_seconds`, `_ratio`); a counter's gets `_total` behind it. Where something is counted by kind,
each kind that an alert may ask for is there from the first scrape on, as 0: Prometheus sees no increase in what appears as 1.
"""

import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from math import inf
from typing import Generic, TypeVar

import anyio
import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from watcher.app import hint_report
from watcher.app.fleet import FleetMember, Holding
from watcher.app.reload import Reloads
from watcher.hints.figures import SourceFigures
from watcher.ingest.committer import Committer
from watcher.ingest.detection_delays import BOUNDS
from watcher.ledger import Ledger
from watcher.limits.forecast import Forecast
from watcher.limits.windows import Limit
from watcher.logs import setup
from watcher.poller.poller import Poller
from watcher.relay.connections import RelayStats
from watcher.relay.http.admission import Admission
from watcher.relay.server import Relay
from watcher.runtime.histogram import Histogram

T = TypeVar("T")
Value = float | Mapping[str, float] | Histogram | None
"""A mapping has one sample for each of its keys. None: no sample."""
_AnyFamily = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Figure(msgspec.Struct, Generic[T], frozen=True):
    """One metric: how its value is read off a T."""

    name: str
    help: str
    family: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily]
    value: Callable[[T], Value]
    by: str | None = None
    """Label of the mapping's keys."""


def counter(name: str, text: str, value: Callable[[T], Value], by: str | None = None) -> Figure[T]:
    return Figure(f"watcher_{name}", text, CounterMetricFamily, value, by)


def gauge(name: str, text: str, value: Callable[[T], Value], by: str | None = None) -> Figure[T]:
    return Figure(f"watcher_{name}", text, GaugeMetricFamily, value, by)


def histogram(name: str, text: str, value: Callable[[T], Histogram]) -> Figure[T]:
    return Figure(f"watcher_{name}", text, HistogramMetricFamily, value)


class ProviderView(msgspec.Struct, frozen=True):
    """One provider at the moment of the scrape (`now`: monotonic seconds; `wall`: of the wall clock)."""

    poller: Poller
    committers: Sequence[Committer]
    now: float
    wall: float
    forecasts: Sequence[Forecast]
    """Of its limits of a day and longer."""
    hint_sources: Collection[str]
    """Those that there are, as far as they may be shown."""

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
    def detection_delays(self) -> Histogram:
        """All of a provider's changes are committed in one partition."""
        found = (committer.figures.detection_delays.by_provider.get(self.poller.name) for committer in self.committers)
        return next(filter(None, found), Histogram(BOUNDS))

    @property
    def closed_day(self) -> float | None:
        found = (committer.closings.closed.get(self.poller.name) for committer in self.committers)
        return next((at for at in found if at is not None), None)

    @property
    def known(self) -> int:
        return sum(committer.ledger.known(self.poller.name) for committer in self.committers)

    def age(self, since: Callable[[Ledger, str], float | None]) -> float:
        """Seconds since the earliest of those times over all ledgers; 0 without one."""
        found = (since(committer.ledger, self.poller.name) for committer in self.committers)
        return self.now - min((at for at in found if at is not None), default=self.now)


FAILURES = dict.fromkeys(
    ("exhausted", "malformed", "misconfigured", "refusedcredential", "temporary", "throttled", "unreachable"), 0
)
DROPPED = dict.fromkeys(("stalled", "astray", "outlived"), 0)
"""Slow connections, by the cause of their end."""


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
        "clock_mismatches",
        "Starts at which the limiter's stamps were not dated in the past (provider.clock_mismatch).",
        lambda p: p.poller.stats.clock_mismatches,
    ),
    counter(
        "orders_went_back",
        "Times that an order was given up (order.went_back).",
        lambda p: p.poller.stats.went_back,
    ),
    histogram(
        "request_duration_seconds",
        "Time from sending a request to the end of its answer, or of the attempt.",
        lambda p: p.poller.stats.request_durations,
    ),
    histogram(
        "detection_delay_seconds",
        "The most that a committed change can have gone unnoticed: from the last accepted reading of the old amount to the "
        "answer that told the new one, proof included. Without changes whose old amount an earlier process read last.",
        lambda p: p.detection_delays,
    ),
    gauge("max_balances", "Balances of the provider that may be known.", lambda p: p.poller.provider.max_balances),
    gauge(
        "refused_balances",
        "Balances in the last answers that were not taken in, since max_balances are known.",
        lambda p: sum(p.poller.stats.left_out.values()),
    ),
    counter(
        "poll_failures",
        "Polls that gave no reading, by kind.",
        lambda p: {**FAILURES, **p.poller.stats.failures},
        by="kind",
    ),
    gauge("last_success_timestamp_seconds", "When the last good answer arrived.", lambda p: p.last_success),
    gauge("watches", "Balances and listings that are read.", lambda p: sum(map(len, p.poller.schedules))),
    gauge("stalest_seconds", "Age of the reading of the watch that waits the longest.", lambda p: p.stalest),
    gauge("paused_seconds", "How long the provider is still left alone.", lambda p: p.paused),
    gauge("budget_used_ratio", "Share of the binding limit in use.", lambda p: p.poller.budget.utilization(p.now)),
    gauge(
        "limit_used_ratio",
        "Share in use of each limit of a day and longer; a window slides, and gives back what is that old.",
        lambda p: {_limit_label(found.limit): found.used for found in p.forecasts},
        by="limit",
    ),
    gauge(
        "limit_burned_per_day",
        "Requests or credits of that limit that a day takes, at the rate of the last one.",
        lambda p: {_limit_label(found.limit): found.per_day for found in p.forecasts},
        by="limit",
    ),
    gauge(
        "limit_exhausted_timestamp_seconds",
        "When nothing of that limit is left for long, at that rate; no sample where it lasts.",
        lambda p: {
            _limit_label(found.limit): p.wall + found.ends_in for found in p.forecasts if found.ends_in is not None
        },
        by="limit",
    ),
    gauge("schedule_cycle_seconds", "Average time between two readings of one watch.", lambda p: p.cycle),
    gauge(
        "schedule_expected_delay_seconds",
        "Mean delay from a change to its reading, as the schedule believes.",
        lambda p: p.expected_delay,
    ),
    gauge(
        "hint_precision",
        "How many hints of a source were followed by a change, less what chance would have given; 0..1.",
        lambda p: hint_report.precisions(p.poller.schedules, p.hint_sources),
        by="source",
    ),
    counter(
        "hinted_reads",
        "Hints judged, by what was read for them; several of one balance that waits are one, of each source.",
        lambda p: hint_report.judged(p.poller.schedules),
        by="result",
    ),
    gauge(
        "change_to_read_seconds",
        "Median of the last reads that showed a change: from the hint to the read; without one, half of the gap to the "
        "read before.",
        lambda p: hint_report.delays(p.poller.schedules),
        by="read",
    ),
    gauge("closed_day_timestamp_seconds", "End of the last day whose closings are kept.", lambda p: p.closed_day),
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
    histogram("commit_duration_seconds", "Time that a commit took, where it succeeded.", lambda c: c.figures.durations),
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
    counter("relay_updates", "Updates and crossings sent.", lambda r: r.stats.sent),
    counter(
        "relay_conflated",
        "Events replaced by a later one of their key, where the client asked for that.",
        lambda r: r.stats.conflated,
    ),
    counter("relay_lagging", "Times that a reader was too slow for the live path.", lambda r: r.stats.lagging),
    counter("relay_snapshots", "Snapshots sent.", lambda r: r.stats.snapshots),
    counter("relay_log_errors", "Times that the log could not be read.", lambda r: r.stats.log_errors),
    counter("relay_refused", "Upgrades and other requests refused.", lambda r: r.stats.refused, by="reason"),
    counter("relay_dropped", "Connections ended by us.", lambda r: {**DROPPED, **r.stats.dropped}, by="reason"),
)


HINT_SOURCES: tuple[Figure[SourceFigures], ...] = (
    counter(
        "hints",
        "Hints by what became of them: of a watch, of none, malformed or forged, a delivery that came before.",
        lambda s: s.by_result,
        by="result",
    ),
    gauge("hint_source_connected", "1 while the source is there; a door of ours always is.", lambda s: s.connected),
    counter("hint_source_connections", "Connections made to the source.", lambda s: s.connections),
    gauge("hint_subscriptions", "Subscriptions that the source has confirmed.", lambda s: s.subscriptions),
    gauge(
        "hint_watches_left_out",
        "Watches of its chain that the source has no subscription for: refused, or above max_subscriptions.",
        lambda s: s.left_out,
    ),
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
    *,
    sources: Collection[SourceFigures],
) -> Iterator[Metric]:
    """`sources`: of hints."""
    yield from of_providers(pollers, committers, [source.name for source in sources])
    yield from families(HINT_SOURCES, ("source", "type"), {(source.name, source.type): source for source in sources})
    yield from families(JOURNAL, ("partition",), {(str(each.partition),): each for each in committers})
    if member is not None:
        yield from families(FLEET, (), {(): member})
        yield from families(HOLDINGS, ("partition",), {(str(each.partition),): each for each in member.holdings})
    yield from families(PROCESS, (), {(): None})
    yield from families(CONFIG, (), {(): reloads})
    if relay is not None:
        yield from families(RELAY, (), {(): RelayView(relay.stats, relay.listener.admission)})


def _limit_label(limit: Limit) -> str:
    """`1000000/2592000s`, and the endpoint where it is one's alone."""
    words = f"{limit.requests}/{limit.per:g}s"
    return words if limit.endpoint is None else f"{words} {limit.endpoint}"


def of_the_build(journal: str) -> Iterator[Metric]:
    """What runs here. `journal`: its kind."""
    facts = {"version": version("balance-watcher"), "python": platform.python_version(), "journal": journal}
    yield InfoMetricFamily("watcher_build", "What runs here; always 1.", value=facts)


def of_providers(
    pollers: Sequence[Poller], committers: Sequence[Committer], hint_sources: Collection[str]
) -> Iterator[Metric]:
    """Each sample is of one provider, which it names. `hint_sources`: those that may be shown."""
    now, wall = anyio.current_time(), time.time()
    views: dict[tuple[str, ...], ProviderView] = {
        (poller.name,): ProviderView(poller, committers, now, wall, poller.budget.forecasts(now), hint_sources)
        for poller in pollers
    }
    yield from families(PROVIDERS, ("provider",), views)


def families(
    figures: Iterable[Figure[T]], labels: Sequence[str], things: Mapping[tuple[str, ...], T]
) -> Iterator[Metric]:
    """The figures of each thing, which is named by a value for each of these labels; where there is one thing, by none."""
    for figure in figures:
        by = [] if figure.by is None else [figure.by]
        family = figure.family(figure.name, figure.help, labels=[*labels, *by])
        for values, thing in things.items():
            _add(family, values, figure.value(thing))
        yield family


def _add(family: _AnyFamily, labels: Sequence[str], value: Value) -> None:
    if isinstance(value, Histogram):
        assert isinstance(family, HistogramMetricFamily)
        buckets = [("+Inf" if bound == inf else str(bound), count) for bound, count in value.cumulative()]
        family.add_metric(labels, buckets, value.sum)
        return
    assert not isinstance(family, HistogramMetricFamily)
    if isinstance(value, Mapping):
        for key, count in sorted(value.items()):
            family.add_metric([*labels, key], count)
    elif value is not None:
        family.add_metric(labels, value)
