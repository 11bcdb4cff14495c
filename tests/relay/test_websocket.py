"""The websocket of one connection, where it ends."""

import asyncio
import contextlib
import os

import pytest

from tests.relay.stage import PATIENCE, SOLANA, staged, until
from watcher.model.keys import Key
from watcher.model.log import Published

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def reused(descriptor):
    """A pipe whose writing end has that number, which is free; its reading end."""
    reading, writing = os.pipe()
    try:
        if reading == descriptor:
            reading = os.dup(reading)  # the number is the writing end's below
        if writing != descriptor:
            os.dup2(writing, descriptor)
            os.close(writing)
        os.set_blocking(reading, False)
        yield reading
    finally:
        os.close(reading)
        os.close(descriptor)


async def test_what_is_published_as_a_connection_ends_is_not_written_to_who_gets_its_descriptor(tmp_path):
    """The kernel gives the number to the next who opens something, which may be in the same turn of the loop."""
    loop, written = asyncio.get_running_loop(), asyncio.Event()
    async with staged(tmp_path) as stage, stage.subscriber() as one:
        await one.subscribe(snapshot=False)
        fan_out = stage.relay.flusher.fan_out
        (connection,) = stage.relay.connections
        await until(lambda: connection.outbox.live)
        descriptor, got = connection.outbox.direct, []

        def publish():
            with reused(descriptor) as reading:
                position = fan_out.cursor.positions[0]
                fan_out.publish(Published(Key("p", SOLANA, "a", "t"), position, b"{}", 0, position, 0), 0.0)
                fan_out.deal(32)
                with contextlib.suppress(BlockingIOError):
                    got.append(os.read(reading, 100))
            written.set()

        (accepted,) = stage.relay.listener.admission.sockets.values()
        accepted.dismiss()  # asyncio tells of the end and closes the descriptor in one callback
        loop.call_soon(publish)
        async with asyncio.timeout(PATIENCE):
            await written.wait()
        assert not got
        assert not len(stage.relay.connections)
