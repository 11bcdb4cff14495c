"""Webhooks in virtual time: receivers fail in every way, processes are killed, replaced and overlap, the config changes.

Real manager, delivery, sender and committer; the log, its writers, the network and the clock are ours. Over all of it: every
event that is wanted comes at least once, first deliveries in the order of the log, none after a 410, and nothing else comes.
"""

import bisect
import itertools
import json
import random
from collections import Counter

import anyio
import httpx
import pytest
from trio.testing import MockClock

from tests.webhooks.samples import EPOCH, event, key, secret, webhook
from watcher.app.webhook_runs import Webhooks
from watcher.ingest.committer import Committer
from watcher.journal import Fenced, Restored
from watcher.ledger import Ledger
from watcher.model.keys import Scope
from watcher.model.log import Bounds, Commit, Cursor, Expired, Unavailable
from watcher.model.watches import Watched, WatchIndex
from watcher.runtime.task_scope import task_scope
from watcher.testing.journal_samples import BEGAN
from watcher.webhooks import delivery
from watcher.webhooks.delivery import Receiver
from watcher.webhooks.sender import WHOLE, Sender
from watcher.webhooks.signing import key_of, signatures

HOUR = 3600.0
COMMIT = 7
"""Events of a position that one look at the log gives."""
WATCHES = WatchIndex([Watched(Scope("bank", "eip155:1", "a1"), "Cold", ("vault",)), Watched(Scope("bank"))])


def wall():
    return BEGAN + int(anyio.current_time() * 1e6)


def in_virtual_time(main, *arguments):
    anyio.run(main, *arguments, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


class SimulatedLog:
    """Events of `partitions`, changes and crossings; readers and writers of it."""

    def __init__(self, partitions=1):
        self.partitions, self.epoch = partitions, EPOCH
        self.events = [[] for _ in range(2 * partitions)]
        """By index of a position. Positions begin at 0, and none is left out."""
        self.oldest = [0] * (2 * partitions)
        self.notes = [{} for _ in range(partitions)]
        self.owners = [0] * partitions
        self.changed = anyio.Event()
        self.away = False
        self.followers = Counter()

    @property
    def head(self):
        return Cursor(self.epoch, tuple(map(len, self.events)))

    def append(self, partition, of=None, type="changed"):  # noqa: A002
        index = partition + self.partitions * (type == "crossed")
        one = event(len(self.events[index]), type=type, partition=index, of=of or key(len(self.events[index]) % 3))
        # The time of a test's event is that of its commit.
        self.events[index].append(type_at(one, index))
        self._wake()
        return self.events[index][-1]

    def _wake(self):
        self.changed.set()
        self.changed = anyio.Event()

    def turn_away(self, away):
        self.away = away
        self._wake()

    def trim(self, kept):
        self.oldest = [max(0, len(found) - kept) for found in self.events]
        self._wake()

    async def bounds(self):
        await anyio.sleep(0.001)
        if self.away:
            raise Unavailable("away")
        return Bounds(Cursor(self.epoch, tuple(self.oldest)), self.head)

    async def follow(self, cursor):
        self.followers["open"] += 1
        try:
            if (reason := (await self.bounds()).gap(cursor)) is not None:
                raise Expired(reason)
            at = list(cursor.positions)
            while True:
                changed = self.changed
                if self.away:
                    raise Unavailable("away")
                if any(mine < first for mine, first in zip(at, self.oldest, strict=True)):
                    raise Expired("expired")
                found = []
                for index, known in enumerate(self.events):
                    part = known[at[index] : at[index] + COMMIT]
                    at[index] += len(part)
                    found += part
                if found:
                    yield Commit(Cursor(self.epoch, tuple(at)), found)
                    continue
                await changed.wait()
        finally:
            self.followers["open"] -= 1


def type_at(one, index):
    """Ids of different partitions differ."""
    fields = json.loads(one.data)
    fields["id"] = f"{index}-{fields['id']}"
    return type(one)(one.key, one.version, json.dumps(fields).encode(), index, one.position, one.observed_at, one.type)


class LogWriter:
    """One process' writer of a partition."""

    def __init__(self, log, partition, process):
        self._log, self._partition, self._process = log, partition, process
        self._owner = None

    async def open(self):
        await anyio.sleep(0.01)
        if self._owner is not None and self._log.owners[self._partition] != self._owner:
            raise Fenced("another owner")
        self._owner = self._log.owners[self._partition] = self._log.owners[self._partition] + 1
        return Restored([], dict(self._log.notes[self._partition]), EPOCH, anyio.current_time(), released=True)

    async def commit(self, batch):
        await anyio.sleep(0.005)
        if self._process.dead or self._log.away:
            raise Unavailable("no answer")
        if self._log.owners[self._partition] != self._owner:
            raise Fenced("another owner")
        self._log.notes[self._partition].update(batch.notes)

    async def release(self, *, in_doubt=0.0):
        pass

    async def close(self):
        pass


class FakeReceiver:
    """Somebody's endpoint: what it answers is its mood's."""

    def __init__(self, moods=(), takes=0.05):
        self.moods, self.takes = list(moods), takes
        """(until, mood), in order; then all is well."""
        self.taken = []
        """(time, id, data) of what was answered with 2xx."""
        self.attempts = []
        """(time, id)."""
        self.keys = [key_of(secret())]
        self.open = 0

    def mood(self):
        now = anyio.current_time()
        return next((mood for until, mood in self.moods if now < until), "fine")


class Wire(httpx.AsyncBaseTransport):
    """The network between a process and a receiver."""

    def __init__(self, receiver):
        self._receiver = receiver

    async def handle_async_request(self, request):
        receiver, body, now = self._receiver, await request.aread(), anyio.current_time()
        head = request.headers
        receiver.attempts.append((now, head["webhook-id"]))
        timestamp = int(head["webhook-timestamp"])
        assert abs(timestamp - wall() // 10**6) <= 1, "signed with the time of the attempt"
        assert head["webhook-signature"] == signatures(receiver.keys, head["webhook-id"], timestamp, body)
        mood = receiver.mood()
        receiver.open += 1
        try:
            await anyio.sleep(receiver.takes if mood != "hangs" else 10 * HOUR)
        finally:
            receiver.open -= 1
        if mood == "refuses":
            raise httpx.ConnectError("refused")
        if mood in ("fine", "forgets"):
            whole = json.loads(body)
            receiver.taken.append((now, head["webhook-id"], whole["data"], whole["type"]))
        if mood == "forgets":  # it took it, and its answer was lost
            raise httpx.ReadError("reset")
        status = {"fine": 204, "busy": 429, "away": 503, "moved": 302, "gone": 410, "faulty": 500}[mood]
        asked = {"busy": "90", "away": "86400"}
        return httpx.Response(status, headers={"retry-after": asked[mood]} if mood in asked else {})

    async def aclose(self):
        await anyio.sleep(0.5)  # TLS says good-bye


class Process:
    """One instance: a committer of each partition, and the webhooks beside them."""

    def __init__(self, log, network):
        self.log, self.network, self.dead = log, network, False
        self.webhooks = Webhooks(self._reader, log.partitions, wall, self._receiver)
        self._stop = anyio.Event()

    async def _reader(self):
        return self.log

    def _receiver(self, hook, figures, watches, clock):
        return Receiver(hook, figures, watches, lambda: Sender(hook, Wire(self.network[hook.title]), clock))

    async def run(self):
        try:
            async with anyio.create_task_group() as tasks:
                for partition in range(self.log.partitions):
                    tasks.start_soon(self._partition, partition)
        except* Fenced:
            pass

    async def _partition(self, partition):
        committer = Committer(LogWriter(self.log, partition, self), Ledger(), gather=0.0, partition=partition)
        async with task_scope() as committing:
            committing.start_soon(committer.run)
            await committer.ready.wait()
            async with anyio.create_task_group() as beside:
                beside.start_soon(self.webhooks.run, committer)
                await self._stop.wait()
                beside.cancel_scope.cancel()

    def stop(self, *, dead=False):
        self.dead = dead
        self._stop.set()


async def until(condition, patience=30 * HOUR):
    with anyio.fail_after(patience):
        while not condition():  # noqa: ASYNC110 (in virtual time)
            await anyio.sleep(0.5 if anyio.current_time() < 4 * HOUR else 60.0)


def ids(receiver):
    return [one[1] for one in receiver.taken]


def first_deliveries(receiver):
    return list(dict.fromkeys(ids(receiver)))


def identity(one):
    return json.loads(one.data)["id"]


MOODS = ("refuses", "hangs", "busy", "moved", "faulty", "forgets", "fine", "fine")
HOOKS = {
    "all": {},
    "crossings": {"events": ["crossed"]},
    "vault": {"tag": "vault"},
    "kind": {"kind": "settled", "events": ["changed"]},
}


def wanted(name, one):
    return {
        "all": True,
        "crossings": one.type == "crossed",
        "vault": one.key.account == "a1",
        "kind": one.key.kind == "settled" and one.type == "changed",
    }[name]


def moods_of(chance, end):
    """Some hours of outages of every kind, then all is well."""
    at, found = 0.0, []
    while at < end:
        at += chance.choice((5.0, 60.0, 600.0, 3000.0)) * chance.random()
        found.append((min(at, end), chance.choice(MOODS)))
    return found


class Turmoil:
    """Hours in which everything goes wrong, under a seed."""

    def __init__(self, seed):
        self.chance = random.Random(f"webhooks/{seed}")
        self.end = 3 * HOUR
        self.log = SimulatedLog(partitions=self.chance.choice((1, 2)))
        self.network = {name: FakeReceiver(moods_of(self.chance, self.end)) for name in HOOKS}
        self.hooks = [webhook(name=name, **table) for name, table in HOOKS.items()]
        self.living = []
        self.committed = []

    def due(self, name):
        return [one for one in self.committed if wanted(name, one)]

    async def run(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._instances, tasks)
            await until(lambda: all(len(notes) == len(HOOKS) for notes in self.log.notes))
            tasks.start_soon(self._outages)
            await self._commits()
            await until(lambda: all(len(first_deliveries(self.network[name])) >= len(self.due(name)) for name in HOOKS))
            await anyio.sleep(10 * HOUR)
            for process in self.living:
                process.stop()

    async def _instances(self, tasks):
        """Started, and ended in one way or the other; some overlap with the one that follows."""
        chance = self.chance
        while True:
            process = Process(self.log, self.network)
            process.webhooks.use(self.hooks, WATCHES)
            self.living.append(process)
            tasks.start_soon(process.run)
            await anyio.sleep(chance.choice((3.0, 40.0, 900.0)) * chance.random() + 0.5)
            if anyio.current_time() > self.end:
                return
            if (how := chance.choice(("killed", "stopped", "overlaps"))) != "overlaps":
                process.stop(dead=how == "killed")
                await anyio.sleep(chance.random() * 60)

    async def _outages(self):
        while anyio.current_time() < self.end:
            await anyio.sleep(self.chance.random() * 900)
            self.log.turn_away(True)
            await anyio.sleep(self.chance.random() * 20)
            self.log.turn_away(False)

    async def _commits(self):
        chance = self.chance
        while anyio.current_time() < self.end:
            await anyio.sleep(chance.choice((0.0, 0.1, 30.0, 400.0)) * chance.random())
            of = key(chance.randrange(3), chance.choice(("total", "settled")))
            kind = chance.choice(("changed", "changed", "crossed"))
            self.committed.append(self.log.append(chance.randrange(self.log.partitions), of, kind))


@pytest.mark.parametrize("seed", range(12))
def test_everything_that_is_wanted_comes_in_order_through_outages_kills_and_hand_overs(seed):
    async def main():
        turmoil = Turmoil(seed)
        await turmoil.run()
        for name, receiver in turmoil.network.items():
            found, due = first_deliveries(receiver), turmoil.due(name)
            assert sorted(found) == sorted(map(identity, due)), "each that is wanted, and none else"
            for index in range(2 * turmoil.log.partitions):
                right = [identity(one) for one in due if one.partition == index]
                assert [one for one in found if one.startswith(f"{index}-")] == right
            assert {kind for *_, kind in receiver.taken} <= {"balance.changed.v1", "balance.crossed.v1"}
        assert turmoil.log.followers["open"] == 0, "each place in the log was given back"
        assert len(turmoil.living) > 3
        assert len(turmoil.committed) > 50

    in_virtual_time(main)


async def one_instance(check, hooks, network, *, partitions=1, log=None):
    """Run one instance while `check(log, process)` does its work."""
    log = log or SimulatedLog(partitions)
    process = Process(log, network)
    process.webhooks.use(hooks, WATCHES)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.run)
        await until(lambda: all(len(notes) >= len(hooks) for notes in log.notes))
        await check(log, process)
        process.stop()
    return log


def test_a_receiver_that_is_gone_is_sent_nothing_more_until_its_config_is_another():
    receiver = FakeReceiver([(100.0, "fine"), (10_000.0, "gone")])
    hook, network = webhook(name="x"), {"x": receiver}

    async def main():
        log = SimulatedLog(2)

        async def first(log, process):
            log.append(0)
            await until(lambda: len(receiver.taken) == 1)
            await anyio.sleep_until(200.0)
            log.append(0)
            await until(lambda: process.webhooks.figures["x"].gone)
            log.append(0), log.append(1)
            await anyio.sleep(HOUR)
            assert "410" in process.webhooks.figures["x"].problem

        await one_instance(first, [hook], network, log=log)
        assert len(receiver.attempts) == 2
        assert [json.loads(notes[hook.settings.note_key])["gone"] for notes in log.notes] == [hook.fingerprint] * 2
        await anyio.sleep_until(20_000.0)

        async def second(log, process):
            log.append(1)
            await anyio.sleep(HOUR)
            assert len(receiver.attempts) == 2, "a restart asks it no more"
            other = webhook(name="x", events=["changed"])
            process.webhooks.use([other], WATCHES)
            await until(lambda: len(receiver.taken) == 5)
            assert process.webhooks.figures["x"].problem is None

        await one_instance(second, [hook], network, log=log)
        assert sorted(first_deliveries(receiver)) == sorted(identity(one) for part in log.events for one in part)

    in_virtual_time(main)


def test_one_that_is_gone_is_asked_again_after_an_edit_though_a_second_one_brings_the_first_config_back():
    receiver = FakeReceiver([(100.0, "gone"), (300.0, "faulty")])
    hook, other = webhook(name="x"), webhook(name="x", events=["changed"])

    async def main():
        async def check(log, process):
            log.append(0)
            await until(lambda: process.webhooks.figures["x"].gone)
            await anyio.sleep_until(200.0)
            process.webhooks.use([other], WATCHES)
            await anyio.sleep(60.0)
            assert len(receiver.attempts) > 1
            process.webhooks.use([hook], WATCHES)
            await until(lambda: receiver.taken)

        await one_instance(check, [hook], {"x": receiver})

    in_virtual_time(main)


def test_an_edit_amid_deliveries_brings_nothing_again():
    receiver = FakeReceiver()

    async def main():
        async def check(log, process):
            for number in range(10):
                log.append(0)
                await until(lambda: len(first_deliveries(receiver)) == len(log.events[0]))
                log.append(0)
                receiver.keys = [key_of(secret(str(number)))]
                process.webhooks.use([webhook(name="x", secrets=secret(str(number)))], WATCHES)
                await until(lambda: len(first_deliveries(receiver)) == len(log.events[0]))
            assert len(receiver.taken) == 20

        await one_instance(check, [webhook(name="x")], {"x": receiver})

    in_virtual_time(main)


def test_who_is_down_holds_up_nobody_and_holds_no_place_in_the_log():
    down, up = FakeReceiver([(8 * HOUR, "hangs")]), FakeReceiver()

    async def main():
        async def check(log, process):
            for number in range(500):
                log.append(0)
                if number % 50 == 0:
                    await anyio.sleep(HOUR / 100)
            await until(lambda: len(up.taken) == 500, patience=HOUR)
            assert down.taken == []
            await anyio.sleep(60.0)
            assert log.followers["open"] <= 1, "of the one that waits for what comes"
            figures = process.webhooks.figures
            assert (figures["up"].problem, figures["up"].lag(wall())) == (None, 0.0)
            assert figures["down"].problem == "no answer in time"
            assert figures["down"].lag(wall()) > 0
            await until(lambda: len(down.taken) == 500)
            assert figures["down"].problem is None

        await one_instance(check, [webhook(name="up"), webhook(name="down")], {"up": up, "down": down})
        assert ids(up) == ids(down)

    in_virtual_time(main)


def test_pauses_grow_up_to_an_hour_and_are_never_shorter_than_the_receiver_asks():
    failing, busy = FakeReceiver([(60 * HOUR, "faulty")]), FakeReceiver([(2 * HOUR, "busy")])

    async def main():
        async def check(log, _):
            log.append(0)
            await until(lambda: failing.taken and busy.taken, patience=100 * HOUR)

        await one_instance(check, [webhook(name="f"), webhook(name="b")], {"f": failing, "b": busy})
        pauses = [b - a - 0.05 for (a, _), (b, _) in zip(failing.attempts, failing.attempts[1:], strict=False)]
        for number, pause in enumerate(pauses):
            longest = min(2.0**number, HOUR)
            assert 0.5 * longest - 0.1 <= pause <= longest + 0.1
        assert len({round(pause / min(2.0**number, HOUR), 3) for number, pause in enumerate(pauses)}) > 5, "by chance"
        asked = [b - a for (a, _), (b, _) in zip(busy.attempts, busy.attempts[1:], strict=False)]
        assert min(asked) >= 90.0

    in_virtual_time(main)


def test_who_asks_for_a_day_is_asked_again_after_an_hour_and_one_that_is_ended_fails_no_more():
    receiver = FakeReceiver([(300 * HOUR, "away")])

    async def main():
        found = []

        async def check(log, process):
            log.append(0)
            await until(lambda: len(receiver.attempts) == 4)
            found.append(process.webhooks.figures["x"])
            assert found[0].problem == "status 503"

        await one_instance(check, [webhook(name="x")], {"x": receiver})
        times = [at for at, _ in receiver.attempts]
        assert all(HOUR <= b - a <= HOUR + 1.0 for a, b in itertools.pairwise(times))
        assert (found[0].problem, found[0].lag(wall())) == (None, 0.0), "of a partition that another process has now"

    in_virtual_time(main)


def test_days_of_failures_are_said_once_and_it_goes_on(capfd):
    failing = FakeReceiver([(24 * 8 * HOUR, "refuses")])

    async def main():
        async def check(log, _):
            log.append(0)
            await until(lambda: failing.taken, patience=24 * 9 * HOUR)

        await one_instance(check, [webhook(name="f")], {"f": failing})

    in_virtual_time(main)
    said = [line for line in capfd.readouterr().out.splitlines() if "webhook." in line]
    assert [level in line for level, line in zip(("warning", "error", "info"), said, strict=True)] == [True] * 3
    assert "webhook.recovered" in said[-1]


def test_what_is_not_kept_any_more_is_said_and_it_goes_on_at_the_oldest():
    receiver = FakeReceiver([(10 * HOUR, "faulty")])

    async def main():
        async def check(log, process):
            for _ in range(300):
                log.append(0)
            await anyio.sleep(HOUR)
            log.trim(kept=20)
            await until(lambda: len(receiver.taken) == COMMIT + 20)
            await anyio.sleep(HOUR)
            assert process.webhooks.figures["x"].gaps == 1
            return log

        log = await one_instance(check, [webhook(name="x")], {"x": receiver})
        kept = [identity(one) for one in log.events[0]]
        assert ids(receiver) == kept[:COMMIT] + kept[-20:], "what was held, then what is kept"

    in_virtual_time(main)


def test_an_edit_keeps_the_place_and_another_name_begins_at_the_head():
    first, second = FakeReceiver([(50.0, "fine"), (HOUR, "faulty")]), FakeReceiver()
    network = {"x": first, "y": second}

    async def main():
        async def check(log, process):
            log.append(0)
            await until(lambda: len(first.taken) == 1)
            await anyio.sleep_until(60.0)
            log.append(0)
            await anyio.sleep_until(120.0)
            first.keys = [key_of(secret("new")), key_of(secret())]
            renewed = webhook(name="x", secrets=f"{secret('new')} {secret()}")
            process.webhooks.use([renewed, webhook(name="y")], WATCHES)
            await until(lambda: len(first.taken) == 2)
            log.append(0)
            await until(lambda: len(first.taken) == 3 and second.taken)
            process.webhooks.use([webhook(name="y")], WATCHES)
            log.append(0)
            await until(lambda: len(second.taken) == 2)
            assert len(first.taken) == 3, "it was taken away"
            process.webhooks.use([renewed, webhook(name="y")], WATCHES)
            await until(lambda: len(first.taken) == 4)

        log = await one_instance(check, [webhook(name="x")], network)
        every = [identity(one) for one in log.events[0]]
        assert ids(first) == every
        assert ids(second) == every[-2:]

    in_virtual_time(main)


def test_labels_and_tags_mean_what_the_config_says_now():
    receiver = FakeReceiver()

    async def main():
        async def check(log, process):
            log.append(0, key(2)), log.append(0, key(1))
            await until(lambda: receiver.taken)
            process.webhooks.use([hook], WatchIndex([Watched(Scope("bank", "eip155:1", "a2"), None, ("vault",))]))
            log.append(0, key(1)), log.append(0, key(2))
            await until(lambda: len(receiver.taken) == 2)
            await anyio.sleep(HOUR)

        hook = webhook(name="x", tag=["vault"])
        await one_instance(check, [hook], {"x": receiver})
        assert [data["account"] for _, _, data, _ in receiver.taken] == ["a1", "a2"]

    in_virtual_time(main)


def test_after_a_kill_only_the_last_moments_come_again():
    receiver = FakeReceiver()

    async def main():
        log = SimulatedLog()
        process = Process(log, {"x": receiver})
        process.webhooks.use([webhook(name="x")], WATCHES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.run)
            await until(lambda: log.notes[0])
            for _ in range(200):
                log.append(0)
                await anyio.sleep(1.0)
            killed = anyio.current_time()
            process.stop(dead=True)
        again = Process(log, {"x": receiver})
        again.webhooks.use([webhook(name="x")], WATCHES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again.run)
            await anyio.sleep(100.0)
            again.stop()
        twice = [at for at, one, *_ in receiver.taken if ids(receiver).count(one) == 2 and at < killed]
        assert all(at > killed - 2 * delivery.SAVE for at in twice)
        assert len(first_deliveries(receiver)) == 200

    in_virtual_time(main)


def test_a_kill_amid_all_that_is_held_brings_no_more_than_the_last_moments_again():
    receiver = FakeReceiver(takes=1.0)

    async def main():
        log = SimulatedLog()

        async def nothing(_log, _process):
            pass

        await one_instance(nothing, [webhook(name="x")], {"x": receiver}, log=log)
        for _ in range(300):
            log.append(0)
        process = Process(log, {"x": receiver})
        process.webhooks.use([webhook(name="x")], WATCHES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process.run)
            await until(lambda: len(receiver.taken) == 60)
            process.stop(dead=True)

        async def rest(_log, _process):
            await until(lambda: len(first_deliveries(receiver)) == 300)

        await one_instance(rest, [webhook(name="x")], {"x": receiver}, log=log)
        assert len(receiver.taken) <= 300 + 2 * delivery.SAVE

    in_virtual_time(main)


def test_after_an_end_in_order_nothing_comes_again():
    receiver = FakeReceiver()

    async def main():
        log = SimulatedLog()

        async def check(log, _):
            for _ in range(30):
                log.append(0)
                await anyio.sleep(0.7)
            await until(lambda: len(receiver.taken) >= len(log.events[0]))

        for _ in range(3):
            await one_instance(check, [webhook(name="x")], {"x": receiver}, log=log)
        assert ids(receiver) == [identity(one) for one in log.events[0]]

    in_virtual_time(main)


def test_an_attempt_that_hangs_ends():
    receiver = FakeReceiver([(10.0, "hangs")])

    async def main():
        async def check(log, _):
            log.append(0)
            await until(lambda: receiver.taken)
            assert receiver.open == 0
            assert bisect.bisect([at for at, _ in receiver.attempts], WHOLE + 15.0) >= 2

        await one_instance(check, [webhook(name="x")], {"x": receiver})

    in_virtual_time(main)
