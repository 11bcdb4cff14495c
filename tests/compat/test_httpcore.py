"""httpcore and httpx: the pool that `watcher/poller/connections.py` puts in the place of httpx's own."""

import asyncio
import contextlib

import h2.connection
import h2.events
import h2.exceptions
import httpcore
import httpx
import pytest

pytestmark = pytest.mark.anyio
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PATIENCE = 60.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def good(reader, writer):
    with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(GOOD)


class Connection(httpcore.AsyncConnectionInterface):
    """As ours: made by the first request, of HTTP/1.1; some have gone when they are given one."""

    def __init__(self, origin, asked, *, gone):
        self._origin, self._asked, self._gone, self._made = origin, asked, gone, None

    async def handle_async_request(self, request):
        if self._gone:
            raise httpcore.ConnectionNotAvailable
        if self._made is None:
            host, port = self._origin.host.decode(), self._origin.port
            stream = await httpcore.AnyIOBackend().connect_tcp(host, port, socket_options=[])
            self._made = httpcore.AsyncHTTP11Connection(self._origin, Stream(stream, self._asked), 75.0)
        return await self._made.handle_async_request(request)

    async def aclose(self):
        self._asked.append("close")
        await self._made.aclose()

    def info(self):
        return "ours"

    def can_handle_request(self, origin):
        return origin == self._origin

    def is_available(self):
        self._asked.append("available")
        return self._made is not None and self._made.is_available()

    def is_idle(self):
        self._asked.append("idle")
        return self._made is not None and self._made.is_idle()

    def has_expired(self):
        self._asked.append("expired")
        return self._made is not None and self._made.has_expired()

    def is_closed(self):
        return self._gone or (self._made is not None and self._made.is_closed())


class Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream, asked):
        self.read, self.write, self.aclose = stream.read, stream.write, stream.aclose
        self._stream, self._asked = stream, asked

    def get_extra_info(self, info):
        self._asked.append(info)
        return self._stream.get_extra_info(info)


async def test_a_transport_keeps_its_pool_where_we_put_ours_and_the_pool_asks_its_connections():
    asked = []

    class Pool(httpcore.AsyncConnectionPool):
        def create_connection(self, origin):
            asked.append("create")
            return Connection(origin, asked, gone=asked.count("create") <= 2)

    class Transport(httpx.AsyncHTTPTransport):
        def __init__(self):
            self._pool = Pool(max_connections=None)

    server = await asyncio.start_server(good, "127.0.0.1", 0)
    async with asyncio.timeout(PATIENCE), server:
        async with httpx.AsyncClient(transport=Transport(), trust_env=False) as client:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert (await client.get(url)).extensions["http_version"] == b"HTTP/1.1"
            assert asked.count("create") == 3, "a request that was not sent is given to another connection"
            assert len(client._transport._pool.connections) == 1
            asked.clear()
            assert (await client.get(url)).text == "ok"
            assert "create" not in asked
            assert {"available", "idle", "expired", "is_readable"} <= set(asked)
            assert "close" not in asked
        assert "close" in asked


@pytest.mark.parametrize("code", [0, 7])
async def test_a_connection_of_h2_goes_on_as_long_as_it_is_not_shown_that_the_server_leaves(code):
    """And has gone for good when it is: why we look at that frame ourselves."""
    leave = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, code])
    answer = bytes([0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88])
    request = [(":method", "GET"), (":authority", "a"), (":scheme", "https"), (":path", "/")]
    for shown in (False, True):
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        connection.send_headers(1, request, end_stream=True)
        if not shown:
            first, ended = connection.receive_data(answer)
            assert isinstance(first, h2.events.ResponseReceived)
            assert isinstance(ended, h2.events.StreamEnded)
            continue
        connection.receive_data(leave)
        with pytest.raises(h2.exceptions.ProtocolError):
            connection.receive_data(answer)


def test_a_context_for_tls_can_be_made_without_a_client():
    assert httpx.create_ssl_context().verify_mode.name == "CERT_REQUIRED"


async def test_what_came_behind_an_answer_stays_with_the_connection_that_is_idle():
    """`_response_closed` is where a connection of HTTP/1.1 becomes idle; `_h11_state` has what it did not use."""
    left = []

    class Looked(httpcore.AsyncHTTP11Connection):
        async def _response_closed(self):
            await super()._response_closed()
            left.append((self.is_idle(), self._h11_state.trailing_data[0]))

    async def twice(reader, writer):
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(GOOD + b"more")
            await reader.read()

    async with await asyncio.start_server(twice, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        origin = httpcore.Origin(b"http", b"127.0.0.1", port)
        stream = await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", port)
        connection = Looked(origin, stream, 75.0)
        request = httpcore.Request("GET", f"http://127.0.0.1:{port}/", headers=[(b"host", b"x")])
        answer = await connection.handle_async_request(request)
        assert await answer.aread() == b"ok"
        await answer.aclose()
        await connection.aclose()
    assert left == [(True, b"more")]
