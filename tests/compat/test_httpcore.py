"""httpcore and httpx: the pool that `watcher/poller/connections.py` puts in the place of httpx's own."""

import asyncio
import contextlib

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


async def test_a_transport_keeps_its_pool_where_we_put_ours_and_the_pool_asks_its_connections():
    asked = []

    class Connection(httpcore.AsyncHTTPConnection):
        def is_available(self):
            asked.append("available")
            return super().is_available()

        def is_idle(self):
            asked.append("idle")
            return super().is_idle()

        def has_expired(self):
            asked.append("expired")
            return super().has_expired()

    class Stream(httpcore.AsyncNetworkStream):
        def __init__(self, stream):
            self.read, self.write, self.aclose, self._stream = stream.read, stream.write, stream.aclose, stream

        def get_extra_info(self, info):
            asked.append(info)
            return self._stream.get_extra_info(info)

    class Network(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
            return Stream(await httpcore.AnyIOBackend().connect_tcp(host, port, timeout, local_address, socket_options))

    class Pool(httpcore.AsyncConnectionPool):
        def create_connection(self, origin):
            asked.append("create")
            return Connection(origin, keepalive_expiry=75.0, http2=True, network_backend=Network())

    class Transport(httpx.AsyncHTTPTransport):
        def __init__(self):
            self._pool = Pool(max_connections=None)

    server = await asyncio.start_server(good, "127.0.0.1", 0)
    async with asyncio.timeout(PATIENCE), server, httpx.AsyncClient(transport=Transport(), trust_env=False) as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert (await client.get(url)).extensions["http_version"] == b"HTTP/1.1"
        assert asked.count("create") == 1
        assert client._transport._pool.connections
        asked.clear()
        assert (await client.get(url)).text == "ok"
        assert "create" not in asked
        assert {"available", "idle", "expired", "is_readable"} <= set(asked)
    assert asked.count("create") == 0


def test_a_context_for_tls_can_be_made_without_a_client():
    assert httpx.create_ssl_context().verify_mode.name == "CERT_REQUIRED"
