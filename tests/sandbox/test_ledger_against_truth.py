"""Readers and ledger before the sandbox with its default faults: nothing is told that did not happen, all that stays is."""

import pytest

from tests.sandbox.test_apis import START, provider, requests, send, world
from watcher.ledger import Ledger
from watcher.model.readings import Answer, Times
from watcher.providers.failures import Failure
from watcher.sandbox.registry import PROVIDERS

ROUNDS = 120
STEP = 5.0
"""Seconds between two rounds; every balance is read in each."""


class Watcher:
    """One provider polled in virtual time: events by key, and the first committed amount of each."""

    def __init__(self, here, there):
        self.here, self.there, self.ledger = here, there, Ledger()
        self.baselines, self.events = {}, {}

    def round(self, now):
        for request in requests(self.there, interval=0):
            response = send(self.here, self.there, request, now)
            try:
                found = self.there.read(request, response)
            except Failure:
                continue
            wall = int(self.here.wall(now) * 1e6)
            self.ledger.evaluate(
                Answer(
                    self.there.name,
                    found.readings,
                    self.there.ordering,
                    self.there.settle,
                    Times(now, now, wall),
                    found.listing,
                )
            )
            self.commit()

    def commit(self):
        for row in self.ledger.take().rows:
            key = str(row.state.key)
            if row.event is None:
                self.baselines[key] = row.state.amount
            else:
                self.events.setdefault(key, []).append(row.event)
        self.ledger.committed()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", PROVIDERS)
def test_no_change_is_false_and_no_final_value_is_missed(name, seed):
    here = world(faults="default", rate=2.0, seed=seed)
    watcher = Watcher(here, provider(name, seed=seed))
    for step in range(ROUNDS):
        watcher.round(START + step * STEP)
    here.truth.freeze(START + ROUNDS * STEP)
    for step in range(ROUNDS + 1, ROUNDS + 16):
        watcher.round(START + step * STEP)
    assert sum(map(len, watcher.events.values())) > 100
    for balance in here.truth.of(name):
        key = "/".join(balance.key)
        happened = [balance.text(move.amount) for move in balance.moves]
        told = [watcher.baselines.get(key, "0"), *(event.amount for event in watcher.events.get(key, []))]
        rest = iter(happened)
        assert all(amount in rest for amount in told), (key, told, happened)
        assert told[-1] == happened[-1], key
