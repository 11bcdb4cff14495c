"""What a rehearsal says, old beside new: a table for people, one document for programs."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from watcher.app.limit_words import duration_words, limit_words
from watcher.limits.forecast import DAY
from watcher.limits.windows import Limit
from watcher.redaction.safe_text import pad_left, pad_right, width
from watcher.rehearsal.outcome import Delays, LimitUse, ProviderOutcome

NONE = "-"
MOST_LABELS = 20
"""Shown in the table, the slowest first; `--json` has all."""
PIECEMEAL = 0.999


class RehearsalReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rehearsal. `--json` prints it as it stands; seconds, unless it says otherwise."""

    days: float
    seed: int
    latency: float
    history: Mapping[str, float]
    """How long the history of each provider is that the journal knows."""
    old: list[ProviderOutcome] | None
    new: list[ProviderOutcome]


def lines(report: RehearsalReport) -> Iterator[str]:
    """The table. First what it rests on, last what cannot be met."""
    yield from _ground(report)
    names = dict.fromkeys(one.provider for one in [*(report.old or []), *report.new])
    for name in names:
        old, new = _of(report.old, name), _of(report.new, name)
        kind = next(one.type for one in (new, old) if one is not None)
        yield ""
        yield from _columns([[f"{name} ({kind})", *(_heads(report))], *_rows(report, old, new)])
    yield from _label_lines(report)
    unmet = list(_unmet(report))
    yield ""
    yield from unmet or ["everything that is wished for can be met"]


def _of(outcomes: Sequence[ProviderOutcome] | None, name: str) -> ProviderOutcome | None:
    return next((one for one in outcomes or () if one.provider == name), None)


def _heads(report: RehearsalReport) -> list[str]:
    return ["new"] if report.old is None else ["old", "new"]


def _ground(report: RehearsalReport) -> Iterator[str]:
    yield (
        f"{report.days:g} days, seed {report.seed}; an answer takes {duration_words(report.latency)}; "
        "failures and hints are not rehearsed"
    )
    for one in report.new:
        seconds = report.history.get(one.provider)
        if seconds is None:
            yield f"{one.provider}: the journal knows nothing of it, so its changes are made up"
        else:
            again = ", repeated" if seconds < report.days * DAY * PIECEMEAL else ""
            rest = f"; {one.made_up:,} watches that it does not know change as the median one" if one.made_up else ""
            yield f"{one.provider}: a history of {duration_words(seconds)}{again}{rest}"
    for word, outcomes in (("old", report.old or ()), ("new", report.new)):
        for one in outcomes:
            if one.rehearsed < one.of * PIECEMEAL:
                yield f"{one.provider}, {word}: {duration_words(one.rehearsed)} of it, spread over all the days (--whole takes all)"


Cell = Callable[[ProviderOutcome], str]


def _rows(report: RehearsalReport, old: ProviderOutcome | None, new: ProviderOutcome | None) -> Iterator[list[str]]:
    outcomes = [new] if report.old is None else [old, new]
    rows: tuple[tuple[str, Cell], ...] = (
        ("watches", lambda one: f"{one.watches:,}"),
        ("changes", lambda one: f"{one.delays.changes:,}"),
        ("delay, mean", lambda one: _duration(one.delays.mean)),
        ("delay, p50", lambda one: _duration(one.delays.p50)),
        ("delay, p99", lambda one: _duration(one.delays.p99)),
        ("no event of their own", lambda one: f"{_missed(one.delays):.1%}"),
        ("longest unread", lambda one: duration_words(one.longest)),
        ("requests a day", lambda one: f"{_mean(one.requests_by_day):,.0f}"),
        ("most in a day", lambda one: f"{max(one.requests_by_day):,.0f}"),
        ("credits in 30 days", lambda one: f"{_mean(one.credits_by_day) * 30:,.0f}"),
        ("of the limit", lambda one: f"{one.share:.1%}"),
    )
    for head, cell in rows:
        yield [f"  {head}", *(NONE if one is None else cell(one) for one in outcomes)]


def _label_lines(report: RehearsalReport) -> Iterator[str]:
    """The labels with the longest delays."""
    old = {} if report.old is None else _labels(report.old)
    new = _labels(report.new)
    if not new and not old:
        return
    slowest = sorted({*old, *new}, key=lambda name: -(new.get(name, old.get(name, EMPTY)).p99 or 0.0))
    rows = []
    for name in slowest[:MOST_LABELS]:
        both = [new.get(name)] if report.old is None else [old.get(name), new.get(name)]
        cells = [_duration(None if one is None else one.p50) for one in both]
        rows.append([f"  {name}", *cells, *(_duration(None if one is None else one.p99) for one in both)])
    heads = _heads(report)
    yield ""
    yield from _columns([["label", *(f"p50 {head}" for head in heads), *(f"p99 {head}" for head in heads)], *rows])
    if len(slowest) > MOST_LABELS:
        yield f"  and {len(slowest) - MOST_LABELS} more labels: --json has them"


EMPTY = Delays(0, 0, None, None, None, None)


def _labels(outcomes: Sequence[ProviderOutcome]) -> dict[str, Delays]:
    """One label on watches of several providers stands once for each."""
    count: dict[str, int] = {}
    for one in outcomes:
        for label in one.labels:
            count[label] = count.get(label, 0) + 1
    return {
        label if count[label] == 1 else f"{label} ({one.provider})": delays
        for one in outcomes
        for label, delays in one.labels.items()
    }


def _unmet(report: RehearsalReport) -> Iterator[str]:
    for word, outcomes in (("old", report.old or ()), ("new", report.new)):
        for one in outcomes:
            for text in unmet_wishes(one):
                yield f"{word}, {one.provider}: {text}"


def unmet_wishes(one: ProviderOutcome) -> Iterator[str]:
    """What a config wishes and does not get, a line each."""
    if one.too_seldom and one.max_interval is not None:
        yield (
            f"max_interval {duration_words(one.max_interval)} is not met: {one.too_seldom:,} of {one.watches:,} watches were "
            f"left unread for longer, up to {duration_words(one.longest)}"
        )
    if one.unread:
        yield f"{one.unread:,} of {one.watches:,} watches were never read"
    for use in one.limits:
        if use.spent_on_day is not None:
            yield f"nothing is left of {_limit(use)} on day {use.spent_on_day}"


def _limit(use: LimitUse) -> str:
    return limit_words(Limit(use.requests, use.per, use.endpoint))


def _duration(value: float | None) -> str:
    return NONE if value is None else duration_words(value)


def _missed(delays: Delays) -> float:
    return delays.missed / max(1, delays.changes)


def _mean(days: Sequence[float]) -> float:
    return sum(days) / len(days)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [pad_left(cell, columns) for cell, columns in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([pad_right(row[0], widths[0]), *cells]).rstrip()
