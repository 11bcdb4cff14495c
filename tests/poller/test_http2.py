"""HTTP/2 against servers that leave, refuse, starve and fall silent: what each costs, and what it does not."""

import asyncio
import contextlib
import struct

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.loopback import PATIENCE, Still, context, made, served
from tests.polling import helius
from watcher.limits.lease import Unsent
from watcher.poller import http2
from watcher.poller.connections import HttpConnections
from watcher.poller.http2_messages import PREFACE, without_requests
from watcher.poller.http_exchange import HttpExchange
from watcher.poller.transport_errors import Unreachable
from watcher.providers.failures import Malformed
from watcher.providers.protocol import Credentials, Request

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MOST_AT_A_TIME, FIRST_WINDOW = 3, 4
SILENT = (Unreachable, "read", "no answer in time")
REFUSED = (Unreachable, "read", "the server did not take the request up")
BROKEN_OFF = (Unreachable, "read", "the server broke off the answer")
CLOSED = (Unreachable, "read", "the connection was closed before the answer was whole")


# --- a server of frames


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def ok(stream):
    return frame(HEADERS, END_HEADERS, stream, b"\x88") + frame(DATA, END_STREAM, stream, b"%d" % stream)


def goaway(last, code=0):
    return frame(GOAWAY, payload=struct.pack(">II", last, code))


def reset(stream, code):
    return frame(RESET, 0, stream, struct.pack(">I", code))


def setting(code, value):
    return frame(SETTINGS, payload=struct.pack(">HI", code, value))


GREETING = frame(SETTINGS)


class Peer:
    """One connection. It says what a server has to say, until it is `mute`; answers are given by whoever made it."""

    def __init__(self, stream, number, *, mute):
        self.number = number
        """1 is the first connection."""
        self.asked = []
        """Streams whose request is whole."""
        self.seen = []
        """All frames of the client: kind, flags, stream, payload."""
        self.mute = mute
        self.left = False
        """The connection is over."""
        self._stream = stream
        self._unread = b""

    async def send(self, data):
        if not self.mute:
            await self._stream.send(data)

    async def frames(self, first):
        """What the client says after its greeting and ours."""
        if first is None:
            return
        await self.send(first)
        await self._bytes(24)
        while True:
            head = await self._bytes(9)
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
            payload = await self._bytes(int.from_bytes(head[:3]))
            self.seen.append((kind, flags, stream, payload))
            if kind in (SETTINGS, PING) and not flags & ACK:
                await self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in (HEADERS, DATA) and flags & END_STREAM:
                self.asked.append(stream)
                yield stream

    async def close(self):
        await self._stream.aclose()

    async def _bytes(self, count):
        while len(self._unread) < count:
            self._unread += await self._stream.receive()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken


class World:
    """A server that answers as told, and an exchange with it. `answer(peer, stream)` follows each whole request."""

    def __init__(self, answer, first=GREETING, *, mute=()):
        self.peers = []
        self.leased = True
        """Whether a request may leave."""
        self.changed = anyio.Event()
        self._answer = answer
        self._first = first
        self._mute = mute
        """HttpConnections on which not a word is said."""
        self.exchange = None

    @contextlib.asynccontextmanager
    async def begun(self, tls):
        async with served(self._serve, tls) as port, HttpConnections(lambda: self.leased) as transport:
            provider = helius(1, base_url=f"https://127.0.0.1:{port}", timeout=PATIENCE, max_bytes=1000)
            self.exchange = HttpExchange(provider, transport, Credentials(), lambda: 0)
            yield self

    async def _serve(self, stream):
        number = len(self.peers) + 1
        peer = Peer(stream, number, mute=number in self._mute)
        self.peers.append(peer)
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with stream:
                async for number in peer.frames(self._first):
                    await self._answer(peer, number)
                    self._tell()
        peer.left = True
        self._tell()

    def _tell(self):
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    async def until(self, condition):
        """Until the server has seen something."""
        while not condition():
            await self.changed.wait()

    async def send(self, body=None):
        """The body of the answer, or what went wrong."""
        try:
            return (await self.exchange.send(Request("GET" if body is None else "POST", "/x", (), body=body))).body
        except Unreachable as failure:
            return (Unreachable, failure.phase, failure.reason)
        except Malformed:
            return Malformed
        except Unsent:
            return Unsent

    async def send_at_a_time(self, count):
        """In that order."""
        outcomes = [None] * count

        async def one(place):
            outcomes[place] = await self.send()

        async with anyio.create_task_group() as tasks:
            for place in range(count):
                tasks.start_soon(one, place)
        return outcomes

    @property
    def asked(self):
        """The streams of each connection."""
        return [peer.asked for peer in self.peers]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return made(tmp_path_factory.mktemp("certificate"), "IP:127.0.0.1")


@pytest.fixture
def run(certificate, monkeypatch):
    """Runs `main(world)` with a world that stands; no time passes but by `later`."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    def run(main, *args, **options):
        async def within():
            async with World(*args, **options).begun(context(certificate, "h2")) as world:
                return await main(world)

        return anyio.run(within, backend_options={"loop_factory": Still})

    return run


async def settled():
    """What was sent has come to be read: on loopback, and with one loop on both sides, that takes turns and no time."""
    for _ in range(500):
        await anyio.lowlevel.checkpoint()


async def later(seconds):
    """So much time passes, once whatever is under way has come as far as it can."""
    await settled()
    asyncio.get_running_loop().passed += seconds
    await settled()


async def answer(peer, number):
    await peer.send(ok(number))


# --- the server has much to say, and no answer


@pytest.mark.parametrize(
    "idle",
    [
        frame(PING, payload=b"12345678"),
        setting(FIRST_WINDOW, 70_000),
        frame(WINDOW, payload=struct.pack(">I", 1)),
        frame(99, payload=b"of no known kind"),
    ],
    ids=["ping", "settings", "window", "unknown"],
)
def test_frames_without_end_that_bring_nothing_end_the_connection(run, idle):
    async def flooding(peer, number):
        for _ in range(60):
            await peer.send(idle * 100)

    async def modest(peer, number):
        await peer.send(idle * 1000 + ok(number))

    async def main(world):
        return [await world.send() for _ in range(8)]

    assert run(main, modest) == [b"%d" % number for number in range(1, 17, 2)]
    assert run(main, flooding)[0] in ((Unreachable, "protocol", "the server broke the protocol"), CLOSED)


def test_what_came_in_one_piece_leaves_others_their_turns(run):
    turns = 0

    async def flooding(peer, number):
        await peer.send(frame(PING, ACK, payload=b"12345678") * 3200 + ok(number))

    async def main(world):
        async def other():
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            found = await world.send()
            tasks.cancel_scope.cancel()
        return found

    assert run(main, flooding) == b"1"
    assert turns >= 90


# --- the lease is over


def heads(peer):
    """Streams of which the server has seen anything but acknowledgements."""
    return [stream for kind, _, stream, _ in peer.seen if kind in (HEADERS, DATA, RESET)]


@pytest.mark.parametrize("body", [None, b"{}"])
def test_without_a_lease_no_request_leaves_and_answers_on_their_way_still_come(run, body):
    held = []

    async def hold_the_first(peer, number):
        if (peer.number, number) == (1, 3):
            held.append(peer)
        else:
            await peer.send(ok(number))

    async def main(world):
        found = {"first": await world.send(body)}

        async def send(name):
            found[name] = await world.send(body)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, "on its way")
            await world.until(lambda: held)
            world.leased = False
            tasks.start_soon(send, "too late")
            tasks.start_soon(send, "too late as well")
            await settled()
            await held[0].send(frame(PING, payload=b"12345678"))
            await settled()
            await held[0].send(ok(3))
        world.leased = True
        found["later"] = await world.send(body)
        return found, heads(world.peers[0]), any(kind == PING for kind, *_ in world.peers[0].seen)

    found, seen, acknowledged = run(main, hold_the_first)
    assert found == {
        "first": b"1",
        "on its way": b"3",
        "too late": Unsent,
        "too late as well": Unsent,
        "later": b"1",  # on another connection
    }
    assert set(seen) == {1, 3}
    assert acknowledged


@pytest.mark.parametrize("preface", [b"", PREFACE])
def test_what_is_written_without_requests_is_the_rest(preface):
    ping, window = frame(PING, ACK, payload=b"12345678"), frame(WINDOW, 0, 3, b"\0\0\0\1")
    kept = frame(HEADERS, END_STREAM, 3, b"\x82") + frame(RESET, 0, 3, b"\0\0\0\x08")
    withdrawn = frame(HEADERS, 0, 5, b"\x82") + frame(9, END_HEADERS, 5, b"") + frame(DATA, END_STREAM, 5, b"{}")
    outgoing = preface + GREETING + withdrawn + ping + kept + frame(RESET, 0, 5, b"\0\0\0\x08") + window
    assert without_requests(outgoing, {5}) == preface + GREETING + ping + kept + window
    assert without_requests(outgoing, ()) == outgoing


def test_a_connect_that_outlasts_the_lease_brings_no_request(run):
    async def main(world):
        world.leased = False
        found = await world.send(), await world.send(b"{}")
        await settled()
        return found, [heads(peer) for peer in world.peers]

    assert run(main, answer) == ((Unsent, Unsent), [[], []])


# --- the server leaves


def test_what_a_server_that_leaves_promises_to_finish_is_read_and_the_next_request_goes_elsewhere(run):
    async def leaving(peer, number):
        await peer.send(goaway(number) + ok(number))

    async def main(world):
        return [await world.send() for _ in range(3)], world.asked

    assert run(main, leaving) == ([b"1"] * 3, [[1]] * 3)


def test_it_is_read_too_when_it_comes_much_later_than_the_leave(run):
    async def leaving(peer, number):
        if len(peer.asked) == 3:
            await peer.send(goaway(5))
            await settled()
            await peer.send(ok(5) + ok(1) + ok(3))

    async def main(world):
        return await world.send_at_a_time(3), await world.send_at_a_time(3), world.asked

    first = setting(MOST_AT_A_TIME, 10)
    assert run(main, leaving, first) == ([b"1", b"3", b"5"], [b"1", b"3", b"5"], [[1, 3, 5]] * 2)


def test_what_a_server_that_leaves_did_not_take_up_fails_and_is_not_repeated(run):
    async def leaving(peer, number):
        if len(peer.asked) == 3:
            await peer.send(goaway(2**31 - 1) + goaway(3) + ok(1) + ok(3))

    async def main(world):
        return await world.send_at_a_time(3), world.asked

    assert run(main, leaving, setting(MOST_AT_A_TIME, 10)) == ([b"1", b"3", REFUSED], [[1, 3, 5]])


@pytest.mark.parametrize("leave", [goaway(1), goaway(0), goaway(1, 11), b""], ids=["1", "0", "angry", "no word"])
def test_a_connection_that_was_left_while_idle_is_not_used(run, leave):
    async def leaving(peer, number):
        await peer.send(ok(number) + leave)
        await peer.close()

    async def main(world):
        outcomes = []
        for _ in range(3):
            outcomes.append(await world.send())
            await settled()
        return outcomes, world.asked

    assert run(main, leaving) == ([b"1"] * 3, [[1]] * 3)


def test_a_leave_that_the_kernel_holds_already_is_read_before_the_next_request(run):
    """The loop was stalled when it came."""

    async def main(world):
        outcomes = [await world.send()]

        async def one():
            await anyio.lowlevel.checkpoint()  # by now it was written
            outcomes.append(await world.send())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.peers[0].send, goaway(1))
            tasks.start_soon(one)
        return outcomes, world.asked

    assert run(main, answer) == ([b"1"] * 2, [[1], [1]])


def test_a_server_that_closes_without_a_word_costs_what_was_in_flight(run):
    async def leaving(peer, number):
        if len(peer.asked) == 2 and peer.number == 1:
            await peer.send(ok(1))
            await peer.close()
        elif peer.number == 2:
            await peer.send(ok(number))

    async def main(world):
        return await world.send_at_a_time(2), await world.send(), world.asked

    assert run(main, leaving, setting(MOST_AT_A_TIME, 10)) == ([b"1", CLOSED], b"1", [[1, 3], [1]])


@pytest.mark.parametrize("first", [GREETING + goaway(0), None], ids=["goaway", "shut"])
def test_a_server_that_leaves_before_anything_is_asked_is_not_connected_to_again_and_again(run, first, monkeypatch):
    """It is quicker than we are."""
    monkeypatch.setattr(http2, "TURNS_BEFORE_SEND", 100)

    async def main(world):
        return [*await world.send_at_a_time(3), await world.send()], len(world.peers) <= 4

    outcomes, few = run(main, answer, first)
    assert {outcome[:2] for outcome in outcomes} == {(Unreachable, "read")}
    assert few


# --- one request goes wrong


@pytest.mark.parametrize(("code", "outcome"), [(7, REFUSED), (8, BROKEN_OFF), (2, BROKEN_OFF), (0, BROKEN_OFF)])
def test_a_stream_that_is_reset_costs_its_own_request_only(run, code, outcome):
    async def resetting(peer, number):
        if peer.asked == [1, 3]:
            await peer.send(reset(1, code))
            await settled()
            await peer.send(ok(3))
        elif len(peer.asked) > 2:
            await peer.send(ok(number))

    async def main(world):
        return await world.send_at_a_time(2), await world.send(), world.asked

    assert run(main, resetting, setting(MOST_AT_A_TIME, 10)) == ([outcome, b"3"], b"5", [[1, 3, 5]])


def test_an_answer_that_was_whole_before_the_reset_counts(run):
    async def resetting(peer, number):
        await peer.send(ok(number) + reset(number, 0))

    async def main(world):
        return [await world.send(body=b"body") for _ in range(2)], world.asked

    assert run(main, resetting) == ([b"1", b"3"], [[1, 3]])


def test_a_server_that_breaks_the_protocol_costs_its_connection_but_not_what_it_said_before(run):
    async def breaking(peer, number):
        if peer.number == 2:
            await peer.send(ok(number))
        elif len(peer.asked) == 2:
            await peer.send(ok(1) + frame(WINDOW, payload=b"\0\0\0\0"))

    async def main(world):
        return await world.send_at_a_time(2), await world.send(), world.asked

    broken = (Unreachable, "protocol", "the server broke the protocol")
    assert run(main, breaking, setting(MOST_AT_A_TIME, 10)) == ([b"1", broken], b"1", [[1, 3], [1]])


@pytest.mark.parametrize("announced", [2**24 - 1, 20_000])
def test_a_frame_longer_than_may_be_is_an_error_at_once(run, announced):
    async def breaking(peer, number):
        await peer.send(announced.to_bytes(3) + bytes([DATA, 0]) + number.to_bytes(4) + b"begun")

    async def main(world):
        return await world.send()

    assert run(main, breaking) == (Unreachable, "protocol", "the server broke the protocol")


# --- silence


def test_a_connection_that_fell_silent_costs_one_time_out_and_is_closed(run):
    """As when a box in between forgot it: nothing comes and nothing is refused."""

    async def falling_silent(peer, number):
        peer.mute = peer.mute or (peer.number == 1 and len(peer.asked) > 3)
        await peer.send(ok(number))

    async def main(world):
        before = [await world.send() for _ in range(3)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, PATIENCE)
            silent = await world.send()
        after = [await world.send() for _ in range(3)]
        await world.until(lambda: world.peers[0].left)
        return before, silent, after, world.asked

    answers = [b"1", b"3", b"5"]
    assert run(main, falling_silent) == (answers, SILENT, answers, [[1, 3, 5, 7], [1, 3, 5]])


def test_with_the_first_that_is_out_of_time_all_fail_that_were_sent_into_the_silence(run):
    outcomes = []

    async def falling_silent(peer, number):
        peer.mute = peer.mute or (peer.number == 1 and len(peer.asked) > 1)
        await peer.send(ok(number))

    async def main(world):
        loop = asyncio.get_running_loop()

        async def one():
            outcomes.append((loop.time(), await world.send(), loop.time()))

        await world.send()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one)
                await later(PATIENCE / 4)
            await later(PATIENCE / 4)
        return outcomes, await world.send(), world.asked

    ended = [(n * PATIENCE / 4, SILENT, PATIENCE) for n in range(3)]
    assert run(main, falling_silent, setting(MOST_AT_A_TIME, 10)) == (ended, b"1", [[1, 3, 5, 7], [1]])


def test_while_others_are_answered_one_that_is_not_costs_itself_alone(run):
    """But nothing new is sent there."""
    outcomes = {}

    async def unfair(peer, number):
        if peer.number > 1:
            await peer.send(ok(number))
        elif number == 3:
            await peer.send(frame(HEADERS, END_HEADERS, 3, b"\x88"))

    async def main(world):
        async def one(name):
            outcomes[name] = await world.send()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, "unanswered")
            await later(PATIENCE / 2)
            tasks.start_soon(one, "half")
            await later(PATIENCE / 2)
            assert outcomes == {"unanswered": SILENT}
            await one("new")
            await world.peers[0].send(frame(DATA, END_STREAM, 3, b"rest"))
        return outcomes, world.asked, (RESET, 0, 1, struct.pack(">I", 8)) in world.peers[0].seen

    expected = {"unanswered": SILENT, "half": b"rest", "new": b"1"}
    assert run(main, unfair, setting(MOST_AT_A_TIME, 10)) == (expected, [[1, 3], [1]], True)


def test_an_answer_is_not_held_up_by_those_before_it_that_do_not_come(run):
    async def last_first(peer, number):
        if len(peer.asked) == 5:
            for each in reversed(peer.asked):
                await peer.send(ok(each))
                await settled()

    async def main(world):
        came = []

        async def one():
            came.append(await world.send())

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
        return came

    assert run(main, last_first, setting(MOST_AT_A_TIME, 10)) == [b"9", b"7", b"5", b"3", b"1"]


def test_a_server_that_never_greets_costs_the_one_request_that_was_sent(run):
    """The others wait for a place, of which there is one until it has spoken, and go on to the next connection."""
    outcomes = []

    async def main(world):
        async def one():
            outcomes.append(await world.send())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await world.until(lambda: world.asked == [[1]])
            await later(PATIENCE / 2)
            tasks.start_soon(one)
            tasks.start_soon(one)
            await later(PATIENCE / 2)
        return outcomes, world.asked

    assert run(main, answer, mute=(1,)) == ([SILENT, b"1", b"3"], [[1], [1, 3]])


def test_a_connection_that_gives_no_place_is_not_waited_for_again(run):
    """The server takes none at a time any more, and says so."""

    async def closing_its_doors(peer, number):
        await peer.send(ok(number) + (setting(MOST_AT_A_TIME, 0) if peer.number == 1 else b""))

    async def main(world):
        outcomes = [await world.send()]
        await settled()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, PATIENCE)
            outcomes.append(await world.send())
        return [*outcomes, await world.send()], world.asked

    no_place = (Unreachable, "pool", "none of our connections became free in time")
    assert run(main, closing_its_doors) == ([b"1", no_place, b"1"], [[1], [1]])


# --- places and windows


def test_a_limit_that_is_lowered_below_what_is_in_flight_is_kept_and_stops_nobody(run):
    most = []

    async def lowering(peer, number):
        most.append(len(peer.asked) - lowering.answered)
        if len(peer.asked) == 5:
            await peer.send(setting(MOST_AT_A_TIME, 1))
            await settled()
        if len(peer.asked) >= 5:
            for each in peer.asked[lowering.answered :]:
                lowering.answered += 1
                await peer.send(ok(each))

    lowering.answered = 0

    async def main(world):
        return sorted(await world.send_at_a_time(9)), len(world.peers)

    answers = sorted(b"%d" % (2 * n + 1) for n in range(9))
    assert run(main, lowering, setting(MOST_AT_A_TIME, 5)) == (answers, 1)
    assert most == [1, 2, 3, 4, 5, 1, 1, 1, 1]


def test_a_body_waits_for_room_and_goes_when_there_is_some(run):
    """The window of a stream is shut at first; the connection's holds 65,535 bytes."""
    body = bytes(200_000)

    async def main(world):
        sent = [await world.send()]

        async def one():
            sent.append(await world.send(body))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await settled()
            (peer,) = world.peers
            before = sum(len(payload) for kind, _, _, payload in peer.seen if kind == DATA)
            await peer.send(setting(FIRST_WINDOW, 2**20))
            await settled()
            between = sum(len(payload) for kind, _, _, payload in peer.seen if kind == DATA)
            await peer.send(frame(WINDOW, payload=struct.pack(">I", 2**20)))
        return before, between, sent

    assert run(main, answer, setting(FIRST_WINDOW, 0)) == (0, 65_535, [b"1", b"3"])


def test_an_answer_to_a_request_that_was_not_taken_whole_is_read(run):
    async def main(world):
        sent = [await world.send()]

        async def one():
            sent.append(await world.send(bytes(200_000)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await settled()
            await world.peers[0].send(ok(3))
        return [*sent, await world.send()], world.asked

    assert run(main, answer, setting(FIRST_WINDOW, 0)) == ([b"1", b"3", b"5"], [[1, 5]])


def test_answers_that_are_given_up_do_not_use_the_window_up(run):
    """Each holds more than may be, thirty together twice what may come unread."""
    part = frame(DATA, 0, 0, bytes(16_000))

    async def large(peer, number):
        if len(peer.asked) > 30:
            await peer.send(ok(number))
            return
        await peer.send(frame(HEADERS, END_HEADERS, number, b"\x88"))
        await peer.send((part[:5] + number.to_bytes(4) + part[9:]) * 70)

    async def main(world):
        outcomes = [await world.send() for _ in range(31)]
        await settled()
        (peer,) = world.peers
        updates = (payload for kind, _, stream, payload in peer.seen if kind == WINDOW and not stream)
        return outcomes, sum(int.from_bytes(payload) for payload in updates)

    outcomes, window = run(main, large)
    assert outcomes == [Malformed] * 30 + [b"61"]
    assert window > 30 * 70 * 16_000


def test_pings_are_answered_while_nothing_is_asked(run):
    async def main(world):
        await world.send()
        (peer,) = world.peers
        await peer.send(frame(PING, payload=b"12345678"))
        await settled()
        return (PING, ACK, 0, b"12345678") in peer.seen

    assert run(main, answer)


# --- any server


frames = st.builds(
    frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 32, 255]),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\x88", b"\0\0\0\1\0\0\0\0", b"\0\3\0\0\0\1"])),
)
speech = st.lists(st.one_of(frames, st.just(ok(1)), st.just(ok(3)), st.binary(max_size=20)), max_size=8).map(b"".join)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(speech=speech)
def test_whatever_a_server_says_costs_what_was_asked_there_and_is_asked_once(run, speech):
    async def odd(peer, number):
        if peer.number > 1:
            await peer.send(ok(number))
        elif len(peer.asked) == 2:
            await peer.send(speech)
            await peer.close()

    async def main(world):
        outcomes = await world.send_at_a_time(2)
        await settled()
        return outcomes, await world.send(), world.asked

    outcomes, after, asked = run(main, odd, setting(MOST_AT_A_TIME, 10))
    assert all(isinstance(outcome, bytes) or outcome[0] is Unreachable for outcome in outcomes)
    assert (after, asked) == (b"1", [[1, 3], [1]])
