"""Several `watcher run` as one fleet: killed, frozen, restarted, taken out. The sandbox counts what all of them ask together."""

import json
import signal
import time

import pytest

from tests.e2e.harness import until

pytestmark = pytest.mark.kafka
SESSION = 3.0
UNHURRIED = 30.0
"""A session within which a process starts anew on the busiest machine."""
MOVABLE = 4
"""Partitions in which the five providers live."""
DIRTY = SESSION + 4.0
"""Seconds without a poll after a death: the session, the fence, and LATE."""
UNTOLD = 2.0
"""For the look itself, on a busy machine."""


class Fleet:
    def __init__(self, house, kafka, prefix, session=SESSION):
        self.house, self.sandbox, self._session = house, house.sandbox(), session
        self._journal, self._prefix = f"kafka://{kafka.address}", prefix
        assert house.finished("init", "-c", self.config()).status == 0

    def config(self, member=None):
        table = {"topic_prefix": self._prefix, "group": "fleet", "session_timeout": self._session}
        table |= {"member": member} if member else {}
        return self.house.config(
            self.sandbox.providers(), journal=self._journal, name=f"{member or 'member'}.toml", kafka=table
        )

    def start(self, member=None):
        return self.house.run(self.config(member), "--only", "pollers")

    def status(self):
        shown = self.house.finished("fleet", "-c", self.config(), "--json")
        assert shown.status == 0, shown.err
        return json.loads(shown.out)

    def partitions(self):
        """Member → what it was given."""
        return {one["member"]: one["partitions"] for one in self.status()["members"]}

    def shared(self, *members):
        """Until each of them has a part, and nothing is left over."""

        def settled():
            given = [_given(one) for one in members]
            return all(given) and sum(map(len, given)) == MOVABLE

        until(settled, lambda: "\n".join(one.err[-1000:] for one in members))

    def until_all_are_asked(self):
        """The seconds until each provider has been asked anew."""
        began, before = time.monotonic(), self.requests()
        until(lambda: all(count > before[name] for name, count in self.requests().items()), "each provider is asked")
        return time.monotonic() - began

    def requests(self):
        return {name: one["requests"] for name, one in self._report().items()}

    def refusals(self):
        return sum(one["refusals"] for one in self._report().values())

    def _report(self):
        return self.sandbox.report(history=False)["providers"]


@pytest.fixture
def fleet(house, kafka, prefix):
    return Fleet(house, kafka, prefix)


def _given(member):
    return next((record["partitions"] for record in member.logged[::-1] if record["event"] == "fleet.assigned"), [])


def moves(member):
    return [record for record in member.logged if {"let_go", "await_release", "fence"} & record.keys()]


def test_the_work_of_a_killed_member_goes_on_after_its_session_and_within_the_limits(fleet):
    one, two = fleet.start(), fleet.start()
    fleet.shared(one, two)
    fleet.until_all_are_asked()
    two.end(signal.SIGKILL)
    assert fleet.until_all_are_asked() < DIRTY + UNTOLD
    fleet.shared(one)
    status, took = one.end()
    assert (status, took < 3.0) == (0, True)
    assert fleet.refusals() == 0


def test_a_member_that_was_frozen_loses_its_part_and_gets_another_one(fleet):
    one, two = fleet.start(), fleet.start()
    fleet.shared(one, two)
    two.process.send_signal(signal.SIGSTOP)
    assert fleet.until_all_are_asked() < DIRTY + UNTOLD
    fleet.shared(one)
    two.process.send_signal(signal.SIGCONT)
    fleet.shared(one, two)
    fleet.until_all_are_asked()
    assert (one.status, two.status) == (None, None)
    assert fleet.refusals() == 0


def test_the_restart_of_a_static_member_moves_nothing_until_it_is_taken_out(house, kafka, prefix):
    fleet = Fleet(house, kafka, prefix, UNHURRIED)
    one, two = fleet.start("one"), fleet.start("two")
    fleet.shared(one, two)
    before, moved = fleet.partitions(), len(moves(one))
    assert two.end()[0] == 0
    two = fleet.start("two")
    two.until_told("fleet.assigned")
    assert fleet.partitions() == before
    assert len(moves(one)) == moved
    assert two.end()[0] == 0
    assert fleet.house.finished("fleet", "leave", "two", "-c", fleet.config("one")).status == 0
    fleet.shared(one)
    assert fleet.house.finished("fleet", "leave", "two", "-c", fleet.config("one")).status == 2
    assert fleet.refusals() == 0
