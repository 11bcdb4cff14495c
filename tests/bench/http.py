"""Polls per core against bare httpx, in one run: `python -m tests.bench.http [polls]`.

The same Helius request to the same loopback server (a process of its own), in turns: through the Poller, with budget,
schedule, reader, ledger and committer, under a limit that is never what it waits for; and by an httpx client alone,
over a pool of connections made alike. Both keep one request for each watch in flight, on asyncio as the daemon does.
What counts is the CPU time of this process for each poll.
"""

import statistics
import subprocess
import sys
import time

import anyio
import anyio.lowlevel
import httpx

from tests.bench.large import Journal
from tests.polling import helius, poller_of
from watcher.ingest.committer import Committer
from watcher.ledger import Ledger
from watcher.poller.connections import KEEP_IDLE, MAX_CONNECTIONS, HttpConnections
from watcher.poller.http_exchange import HEADERS

BODY = (
    b'{"jsonrpc":"2.0","result":{"context":{"apiVersion":"2.0.15","slot":341197053},"value":{"amount":"5","decimals":2,'
    b'"uiAmount":0.05,"uiAmountString":"0.05"}},"id":"%b"}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


async def serve():
    """Answers every request alike, under its id. Prints its port."""

    async def answer(stream):
        data = b""
        async with stream:
            try:
                while True:
                    head, end, rest = data.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                    if end and len(rest) >= length:
                        data = rest[length:]
                        body = BODY % rest.partition(b'"id":"')[2].partition(b'"')[0]
                        await stream.send(ANSWER % (len(body), body))
                    else:
                        data += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    print(listener.extra(anyio.abc.SocketAttribute.local_port), flush=True)
    await listener.serve(answer)


async def polled(base_url, polls, watches):
    """CPU seconds of a poll, all that a poller does included."""
    provider = helius(watches, limits=((100_000, 1.0),), base_url=base_url)
    committer = Committer(Journal(), Ledger(), gather=0.05)
    async with HttpConnections(committer.lease.valid) as transport, anyio.create_task_group() as tasks:
        await tasks.start(committer.run)
        poller = poller_of(provider, None, committer, transport=transport)
        tasks.start_soon(poller.run)
        while poller.stats.answers < polls // 10:  # noqa: ASYNC110 (connections are made and baselines told)
            await anyio.sleep(0.01)
        first, began = poller.stats.answers, time.process_time()
        while poller.stats.answers < first + polls:  # noqa: ASYNC110 (a counter, not an event)
            await anyio.sleep(0.01)
        seconds, done = time.process_time() - began, poller.stats.answers - first
        assert not poller.stats.failures, poller.stats.failures
        tasks.cancel_scope.cancel()
    return seconds / done


async def bare(base_url, polls, watches):
    """CPU seconds of a request and its answer."""
    provider = helius(1, base_url=base_url)
    (group,) = provider.groups
    request = provider.ask(group.lanes[0], group.targets, 1.0)
    params, headers = provider.credentials("key").params, {"content-type": "application/json"}

    async def post(times):
        for _ in range(times):
            answer = await client.post(base_url + request.path, content=request.body, headers=headers)
            assert answer.status_code == 200

    async def at_once(times):
        async with anyio.create_task_group() as tasks:
            for _ in range(watches):
                tasks.start_soon(post, times // watches)

    timeout = httpx.Timeout(provider.settings.timeout)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_IDLE)
    async with httpx.AsyncClient(
        params=params, headers=HEADERS, timeout=timeout, limits=limits, http2=True, trust_env=False
    ) as client:
        await at_once(polls // 10)
        began = time.process_time()
        await at_once(polls)
    return (time.process_time() - began) / (polls // watches * watches)


async def compare(base_url, polls, turns=11):
    for watches in (10, 1):
        pairs = []
        for _ in range(turns):
            floor = await bare(base_url, polls, watches)
            pairs.append((await polled(base_url, polls, watches), floor))
        one, floor = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        print(
            f"http      {1 / one:6,.0f} polls/s of a core, bare httpx {1 / floor:,.0f}: {ratio:.2f} x "
            f"with {watches} in flight (goal 1.25)"
        )


def main(argv=()):
    command = [sys.executable, "-c", "import anyio; from tests.bench.http import serve; anyio.run(serve)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            anyio.run(compare, f"http://127.0.0.1:{port}", int(argv[0]) if argv else 300)
        finally:
            server.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
