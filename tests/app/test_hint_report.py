"""What heartbeat and metrics say of hints: which sources a provider has, and what their hints were worth."""

import pytest

from tests.polling import helius, tokenkit
from watcher.app.hint_report import delays, hints_health, judged, precisions
from watcher.hints.figures import SourceFigures
from watcher.model.addresses import SOLANA, STARKNET
from watcher.model.times import format_rfc3339
from watcher.poller.assembly import schedules_of

SINCE = 1_790_000_000_000_000


def source(name, chain=SOLANA, **parts):
    return SourceFigures(name=name, type="solana", chain=chain, **parts)


def told(provider, *sources, schedules=(), now=0.0):
    """What is said of each source, by name, in their order; None: nothing of hints."""
    found = hints_health(provider, {each.name: each for each in sources}, schedules, now)
    return None if found is None else {each.source: each for each in found.sources}


def begun(provider):
    """Its schedules, once each target has been read."""
    schedules = schedules_of(provider, seed=1, now=0.0)
    for schedule in schedules:
        for target in schedule.pick(0.0, len(schedule)):
            schedule.report(target, 1.0, changed=False)
    return schedules


def hint_and_read(schedule, target, at, *, after, changed, by="sol"):
    """A hint comes, and so many seconds later the answer to its read."""
    schedule.hint(target, at, by)
    while target not in (picked := schedule.pick(at)):
        schedule.report(*picked, at, changed=False)
    schedule.report(target, at + after, changed)


def test_without_a_source_and_without_a_hint_nothing_is_told():
    provider = helius(2)
    schedules = begun(provider)
    assert told(provider, schedules=schedules) is None
    assert (precisions(schedules, ["sol"]), judged(schedules), delays(schedules)) == (
        {},
        {"changed": 0, "unchanged": 0},
        {},
    )


def test_a_source_is_told_of_those_of_which_it_covers_something_has_hinted_something_or_would_if_it_were_there():
    solana, starknet = helius(2), tokenkit(2)
    sources = [
        source("there", connected=True),
        source("covers", connected=True, providers=frozenset({"helius"})),
        source("away", since=SINCE),
        source("away-too", STARKNET, since=SINCE),
        source("begins"),
        SourceFigures(name="http", type="http", connected=True),
    ]
    assert [*told(solana, *sources)] == ["away", "covers"]
    assert [*told(starknet, *sources)] == ["away-too"]
    schedules = begun(solana)
    for schedule in schedules:
        schedule.cover("there", [])  # it covers nothing here
        schedule.hint(solana.groups[0].targets[0], 2.0, "http")
    assert [*told(solana, *sources, schedules=schedules)] == ["away", "covers", "http"]
    assert [*told(starknet, *sources, schedules=begun(starknet))] == ["away-too"]


def test_a_source_that_the_config_names_no_more_is_not_told_though_its_hints_are_remembered():
    provider = helius(2)
    schedules = begun(provider)
    hint_and_read(schedules[0], provider.groups[0].targets[0], 10.0, after=0.5, changed=True)
    assert told(provider, schedules=schedules) is None
    assert precisions(schedules, []) == {}
    assert judged(schedules) == {"changed": 1, "unchanged": 0}, "a total that fell would look like a restart"
    assert precisions(schedules, ["sol"]) == {"sol": 1.0}, "one that is back goes on"


def test_each_source_has_its_link_its_pace_and_its_precision():
    provider = helius(2)
    (schedule,) = schedules = begun(provider)
    (first, *_) = provider.groups[0].targets
    sol = source("sol", connected=True, since=SINCE)
    for n in range(3):
        hint_and_read(schedule, first, 1000.0 * (n + 1), after=0.5, changed=True)
        sol.count("accepted", 3000.0)
    found = told(provider, sol, source("away", since=SINCE + 1), schedules=schedules, now=3010.0)
    assert found["sol"].type == "solana"
    assert (found["sol"].connected, found["away"].connected) == (True, False)
    assert (found["sol"].since, found["away"].since) == (format_rfc3339(SINCE), format_rfc3339(SINCE + 1))
    assert (found["sol"].per_second, found["away"].per_second) == (pytest.approx(3 / 60), 0.0)
    assert found["sol"].precision == schedule.hint_scores["sol"].precision == precisions(schedules, ["sol"])["sol"]
    assert found["away"].precision is None
    assert judged(schedules) == {"changed": 3, "unchanged": 0}
    health = hints_health(provider, {"sol": sol}, schedules, 3010.0)
    assert (health.hinted_delay, health.unhinted_delay) == (pytest.approx(0.5), None)


def test_of_a_provider_with_two_schedules_counts_are_added_precision_is_weighed_and_the_longest_delay_is_told():
    provider = tokenkit(2, listings=2)
    pairs, listings = schedules = begun(provider)
    pair, listing = (group.targets[0] for group in provider.groups)
    for n in range(3):
        hint_and_read(pairs, pair, 1000.0 * (n + 1), after=0.5, changed=True)
    hint_and_read(listings, listing, 1000.0, after=2.0, changed=True)
    for now in (2000.0, 3000.0, 4000.0, 5000.0):
        hint_and_read(listings, listing, now, after=20.0, changed=False)
    scores = [schedule.hint_scores["sol"] for schedule in schedules]
    counts = [score.hits + score.misses for score in scores]
    assert counts[0] == 3
    assert scores[1].misses >= 1
    mean = sum(count * score.precision for count, score in zip(counts, scores, strict=True)) / sum(counts)
    assert precisions(schedules, ["sol"])["sol"] == pytest.approx(mean)
    assert scores[1].precision < mean < scores[0].precision
    assert judged(schedules) == {"changed": 4, "unchanged": scores[1].misses}
    assert delays(schedules) == {"hinted": pytest.approx(2.0)}
