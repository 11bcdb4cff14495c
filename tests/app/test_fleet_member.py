"""Whole daemons as members of a fleet, in one process: a real broker, and the providers of a sandbox that count."""

import re

import anyio
import pytest

from tests.e2e.harness import REQUESTS, SCALED
from tests.journal.kafka_world import ready
from tests.relay.stage import PATIENCE, until
from watcher.app import settings
from watcher.app.daemon import Daemon, wall
from watcher.app.demo import world_of
from watcher.app.exit_status import Exit, exits_for_known_errors
from watcher.app.fleet import FleetMember
from watcher.app.fleet_status import fleet_status
from watcher.model.hints import Hint
from watcher.model.partitions import partition_of
from watcher.relay.http.auth import EVERYTHING
from watcher.sandbox.faults import parse
from watcher.sandbox.server import serve
from watcher.sandbox.world import VALID_KEY, SandboxSettings, tables

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]
SESSION = 3.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Member:
    def __init__(self, config, only):
        self.config = config
        """What stands in its file."""
        load = lambda: settings.parse(self.config)  # noqa: E731
        self.daemon = Daemon(load(), {"KEY": VALID_KEY}, only, load)
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.status = None

    @property
    def polled(self):
        return {poller.name for poller in self.daemon.partitions.pollers}

    def figures(self):
        """The names of all samples of a scrape."""
        text = self.daemon.report.metrics(EVERYTHING).body.decode()
        return {re.split("[{ ]", line)[0] for line in text.splitlines()}

    async def run(self):
        try:
            with self.scope, exits_for_known_errors():
                await self.daemon.run()
        except Exit as end:
            self.status = end.status
        finally:
            self.ended.set()

    async def stop(self):
        """As SIGTERM does; the seconds that it takes."""
        began = anyio.current_time()
        self.scope.cancel()
        await self.ended.wait()
        return anyio.current_time() - began


class Fleet:
    def __init__(self, address, prefix, world, port, tasks):
        self.world = world
        self.members = []
        self._address, self._prefix, self._port, self._tasks = address, prefix, port, tasks

    def start(self, *, group="fleet", member=None, without=(), only="pollers"):
        kafka = {"topic_prefix": self._prefix, "session_timeout": SESSION, "group": group, "member": member}
        config = {
            "journal": f"kafka://{self._address}",
            "kafka": {name: value for name, value in kafka.items() if value and (group or name == "topic_prefix")},
            "providers": self.providers(without),
        }
        started = Member(config, only)
        self.members.append(started)
        self._tasks.start_soon(started.run)
        return started

    def providers(self, without):
        return {
            name: {**table, "limits": [{"requests": REQUESTS[name], "per": 1}]}
            for name, table in tables(self._port, 1, "KEY").items()
            if name not in without
        }

    async def shared(self, *members, idle=0):
        """Until these poll all providers, each one's once, and so many have none."""
        await until(lambda: self._is_shared(members, idle))

    def _is_shared(self, members, idle):
        polled = [member.polled for member in members]
        return sorted(name for names in polled for name in names) == sorted(REQUESTS) and polled.count(set()) == idle

    def polls(self):
        return {name: found["requests"] for name, found in self._report().items()}

    def refusals(self):
        return sum(found["refusals"] for found in self._report().values())

    def _report(self):
        return self.world.report(anyio.current_time())["providers"]

    async def status(self):
        """As `watcher fleet` shows it."""
        journal = self.members[0].daemon.journal
        return fleet_status("fleet", await journal.fleet(), await journal.heartbeats(), journal.partitions, wall())

    async def all_are_asked(self):
        before = self.polls()
        await until(lambda: all(count > before[name] for name, count in self.polls().items()))


@pytest.fixture
async def fleet(kafka, prefix):
    world = world_of(SandboxSettings(seed=1, limits=SCALED))
    async with ready(kafka.address, prefix, partitions=16), anyio.create_task_group() as tasks:
        port = await tasks.start(serve, world)
        made = Fleet(kafka.address, prefix, world, port, tasks)
        yield made
        for member in made.members:
            await member.stop()
        tasks.cancel_scope.cancel()


def released(member):
    """Whether nothing was in doubt in what it has opened."""
    return all(committer.released for committer in member.daemon.partitions.committers)


async def test_who_joins_takes_a_part_over_and_who_leaves_gives_it_back(fleet):
    one = fleet.start()
    await fleet.shared(one)
    two = fleet.start()
    await fleet.shared(one, two)
    # Who has released a partition has not closed it yet when the next one opens it.
    await until(lambda: one.daemon.member.moves.let_go == two.daemon.member.moves.opened)
    await fleet.all_are_asked()
    await until(lambda: one.daemon.report.readiness().ready)
    assert released(two)
    assert {
        "watcher_owned_partitions",
        "watcher_partition_unowned_seconds",
        "watcher_lease_age_seconds",
    } <= two.figures()
    status = await fleet.status()
    assert {one.provider: one.owner for one in status.providers} == {
        name: member.daemon.instance for member in (one, two) for name in member.polled
    }
    assert await two.stop() < 3.0
    await fleet.shared(one)
    await fleet.all_are_asked()
    assert released(one)  # so nothing is in doubt, and nothing was waited for
    assert one.daemon.member.moves.lost == 0
    assert fleet.refusals() == 0


async def test_a_config_is_rolled_out_by_reloading_one_member_after_the_other(fleet):
    members = [fleet.start(without=("ondo", "jupiter")) for _ in range(2)]
    await until(lambda: sum(len(member.polled) for member in members) == 3)
    before = {member: member.daemon.member._ownership.claim().config for member in members}
    for member in members:
        member.config = {**member.config, "providers": fleet.providers(without=("helius",))}
        member.daemon.reload()
        await until(lambda one=member: one.daemon.member._ownership.claim().config != before[one])
    wanted = sorted(REQUESTS.keys() - {"helius"})
    await until(lambda: sorted(name for member in members for name in member.polled) == wanted)
    await until(lambda: not any(member.daemon.member.unowned for member in members))  # each hears it for itself
    asked = fleet.polls()
    await until(lambda: all(fleet.polls()[name] > asked[name] for name in wanted))
    assert fleet.polls()["helius"] == asked["helius"]
    assert fleet.refusals() == 0
    assert not any(member.ended.is_set() for member in members)


async def test_a_partition_is_opened_for_who_comes_to_live_there_and_let_go_when_nobody_does(fleet):
    alone = fleet.start(group=None, without=("ondo",))
    daemon = alone.daemon
    await until(lambda: len(alone.polled) == len(REQUESTS) - 1)
    opened = {committer.partition: committer for committer in daemon.partitions.committers}
    for without, asked in ((("helius",), "ondo"), ((), "helius")):
        alone.config = {**alone.config, "providers": fleet.providers(without=without)}
        daemon.reload()
        await until(lambda without=without: alone.polled == REQUESTS.keys() - set(without))
        assert [committer.partition for committer in daemon.partitions.committers] == daemon.partitions.in_use
        enough = fleet.polls()[asked] + 3
        await until(lambda asked=asked, enough=enough: fleet.polls()[asked] >= enough)
    home = partition_of("helius", daemon.journal.partitions)
    for committer in daemon.partitions.committers:
        assert (opened.get(committer.partition) is committer) == (
            committer.partition in opened and committer.partition != home
        ), "others are not disturbed"
        assert committer.released, "nothing is in doubt"
    assert fleet.refusals() == 0


async def joined_slowly(fleet):
    """Two members; the providers answer slowly when the second one joins. Whether the first let go in order."""
    one = fleet.start()
    await fleet.shared(one)
    fleet.world.faults = parse("latency=0.4")
    await fleet.all_are_asked()
    two = fleet.start()
    await fleet.shared(one, two)
    return one.daemon.member.moves.lost == 0 and released(two)


async def test_who_joins_waits_until_the_owner_before_has_its_answers(fleet):
    assert await joined_slowly(fleet)
    assert fleet.refusals() == 0


async def test_who_does_not_wait_takes_the_partition_from_an_owner_that_still_asks(fleet, monkeypatch):
    async def at_once(_self, _partition):
        pass

    monkeypatch.setattr(FleetMember, "_await_release", at_once)
    assert not await joined_slowly(fleet)


async def test_of_a_fleet_and_an_instance_without_the_group_one_stays_and_those_end_too_who_own_nothing(fleet):
    """The instance, whose claim grows beyond all that it meets; a fleet that still moves partitions about may grow beyond it."""
    members = [fleet.start() for _ in range(5)]  # four movable units: one has none
    await fleet.shared(*members, idle=1)
    alone = fleet.start(group=None)
    await fleet.shared(alone)
    fleet_ended = lambda: all(member.ended.is_set() for member in members)  # noqa: E731
    await until(lambda: alone.ended.is_set() or fleet_ended())
    polled = lambda: [name for one in fleet.members if not one.ended.is_set() for name in one.polled]  # noqa: E731
    await until(lambda: sorted(polled()) == sorted(REQUESTS))
    assert alone.ended.is_set() != fleet_ended()
    assert {one.status for one in fleet.members if one.ended.is_set()} == {75}
    assert fleet.refusals() == 0


def hinted(member):
    """Whether each of its providers was hinted at."""
    return all(
        any(score.hints for schedule in poller.schedules for score in schedule.hint_scores.values())
        for poller in member.daemon.partitions.pollers
    )


def taken(member):
    """What it was sent by others."""
    return member.daemon.hints.router.figures["kafka"].by_result


async def hinted_until(sender, hints, condition):
    """Post these at one process, again and again, until then. Before a reader has begun it misses what is sent."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            accepted = await sender.daemon.hints.router.posted(hints, EVERYTHING, "")
            assert (accepted.accepted, accepted.unknown) == (len(hints), 0)
            await anyio.sleep(0.2)


async def test_a_hint_reaches_whoever_polls_its_provider_wherever_it_is_posted(fleet):
    one, two, relay = fleet.start(), fleet.start(), fleet.start(only="relay")
    await fleet.shared(one, two)
    watches = {name: table["watch"] for name, table in fleet.providers(()).items()}
    hints = [
        Hint(provider=name, account=watch["account"])
        for name in watches
        for watch in watches[name]
        if "account" in watch
    ]
    await hinted_until(one, hints, lambda: taken(two)["accepted"] and hinted(two))
    assert taken(one)["accepted"] == 0
    assert one.daemon.hints.router.figures["http"].by_result["accepted"] > 0
    before = taken(two)["accepted"]
    await hinted_until(relay, hints, lambda: taken(one)["accepted"] and taken(two)["accepted"] > before)
    assert hinted(one)
    for member in (one, two):
        assert (taken(member)["unknown"], taken(member)["rejected"]) == (0, 0)
    assert fleet.refusals() == 0
