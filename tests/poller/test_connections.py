"""Real sockets on loopback: what is spoken, what is repeated, and what is said when there is no answer."""

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
import time

import anyio
import anyio.lowlevel
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream
from structlog.testing import capture_logs

from tests.loopback import PATIENCE, Still, context, made, served
from tests.polling import always, helius, journal, poller_of
from watcher.limits.lease import Unsent
from watcher.poller.connections import KEEPALIVE_OPTIONS, MAX_INTERIM, HttpConnections
from watcher.poller.http_exchange import HttpExchange
from watcher.poller.transport_errors import Unreachable
from watcher.providers.protocol import Credentials, Request, Response

REQUEST = Request("GET", "/x", ())
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


# --- the outside


async def http1(stream):
    """Answers every request."""
    async with stream:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await stream.receive()
                await stream.send(GOOD)


async def http2(stream, streams=100):
    """The same, for so many requests at a time; with none at all for one, which it never answers."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    most = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams or 1}
    connection.local_settings = h2.settings.Settings(client=False, initial_values=most)
    connection.initiate_connection()
    async with stream:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await stream.send(connection.data_to_send())
                for event in connection.receive_data(await stream.receive()):
                    if isinstance(event, h2.events.StreamEnded) and streams:
                        connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", "2")])
                        connection.send_data(event.stream_id, b"ok", end_stream=True)


def reset(stream):
    raw = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.asynccontextmanager
async def exchanging(base_url, connections=None):
    provider = helius(1, base_url=base_url, timeout=PATIENCE)
    async with connections or HttpConnections(always) as transport:
        yield HttpExchange(provider, transport, Credentials(), lambda: 0)


async def outcome(base_url, request=REQUEST):
    """An answer, or what went wrong."""
    async with exchanging(base_url) as exchange:
        return await attempted(exchange, request)


async def attempted(exchange, request):
    try:
        return await exchange.send(request)
    except Unreachable as failure:
        return failure


class Watched(HttpConnections):
    """Tells when an attempt has come to a phase."""

    def __init__(self, phase):
        super().__init__(always)
        self.reached = anyio.Event()
        self._phase = phase

    async def handle_async_request(self, request):
        progress = request.extensions["trace"]

        async def trace(event, info):
            await progress(event, info)
            if progress.phase == self._phase:
                self.reached.set()

        request.extensions["trace"] = trace
        return await super().handle_async_request(request)


async def out_of_time(phase, base_url, request=REQUEST):
    """What went wrong with an attempt that has come to that phase, and gets no further before its time is over."""

    async def wait():
        await connections.reached.wait()
        await anyio.to_thread.run_sync(time.sleep, 0.05)  # to get further it had the chance
        asyncio.get_running_loop().passed += PATIENCE

    connections = Watched(phase)
    async with exchanging(base_url, connections) as exchange, anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        failure = await attempted(exchange, request)
        tasks.cancel_scope.cancel()
    return failure


# --- certificates


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return made(tmp_path_factory.mktemp("right"), "IP:127.0.0.1")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    return made(tmp_path_factory.mktemp("wrong"), "DNS:elsewhere.invalid")


@pytest.fixture
def trust(monkeypatch):
    """As an operator who names a file of his own authorities."""
    return lambda certificate: monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


# --- what is spoken


@pytest.mark.parametrize(("protocols", "spoken"), [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)])
def test_http_2_is_spoken_where_it_is_served_and_else_http_1(right, trust, protocols, spoken):
    trust(right)
    chosen = []

    async def serve(stream):
        chosen.append(stream.extra(TLSAttribute.alpn_protocol))
        await (http2 if chosen[-1] == "h2" else http1)(stream)

    async def main():
        async with (
            served(serve, context(right, *protocols)) as port,
            exchanging(f"https://127.0.0.1:{port}") as exchange,
        ):
            return [await exchange.send(REQUEST) for _ in range(3)]

    answers = anyio.run(main)
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"ok")] * 3
    assert chosen == [spoken]


def test_requests_at_a_time_share_one_connection_of_http_2(right, trust):
    trust(right)
    connections = 0

    async def serve(stream):
        nonlocal connections
        connections += 1
        await http2(stream)

    async def main():
        async with (
            served(serve, context(right, "h2")) as port,
            exchanging(f"https://127.0.0.1:{port}") as exchange,
        ):
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(exchange.send, REQUEST)

    anyio.run(main)
    assert connections == 1


def test_no_two_requests_are_given_the_same_idle_connection():
    """Else all but one begin again, and many that begin together may do so until their time is over."""

    async def main():
        async with served(http1) as port, exchanging(f"http://127.0.0.1:{port}") as exchange:
            pool = exchange._transport._pool
            for _ in range(2):
                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(exchange.send, REQUEST)
                    await anyio.lowlevel.checkpoint()
                    given = {id(request.connection) for request in pool._requests}
            return given, len(pool.connections)

    given, connections = anyio.run(main)
    assert (len(given), connections) == (20, 20)


def test_a_connection_that_was_closed_while_idle_is_not_used_again():
    connections = 0

    async def serve(stream):
        nonlocal connections
        connections += 1
        async with stream:
            await stream.receive()
            await stream.send(GOOD)

    async def main():
        async with served(serve) as port, exchanging(f"http://127.0.0.1:{port}") as exchange:
            for _ in range(3):
                await exchange.send(REQUEST)
                with anyio.fail_after(PATIENCE):
                    while not all(each.has_expired() for each in exchange._transport._pool.connections):  # noqa: ASYNC110
                        await anyio.sleep(0.001)  # the end is on its way through the kernel

    anyio.run(main)
    assert connections == 3


@pytest.mark.parametrize("tls", [False, True])
def test_what_comes_behind_an_answer_is_not_the_answer_to_the_next_request(right, trust, tls):
    """An answer twice in one piece: of an API that does not name the account, it would be taken for another's."""
    trust(right)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d"

    async def serve(stream):
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    number = int((await stream.receive()).split(b" ")[1].strip(b"/x"))
                    await stream.send((answer % number) * (2 if number == 3 else 1))

    async def main():
        scheme = "https" if tls else "http"
        async with (
            served(serve, context(right, "http/1.1") if tls else None) as port,
            exchanging(f"{scheme}://127.0.0.1:{port}") as exchange,
        ):
            return [(await exchange.send(Request("GET", f"/x{number}", ()))).body for number in range(6)]

    assert anyio.run(main) == [b"0", b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("tls", [False, True])
def test_without_a_lease_nothing_of_a_request_is_written(right, trust, tls):
    trust(right)
    leased, received = [True], []

    async def serve(stream):
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    received.append(await stream.receive())
                    await stream.send(GOOD)

    async def main():
        async with (
            served(serve, context(right, "http/1.1") if tls else None) as port,
            exchanging(
                f"{'https' if tls else 'http'}://127.0.0.1:{port}", HttpConnections(lambda: leased[0])
            ) as exchange,
        ):
            await exchange.send(REQUEST)
            leased[0] = False
            for _ in range(2):  # on a connection that stands, and on one that is made for it
                with pytest.raises(Unsent):
                    await exchange.send(REQUEST)
            leased[0] = True
            return (await exchange.send(REQUEST)).body

    assert anyio.run(main) == b"ok"
    assert len(received) == 2


CUT = {
    "body cut": b"HTTP/1.1 %d X\r\nretry-after: 30\r\ncontent-length: 9\r\n\r\n{",
    "no gzip": b"HTTP/1.1 %d X\r\nretry-after: 30\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("how", CUT)
@pytest.mark.parametrize("status", [200, 429, 503])
def test_status_and_headers_count_however_the_body_ends(how, status):
    async def serve(stream):
        async with stream:
            await stream.receive()
            await stream.send(CUT[how] % status)

    async def main():
        async with served(serve) as port:
            return await outcome(f"http://127.0.0.1:{port}")

    found = anyio.run(main)
    if status == 200:
        assert isinstance(found, Unreachable)
        assert found.retry_after == 30.0
    else:
        assert (found.status, found.body, found.headers["retry-after"]) == (status, b"", "30")


def test_cookies_are_sent_back():
    """A balancer's cookie keeps us at one and the same of its servers."""
    heads = []

    async def serve(stream):
        async with stream:
            for _ in range(2):
                heads.append(await stream.receive())
                await stream.send(GOOD.replace(b"\r\n\r\n", b"\r\nset-cookie: server=7\r\n\r\n"))

    async def main():
        async with served(serve) as port, exchanging(f"http://127.0.0.1:{port}") as exchange:
            for _ in range(2):
                await exchange.send(REQUEST)

    anyio.run(main)
    assert [b"server=7" in head for head in heads] == [False, True]


@pytest.mark.parametrize("status", [100, 102, 103])
def test_a_server_that_says_without_end_that_an_answer_will_come_is_given_up(status):
    interim = b"HTTP/1.1 %d x\r\n\r\n" % status

    async def serve(stream):
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await stream.receive()
                while True:
                    await stream.send(1000 * interim)

    async def patient(stream):
        async with stream:
            for _ in range(3):
                await stream.receive()
                await stream.send(MAX_INTERIM * interim + GOOD)

    async def main(server, times):
        async with served(server) as port, exchanging(f"http://127.0.0.1:{port}") as exchange:
            return [await attempted(exchange, REQUEST) for _ in range(times)]

    (found,) = anyio.run(main, serve, 1)
    assert (found.phase, found.reason) == ("protocol", "the server broke the protocol")
    assert [answer.body for answer in anyio.run(main, patient, 3)] == [b"ok"] * 3


def test_what_came_of_http_1_in_one_piece_leaves_others_their_turns():
    body = 2000 * b"1\r\na\r\n" + b"0\r\n\r\n"
    turns = 0

    async def serve(stream):
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)

    async def other():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def main():
        async with served(serve) as port, exchanging(f"http://127.0.0.1:{port}") as exchange:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other)
                found = await exchange.send(REQUEST)
                tasks.cancel_scope.cancel()
            return found

    assert anyio.run(main).body == 2000 * b"a"
    assert turns >= 90


def test_a_connection_of_http_1_on_which_an_attempt_was_out_of_time_is_closed_and_not_used_again():
    came = []

    async def serve(stream):
        number = len(came)
        came.append(0)
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while await stream.receive():
                    came[number] += 1
                    if (number, came[number]) != (0, 2):
                        await stream.send(GOOD)
            came[number] = "closed"

    async def main():
        connections = HttpConnections(always)
        async with served(serve) as port, exchanging(f"http://127.0.0.1:{port}", connections) as exchange:
            outcomes = [await attempted(exchange, REQUEST)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(patience_is_over, lambda: came == [2])
                outcomes.append(await attempted(exchange, REQUEST))
            outcomes += [await attempted(exchange, REQUEST) for _ in range(2)]
            return [isinstance(outcome, Response) for outcome in outcomes], came

    assert anyio.run(main, backend_options={"loop_factory": Still}) == ([True, False, True, True], ["closed", 2])


async def patience_is_over(condition):
    while not condition():
        await anyio.lowlevel.checkpoint()
    asyncio.get_running_loop().passed += PATIENCE


@pytest.mark.parametrize("protocols", [("h2",), ("http/1.1",)])
def test_what_is_raised_while_connections_stand_is_not_put_into_a_group(right, trust, protocols):
    trust(right)

    async def serve(stream):
        await (http2 if stream.extra(TLSAttribute.alpn_protocol) == "h2" else http1)(stream)

    async def main():
        async with served(serve, context(right, *protocols)) as port:
            with pytest.raises(Unreachable, match="ours"):
                await failing(f"https://127.0.0.1:{port}")
            with anyio.move_on_after(0.0) as scope:
                async with exchanging(f"https://127.0.0.1:{port}") as exchange:
                    await exchange.send(REQUEST)
            return scope.cancelled_caught

    async def failing(base_url):
        async with exchanging(base_url) as exchange:
            await exchange.send(REQUEST)
            raise Unreachable("read", "ours")

    assert anyio.run(main)


def test_the_kernel_asks_idle_connections_whether_they_stand():
    async def main():
        async with served(http1) as port, exchanging(f"http://127.0.0.1:{port}") as exchange:
            await exchange.send(REQUEST)
            (connection,) = exchange._transport._pool.connections
            raw = connection._made._network_stream.get_extra_info("socket")
            return [raw.getsockopt(level, option) for level, option, _ in KEEPALIVE_OPTIONS]

    assert anyio.run(main) == [value for _, _, value in KEEPALIVE_OPTIONS]


@pytest.mark.parametrize("protocols", [("h2",), ("http/1.1",)])
def test_an_alert_after_the_handshake_is_a_broken_connection(right, trust, protocols):
    """So says a server that wants a certificate of ours: in TLS 1.3 our side of the handshake is over by then."""
    trust(right)

    async def serve(stream):
        record = b"\x17\x03\x03\x00\x13" + bytes(19)  # that nobody can decipher
        async with stream:
            await stream.receive()
            await stream.transport_stream.send(record)
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, ssl.SSLError):
                while await stream.receive():
                    pass

    async def main():
        async with served(serve, context(right, *protocols)) as port:
            return await outcome(f"https://127.0.0.1:{port}")

    failure = anyio.run(main)
    assert (failure.phase, failure.reason) == ("read", "the connection broke before the answer was whole")


def test_those_that_waited_for_a_connection_that_could_not_be_made_share_the_next_one(right, trust):
    trust(right)
    came = 0

    async def serve(stream):
        nonlocal came
        came += 1
        if came == 1:
            async with stream:
                await stream.receive()
                await all_wait.wait()
                await stream.send(b"SSH-2.0-nonsense\r\n\r\n")
            return
        tls = context(right, "h2")
        await http2(await TLSStream.wrap(stream, server_side=True, ssl_context=tls, standard_compatible=False))

    async def main():
        nonlocal all_wait
        all_wait = anyio.Event()
        async with served(serve) as port, exchanging(f"https://127.0.0.1:{port}") as exchange:
            outcomes = []

            async def one():
                outcomes.append(await attempted(exchange, REQUEST))

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(one)
                while len(exchange._transport._pool._requests) < 5:
                    await anyio.lowlevel.checkpoint()
                all_wait.set()
            return [isinstance(outcome, Response) for outcome in outcomes], len(exchange._transport._pool.connections)

    all_wait = None
    assert anyio.run(main) == ([False, True, True, True, True], 1)
    assert came == 2


# --- what is said when there is no answer


async def silence(stream):
    async with stream:
        await anyio.sleep_forever()


async def half(stream):
    async with stream:
        await stream.receive()
        await stream.send(GOOD[:-1])
        await anyio.sleep_forever()


async def torn(stream):
    async with stream:
        await stream.receive()
        await stream.send(GOOD[:-1])


async def shut(stream):
    async with stream:
        await stream.receive()


async def broken(stream):
    async with stream:
        await stream.receive()
        reset(stream)


async def nonsense(stream):
    async with stream:
        await stream.receive()
        await stream.send(b"SSH-2.0-nonsense\r\n\r\n")


async def packed(stream):
    async with stream:
        await stream.receive()
        await stream.send(GOOD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"))


async def refused():
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    return await outcome(f"http://127.0.0.1:{port}")


async def unknown():
    return await outcome("http://no-such-host.invalid")


async def full():
    """A listener that lets nobody in: its queue is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        return await out_of_time("connect", f"http://127.0.0.1:{listener.getsockname()[1]}")


async def unread():
    """A listener that nobody serves: the kernel takes what its buffers hold."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        large = Request("POST", "/x", (), body=b"0" * 32_000_000)
        return await out_of_time("write", f"http://127.0.0.1:{listener.getsockname()[1]}", large)


def meeting(serve, scheme="http", until=None):
    """With a server that never gets the attempt beyond the phase `until`, if that is given."""

    async def meet():
        async with served(serve) as port:
            base_url = f"{scheme}://127.0.0.1:{port}"
            return await (out_of_time(until, base_url) if until else outcome(base_url))

    return meet


TROUBLE = {
    "unknown host": (unknown, "dns", "the host name cannot be resolved"),
    "refused": (refused, "connect", "the connection was refused"),
    "nobody lets us in": (full, "connect", "no connection in time"),
    "silence in the handshake": (
        meeting(silence, scheme="https", until="tls"),
        "tls",
        "no TLS connection in time",
    ),
    "plain HTTP": (meeting(nonsense, scheme="https"), "tls", "no TLS is spoken there as we know it: "),
    "nobody reads": (unread, "write", "the request could not be sent in time"),
    "silence": (meeting(silence, until="read"), "read", "no answer in time"),
    "half of an answer": (meeting(half, until="body"), "body", "no whole answer in time"),
    "reset": (meeting(broken), "read", "the connection broke before the answer was whole"),
    "closed at once": (meeting(shut), "read", "the connection was closed before the answer was whole"),
    "closed half way": (meeting(torn), "read", "the connection was closed before the answer was whole"),
    "no HTTP": (meeting(nonsense), "protocol", "the server broke the protocol"),
    "not packed": (meeting(packed), "decode", "the answer is not compressed as it says"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_what_went_wrong_is_told_apart(name):
    meet, phase, reason = TROUBLE[name]
    failure = anyio.run(meet, backend_options={"loop_factory": Still})
    assert isinstance(failure, Unreachable)
    assert (failure.phase, failure.reason[: len(reason)]) == (phase, reason)
    assert failure.__cause__ is None


def test_an_attempt_that_waits_for_a_place_on_a_shared_connection_says_so(right, trust):
    """The only stream is taken by a request that is not answered."""
    trust(right)
    failures = []

    async def main():
        connections = Watched("read")

        async def attempt():
            failures.append(await attempted(exchange, REQUEST))

        async with (
            served(functools.partial(http2, streams=0), context(right, "h2")) as port,
            exchanging(f"https://127.0.0.1:{port}", connections) as exchange,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(attempt)
            await connections.reached.wait()
            tasks.start_soon(attempt)
            await anyio.to_thread.run_sync(time.sleep, 0.05)  # to get further it had the chance
            asyncio.get_running_loop().passed += PATIENCE

    anyio.run(main, backend_options={"loop_factory": Still})
    assert sorted((failure.phase, failure.reason) for failure in failures) == [
        ("pool", "none of our connections became free in time"),
        ("read", "no answer in time"),
    ]


def test_no_two_troubles_are_told_in_the_same_words():
    """But for a connection that ends at once or half way: that is one and the same."""
    assert len({(phase, reason) for _, phase, reason in TROUBLE.values()}) == len(TROUBLE) - 1


async def greeted(certificate):
    async with served(http1, context(certificate)) as port:
        return await outcome(f"https://127.0.0.1:{port}")


def test_a_certificate_that_nobody_vouches_for_is_refused(right):
    failure = anyio.run(greeted, right)
    assert (failure.phase, failure.reason) == ("tls", "the certificate is refused: self-signed certificate")


def test_a_certificate_of_another_host_is_refused(wrong, trust):
    trust(wrong)
    failure = anyio.run(greeted, wrong)
    assert failure.phase == "tls"
    assert failure.reason.startswith("the certificate is refused: IP address mismatch")


def test_a_certificate_that_is_trusted_is_not_refused(right, trust):
    trust(right)
    assert isinstance(anyio.run(greeted, right), Response)


def test_the_log_names_the_phase_and_tells_another_trouble_at_once(tmp_path):
    """First connections are lost, then nobody listens any more: both are logged, each once a minute."""

    async def logged(poller, sorts):
        with anyio.fail_after(PATIENCE):
            while len(poller.stats.last_logged) < sorts or poller.stats.unlogged < 2:  # noqa: ASYNC110 (figures, not events)
                await anyio.sleep(0.005)

    async def main():
        file = tmp_path / "balances.db"
        async with journal(file) as intake, HttpConnections(always) as connections, anyio.create_task_group() as tasks:
            async with served(broken) as port:
                provider = helius(1, limits=((50, 1.0),), base_url=f"http://127.0.0.1:{port}")
                poller = poller_of(provider, None, intake, transport=connections)
                tasks.start_soon(poller.run)
                await logged(poller, 1)
            await logged(poller, 2)
            tasks.cancel_scope.cancel()

    with capture_logs() as logs:
        anyio.run(main)
    failed = [(record["kind"], record["phase"]) for record in logs if record["event"] == "poll.failed"]
    assert failed == [("unreachable", "read"), ("unreachable", "connect")]
