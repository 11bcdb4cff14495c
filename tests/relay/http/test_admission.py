"""Who is let in, and who goes when there are too many: by real sockets, without a byte of TLS or HTTP."""

import asyncio
import contextlib
import gc
import os
import resource
import socket
import weakref

import pytest
from structlog.testing import capture_logs

from tests.relay.stage import PATIENCE, calm, staged, until
from watcher.relay.http import admission
from watcher.relay.http.admission import Admission, NoDescriptors, Stage, address_group, divide_descriptors

pytestmark = pytest.mark.anyio


class Pair:
    """A socket from that address, let in, and the other end of its connection."""

    def __init__(self, entered, address, *, stage=None, since=0.0):
        ours, self.theirs = socket.socketpair()
        self.accepted = admission.AcceptedSocket(ours, address, entered, since)
        self.dismissed = False
        entered.enter(self.accepted)
        if stage is not None:
            self.accepted.serve(self)
            self.accepted.reach(stage)

    def dismiss(self):
        self.dismissed = True
        self.accepted.close()

    @property
    def gone(self):
        """Told, by a transport or by the end of what it reads."""
        if self.dismissed:
            return True
        self.theirs.setblocking(False)
        try:
            return self.theirs.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def pairs():
    made = []

    def make(*arguments, **options):
        made.append(Pair(*arguments, **options))
        return made[-1]

    yield make
    for pair in made:
        pair.theirs.close()
        pair.accepted.close()


def test_the_oldest_of_the_fullest_address_goes(pairs):
    entered = Admission(8)
    honest = pairs(entered, "honest")
    crowd = [pairs(entered, "crowd") for _ in range(30)]
    newcomer = pairs(entered, "other")
    assert not honest.gone
    assert not newcomer.gone
    assert [pair.gone for pair in crowd] == [True] * 24 + [False] * 6  # three quarters of the room
    more = [pairs(entered, f"many{n}") for n in range(5)]
    assert not any(pair.gone for pair in [honest, newcomer, *more])
    assert entered.crowded_out == 24 + 5


def test_who_has_an_answer_goes_first_and_who_waits_for_one_last(pairs):
    entered = Admission(8)
    asked = pairs(entered, "a", stage=Stage.WRITING)
    answered = [pairs(entered, "a", stage=Stage.CLOSING) for _ in range(3)]
    early = [pairs(entered, "a") for _ in range(3)]
    assert [pair.gone for pair in (*answered, *early)] == [True] + [False] * 5
    assert entered.crowded_out == 0
    crowd = [pairs(entered, "a") for _ in range(20)]
    assert not asked.gone
    assert sum(pair.gone for pair in (*answered, *early, *crowd)) == 26 - 5
    entered = Admission(4)
    waits = pairs(entered, "b", stage=Stage.HANDLING)
    only = [pairs(entered, "b", stage=Stage.WRITING) for _ in range(5)]
    assert [pair.gone for pair in (waits, *only)] == [False] + [True] * 3 + [False] * 2
    assert entered.handling == 1
    waits.dismiss()
    assert entered.handling == 0


def test_who_has_asked_and_gets_no_word_is_known_by_its_time(pairs):
    entered = Admission(8)
    pairs(entered, "a")
    pairs(entered, "a", stage=Stage.WRITING)
    waits = pairs(entered, "b", stage=Stage.HANDLING, since=10.0)
    assert entered.stuck(9.0) == []
    assert entered.stuck(10.0) == [waits.accepted]


def test_who_sends_a_body_has_its_time_from_when_it_came_and_not_from_its_head(pairs):
    entered = Admission(8)
    sends = pairs(entered, "a", stage=Stage.HANDLING, since=1.0)
    young = pairs(entered, "a", since=9.0)
    sends.accepted.reach(Stage.READING)
    assert entered.handling == 0
    assert entered.late(0.0) == []
    assert entered.late(1.0) == [sends.accepted]
    assert entered.late(9.0) == [young.accepted, sends.accepted]


def test_a_stream_takes_no_place_and_is_known_until_it_is_closed(pairs):
    entered = Admission(2)
    streams = [pairs(entered, "a") for _ in range(1)]
    for _ in range(20):
        entered.leave_pending(streams[-1].accepted)
        streams.append(pairs(entered, "a"))
    assert entered.crowded_out == 0
    assert len(entered.sockets) == 21
    for pair in streams:
        pair.accepted.close()
    assert not entered.sockets


def test_one_address_is_an_ipv4_address_or_a_network_of_ipv6():
    assert address_group(("10.0.0.1", 5)) == address_group(("::ffff:10.0.0.1", 5, 0, 0)) == "10.0.0.1"
    assert address_group(("2001:db8:1:2::1", 5, 0, 0)) == address_group(("2001:db8:1:2:ffff::9", 6, 0, 0))
    assert address_group(("2001:db8:1:2::1", 5, 0, 0)) != address_group(("2001:db8:1:3::1", 5, 0, 0))
    assert address_group(("fe80::1%eth0", 5, 0, 3)) == address_group(("fe80::2", 5, 0, 3))
    assert address_group("") == ""


@pytest.mark.parametrize(
    ("room", "shared"), [(None, (10_000, 1024)), (20_000, (10_000, 1024)), (1024, (768, 256)), (40, (30, 10))]
)
def test_streams_and_pending_sockets_divide_the_room(room, shared):
    assert divide_descriptors(room, 10_000) == shared


def test_a_room_for_nobody_is_an_error():
    with pytest.raises(NoDescriptors):
        divide_descriptors(10, 10_000)


@contextlib.contextmanager
def connected(port, count):
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(count)]


async def test_hundreds_who_say_nothing_hold_nobody_up_and_are_bounded(tmp_path):
    async with staged(tmp_path, room=400) as stage, stage.subscriber() as one:
        await one.next()
        with contextlib.ExitStack() as opened:
            for number in range(1, 4):
                opened.enter_context(connected(stage.port, 100))
                await until(lambda number=number: stage.relay.listener.admission.accepted >= 100 * number)
            async with stage.http() as http, asyncio.timeout(PATIENCE):
                assert (await http.get("/healthz")).status_code == 200
                async with stage.subscriber() as two:
                    await two.next()
            await until(lambda: len(stage.relay.listener.admission.sockets) <= 75 + 3)
            assert stage.relay.listener.admission.crowded_out >= 300 - 75
        await stage.teller.tell("A")
        await one.subscribe()
        await one.push("snapshot")
    assert not stage.relay.listener.admission.sockets


async def test_who_says_nothing_is_closed_in_time_and_so_is_who_asks_slowly(tmp_path):
    async with staged(tmp_path, calm(upgrade=0.2)) as stage:
        with connected(stage.port, 2) as (silent, slow):
            for each in (silent, slow):
                each.setblocking(False)
            slow.send(b"GET / HTTP/1.1\r\n")
            await until(lambda: stage.relay.listener.admission.accepted == 2)
            await until(lambda: not stage.relay.listener.admission.sockets)


async def test_those_who_name_two_hosts_are_answered_and_keep_nobody_out(tmp_path):
    """Whoever has asked comes before who is accepted next: one that stayed there would keep its place from all others."""
    async with staged(tmp_path) as stage, stage.http() as http:
        with connected(stage.port, admission.HANDLING_AT_ONCE + 1) as crowd:
            for each in crowd:
                each.sendall(b"GET http://localhost/healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            await until(lambda: stage.relay.listener.admission.accepted == len(crowd))
            assert (await http.get("/healthz")).status_code == 200
            for each in crowd:
                assert (await asyncio.to_thread(each.recv, 15)) == b"HTTP/1.1 200 OK"
        assert not stage.relay.listener.admission.handling


async def test_nothing_of_a_connection_that_is_gone_is_kept(tmp_path):
    """Whoever comes and goes as fast as it can would fill the memory with it."""
    async with staged(tmp_path) as stage:
        async with stage.subscriber() as one:
            await one.next()
            (accepted,) = stage.relay.listener.admission.sockets.values()
            kept = weakref.ref(accepted._connection)
            del accepted
            await one.socket.send(b"binary")
            await one.closed()

        def forgotten():
            gc.collect()
            return kept() is None

        await until(forgotten)


@contextlib.contextmanager
def exhausted():
    """A process without a descriptor to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as held:
        probe = os.dup(0)
        held.callback(os.close, probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 20, hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.suppress(OSError):
            while True:
                held.callback(os.close, os.dup(0))
        yield


async def test_without_descriptors_nobody_is_accepted_and_nothing_loops(tmp_path):
    async with staged(tmp_path) as stage, stage.subscriber() as one:
        await one.next()
        with socket.socket() as client:
            client.setblocking(False)
            with capture_logs() as logs, exhausted():
                with contextlib.suppress(BlockingIOError):
                    client.connect(("127.0.0.1", stage.port))
                await until(lambda: stage.relay.listener.admission.exhausted)
                assert (await one.ask("ping"))["result"]
                assert (await one.ask("ping"))["result"]
            assert len([record for record in logs if record["event"] == "relay.no_descriptor"]) < 10
            await until(lambda: len(stage.relay.listener.admission.sockets) == 2)


async def test_the_number_told_is_the_number_kept(tmp_path):
    async with staged(tmp_path, max_connections=1000, room=40) as stage, contextlib.AsyncExitStack() as opened:
        for _ in range(30):
            one = await opened.enter_async_context(stage.subscriber())
            assert (await one.next())["limits"]["connections"] == 30
        async with stage.http() as http:
            answer = await http.get("/v1/stream", headers=UPGRADE)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "rate_limited")
            for _ in range(20):
                assert (await http.get("/healthz")).status_code == 200


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


def test_the_soft_limit_is_raised_as_far_as_it_goes_and_what_others_need_is_kept():
    from watcher.app import file_descriptors

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert file_descriptors.raised(100) == 256
        assert file_descriptors.raised(300) == 300
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
        assert file_descriptors.connections(50, providers=1) == 50
        assert file_descriptors.connections(10**9, providers=1) < hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
