"""Polls per core against bare httpx, in one run: `python -m tests.bench.http [polls]`.

The same Helius request to the same loopback server (a process of its own), in turns: through the Poller, with budget,
schedule, reader, ledger and committer, as fast as its limit lets it; and by httpx alone, one after the other, with the
client configured alike. What counts is the CPU time of this process for each poll.
"""

import statistics
import subprocess
import sys
import time

import anyio
import anyio.lowlevel

from tests.bench.large import Journal
from tests.polling import helius, poller_of
from watcher.journal.committer import Committer
from watcher.journal.intake import Intake
from watcher.ledger import Ledger
from watcher.poller import client_for

WATCHES = 10
BODY = (
    b'{"jsonrpc":"2.0","result":{"context":{"apiVersion":"2.0.15","slot":341197053},"value":{"amount":"5","decimals":2,'
    b'"uiAmount":0.05,"uiAmountString":"0.05"}},"id":"1"}'
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


async def serve():
    """Answers every request alike. Prints its port."""

    async def answer(stream):
        data = b""
        async with stream:
            try:
                while True:
                    head, end, rest = data.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                    if end and len(rest) >= length:
                        data = rest[length:]
                        await stream.send(ANSWER)
                    else:
                        data += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    print(listener.extra(anyio.abc.SocketAttribute.local_port), flush=True)
    await listener.serve(answer)


async def polled(base_url, polls):
    """CPU seconds of a poll, all that a poller does included."""
    provider = helius(WATCHES, limits=((2_000, 1.0),), base_url=base_url)
    committer = Committer(Journal(), Ledger(), gather=0.05)
    async with anyio.create_task_group() as tasks:
        await tasks.start(committer.run)
        poller = poller_of(provider, None, Intake([committer]), transport=wire(provider))
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


def wire(provider):
    """The transport that a client of ours has."""
    return client_for(provider, provider.credentials("key"))._transport


async def bare(base_url, polls):
    provider = helius(1, base_url=base_url)
    (lane,) = provider.lanes
    request = provider.ask(lane, lane.targets, 1.0)
    headers = {"content-type": "application/json"}
    async with client_for(provider, provider.credentials("key")) as client:
        began = 0.0
        for number in range(polls + polls // 10):
            if number == polls // 10:
                began = time.process_time()
            answer = await client.post(base_url + request.path, content=request.body, headers=headers)
            assert answer.status_code == 200
    return (time.process_time() - began) / polls


async def compare(base_url, polls, turns=5):
    ours, theirs = [], []
    for _ in range(turns):
        theirs.append(await bare(base_url, polls))
        ours.append(await polled(base_url, polls))
    one, floor = statistics.median(ours), statistics.median(theirs)
    print(f"http      {1 / one:6,.0f} polls/s of a core, bare httpx {1 / floor:,.0f}: {one / floor:.2f} x (goal 1.25)")


def main(argv=()):
    command = [sys.executable, "-c", "import anyio; from tests.bench.http import serve; anyio.run(serve)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            anyio.run(compare, f"http://127.0.0.1:{port}", int(argv[0]) if argv else 500)
        finally:
            server.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
