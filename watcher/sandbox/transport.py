"""The sandbox behind httpx without a socket, for worlds in virtual time: `httpx.AsyncClient(transport=…)`."""

import anyio
import httpx

from watcher.sandbox.messages import SimulatedRequest
from watcher.sandbox.world import World


class SandboxTransport(httpx.AsyncBaseTransport):
    """Answers as the server would: requests arrive after the network's delay, and a torn reply is a broken connection.

    Time-outs are httpx's sockets' business, and there is no socket: bound a request with `anyio.fail_after`.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        await anyio.sleep(self._world.travel())
        answer = self._world.answer(_plain(request, body), anyio.current_time())
        await anyio.sleep(answer.delay + self._world.travel())
        if answer.cut is not None:
            raise httpx.RemoteProtocolError("the sandbox closed the connection", request=request)
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body, request=request)


def _plain(request: httpx.Request, body: bytes) -> SimulatedRequest:
    return SimulatedRequest(
        method=request.method,
        path=request.url.path,
        query=dict(request.url.params),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
    )
