"""Every figure of a running instance as metrics: read where it is kept, at the moment of the scrape."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import anyio

from watcher.app.exposition import Family, Labels
from watcher.ingest.committer import Committer
from watcher.ledger import Ledger
from watcher.logs import setup
from watcher.poller.poller import Poller
from watcher.relay.server import Relay

Samples = list[tuple[Labels, float]]


def of(pollers: Sequence[Poller], committers: Sequence[Committer], relay: Relay | None) -> Iterator[Family]:
    """All families, by their rooms."""
    yield from of_providers(pollers, committers)
    yield from _journal(committers)
    yield Family(
        "watcher_log_lines_dropped", "Log lines that stderr did not take.", "counter", [((), float(setup.dropped()))]
    )
    if relay is not None:
        yield from _relay(relay)


def of_providers(pollers: Sequence[Poller], committers: Sequence[Committer]) -> Iterator[Family]:
    """What each sample tells of is one provider, which it names."""
    yield from _polling(pollers)
    yield from _schedules(pollers)
    yield from _unsettled(pollers, committers)


def _polling(pollers: Sequence[Poller]) -> Iterator[Family]:
    def each(value: Callable[[Poller], float | None]) -> Samples:
        return [((("provider", p.name),), found) for p in pollers if (found := value(p)) is not None]

    def counter(name: str, text: str, value: Callable[[Poller], float | None]) -> Family:
        return Family(f"watcher_{name}", text, "counter", each(value))

    yield counter("polls", "Requests sent.", lambda p: p.stats.polls)
    yield counter("answers", "Good answers.", lambda p: p.stats.answers)
    yield counter("refusals", "Requests refused for their rate (429).", lambda p: p.stats.refusals)
    yield counter("changes", "Changes found.", lambda p: p.stats.changes)
    yield counter(
        "candidates", "Readings that had to be repeated before they were believed.", lambda p: p.stats.candidates
    )
    yield counter("stale_readings", "Readings dropped as older than what was known.", lambda p: p.stats.stale)
    yield counter(
        "orders_went_back", "Times that an order was given up (order.went_back).", lambda p: p.stats.went_back
    )
    yield counter("request_seconds", "Time from sending to the end of the answer.", lambda p: p.stats.request_seconds)
    yield Family(
        "watcher_max_balances",
        "Balances of the provider that may be known.",
        "gauge",
        each(lambda p: p.provider.max_balances),
    )
    yield Family(
        "watcher_refused_balances",
        "Balances in the last answers that were not taken in, since max_balances are known.",
        "gauge",
        each(lambda p: sum(p.stats.left_out.values())),
    )
    failures: Samples = [
        ((("provider", p.name), ("kind", kind)), float(count))
        for p in pollers
        for kind, count in sorted(p.stats.failures.items())
    ]
    yield Family("watcher_poll_failures", "Polls that gave no reading, by kind.", "counter", failures)

    def success(p: Poller) -> float | None:
        return None if p.stats.last_success is None else p.stats.last_success / 1e6

    yield Family("watcher_last_success_timestamp_seconds", "When the last good answer arrived.", "gauge", each(success))


def _schedules(pollers: Sequence[Poller]) -> Iterator[Family]:
    now = anyio.current_time()

    def gauge(name: str, text: str, value: Callable[[Poller], float | None]) -> Family:
        found: Samples = [((("provider", p.name),), number) for p in pollers if (number := value(p)) is not None]
        return Family(f"watcher_{name}", text, "gauge", found)

    def stalest(p: Poller) -> float | None:
        return max((found[1] for schedule in p.schedules if (found := schedule.stalest(now))), default=None)

    yield gauge("watches", "Balances and listings that are read.", lambda p: sum(map(len, p.schedules)))
    yield gauge("stalest_seconds", "Age of the reading of the watch that waits the longest.", stalest)
    yield gauge("paused_seconds", "How long the provider is still left alone.", lambda p: _left(p, now))
    yield gauge("budget_used_ratio", "Share of the binding limit in use.", lambda p: p.budget.utilization(now))
    yield gauge(
        "schedule_cycle_seconds",
        "Average time between two readings of one watch.",
        lambda p: max((schedule.cycle(now) for schedule in p.schedules), default=None),
    )
    yield gauge(
        "schedule_expected_delay_seconds",
        "Mean delay from a change to its reading, as the schedule believes.",
        lambda p: max((schedule.expected_mean_delay(now) for schedule in p.schedules), default=None),
    )


def _unsettled(pollers: Sequence[Poller], committers: Sequence[Committer]) -> Iterator[Family]:
    now = anyio.current_time()

    def oldest(name: str, text: str, since: Callable[[Ledger, str], float | None]) -> Family:
        def age(poller: Poller) -> float:
            found = (since(committer.ledger, poller.name) for committer in committers)
            return now - min((one for one in found if one is not None), default=now)

        return Family(f"watcher_{name}", text, "gauge", [((("provider", p.name),), age(p)) for p in pollers])

    known: Samples = [
        ((("provider", p.name),), sum(committer.ledger.known(p.name) for committer in committers)) for p in pollers
    ]
    yield Family("watcher_known_balances", "Balances that are known of.", "gauge", known)
    yield oldest(
        "oldest_doubt_seconds",
        "Age of the oldest difference that is not believed yet; 0: there is none.",
        Ledger.candidate_since,
    )
    yield oldest(
        "longest_behind_seconds",
        "For how long all that comes for some balance is older than what is known of it; 0: for none.",
        Ledger.stale_since,
    )


def _left(poller: Poller, now: float) -> float:
    until = poller.budget.paused_until(now)
    return 0.0 if until is None else until - now


def _journal(committers: Sequence[Committer]) -> Iterator[Family]:
    def family(name: str, text: str, kind: str, value: Callable[[Committer], float]) -> Family:
        samples: Samples = [((("partition", str(c.partition)),), value(c)) for c in committers]
        return Family(f"watcher_{name}", text, "gauge" if kind == "gauge" else "counter", samples)

    yield family(
        "journal_ready",
        "1 while the journal can be written.",
        "gauge",
        lambda c: c.trouble is None and c.ready.is_set(),
    )
    yield family("pending_rows", "Rows that wait for a commit.", "gauge", lambda c: c.ledger.pending)
    yield family("commits", "Commits.", "counter", lambda c: c.commits)
    yield family("committed_rows", "Rows committed: changes and baselines.", "counter", lambda c: c.rows)
    yield family("commit_failures", "Times that the journal was in doubt or down.", "counter", lambda c: c.failures)
    yield family("rejected_records", "Records that the journal will not take.", "counter", lambda c: c.rejected)
    yield family("commit_seconds", "Time spent committing.", "counter", lambda c: c.commit_seconds)


def _relay(relay: Relay) -> Iterable[Family]:
    stats, admission = relay.stats, relay.listener.admission

    def one(name: str, text: str, value: float, *, gauge: bool = False) -> Family:
        return Family(f"watcher_relay_{name}", text, "gauge" if gauge else "counter", [((), value)])

    def by_reason(name: str, text: str, counts: dict[str, int]) -> Family:
        samples: Samples = [((("reason", reason),), count) for reason, count in sorted(counts.items())]
        return Family(f"watcher_relay_{name}", text, "counter", samples)

    return (
        one("connections", "Open connections.", stats.connections, gauge=True),
        one(
            "sockets",
            "Sockets accepted and not closed yet: connections, requests, handshakes.",
            len(admission.sockets),
            gauge=True,
        ),
        one("crowded_out", "Sockets closed because there were too many that are no connection.", admission.crowded_out),
        one("descriptors_exhausted", "Times that no descriptor was free for a socket.", admission.exhausted),
        one("stalled", "Connections that take nothing right now.", stats.stalled, gauge=True),
        one("reading", "Connections that read the log right now.", stats.reading, gauge=True),
        one("accepted", "Connections accepted.", stats.accepted),
        one("updates", "Updates sent.", stats.sent),
        one(
            "conflated",
            "Events replaced by a later one of their key, where the client asked for that.",
            stats.conflated,
        ),
        one("lagging", "Times that a reader was too slow for the live path.", stats.lagging),
        one("snapshots", "Snapshots sent.", stats.snapshots),
        one("log_errors", "Times that the log could not be read.", stats.log_errors),
        by_reason("refused", "Upgrades refused.", stats.refused),
        by_reason("dropped", "Connections ended by us.", stats.dropped),
    )
