"""Faults are seeded, told in the report, and never lie twice in a row about one balance."""

import itertools

import pytest

from tests.sandbox.test_apis import START, provider, requests, send, world
from watcher.providers.failures import Failure
from watcher.sandbox.faults import DEFAULT, Faults, parse
from watcher.sandbox.registry import PROVIDERS


def session(name, seconds=300, **settings):
    """Every answer of every request, asked once a second; None for one that gives no readings."""
    here, there = world(**settings), provider(name, **({"max_age": 0} if name == "tokenkit" else {}))
    found = []
    for step in range(seconds):
        for request in requests(there):
            answer = send(here, there, request, START + step)
            try:
                found.append((step, request.targets, there.read(request, answer)))
            except Failure:
                found.append((step, request.targets, None))
    return here, found


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_same_seed_meets_the_same_faults(name):
    first, one = session(name, seconds=60, faults="default")
    second, other = session(name, seconds=60, faults="default")
    assert one == other
    assert first.report(START + 60) == second.report(START + 60)


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_default_faults_all_happen_and_are_counted(name):
    here, _ = session(name, seconds=400, faults="default")
    met = set(here.report(START)["providers"][name]["faults"])
    assert met >= {"late", "torn", "refused", "error", "missing", "stale"}


@pytest.mark.parametrize("name", PROVIDERS)
def test_without_faults_nothing_fails(name):
    here, found = session(name, seconds=30)
    assert all(answer is not None for _, _, answer in found)
    assert here.report(START)["providers"][name]["faults"] == {}


@pytest.mark.parametrize("name", ["bloxroute", "ondo"])
def test_an_answer_that_cannot_be_told_to_be_old_is_followed_by_an_honest_one(name):
    """Faults at even odds, a world that moves fast: wrong readings there are, but never two in a row of one balance."""
    here, found = session(name, seconds=200, faults="stale=0.5,missing=0.5,torn=0.1", rate=40.0)
    balances = {"/".join(balance.key): balance for balance in here.truth.of(name)}
    wrong = {key: [] for key in balances}
    for step, _, answer in found:
        if answer is None:
            continue
        told = {str(reading.key): reading.amount for reading in answer.readings}
        for key, balance in balances.items():
            if answer.listing.covers(_key(balance)):
                wrong[key].append(told.get(key, "0") != balance.text(balance.at(START + step)))
    assert sum(map(sum, wrong.values())) > 50
    assert not [key for key, row in wrong.items() if any(one and two for one, two in itertools.pairwise(row))]


def _key(balance):
    from watcher.model.keys import Key

    return Key(*balance.key)


def test_faults_are_read_from_words():
    assert parse("none") == parse("") == Faults()
    assert parse("default") == DEFAULT
    assert parse("default,late=0") == parse("late=0.9,default,late=0")
    assert parse("late=0.25,cache=60") == Faults(late=0.25, cache=60.0)


@pytest.mark.parametrize("text", ["rain=0.5", "late", "late=2", "late=-1", "late=nan", "latency=x"])
def test_faults_that_make_no_sense_are_refused_with_one_line(text):
    with pytest.raises(ValueError, match="--faults") as refused:
        parse(text)
    assert "\n" not in str(refused.value)
