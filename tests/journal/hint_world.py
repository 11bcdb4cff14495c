"""Hints for the tests of the Kafka journal: producers of strangers, and what each process is given."""

import contextlib

import anyio
from confluent_kafka import Producer

from watcher.model.hints import Hint, encode
from watcher.model.log import Unavailable

HINT = encode(Hint(provider="bank", account="account1"))
PROBE = encode(Hint(provider="bank", account="probe"))


@contextlib.contextmanager
def producing(address, **more):
    """Somebody else's producer."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0, **more})
    try:
        yield producer
    finally:
        assert producer.flush(60) == 0


class Receiver:
    """What one process is given."""

    def __init__(self):
        self.turns = []
        self._exchange = None

    @property
    def hints(self):
        return [hint for turn in self.turns for hint in turn if hint != PROBE]

    async def run(self, exchange):
        self._exchange = exchange
        async with contextlib.aclosing(exchange.receive()) as turns:
            async for turn in turns:
                self.turns.append(turn)

    async def until(self, hint):
        with anyio.fail_after(60):
            while not any(hint in turn for turn in self.turns):  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.01)

    async def until_looked_at(self, place, end):
        """Until it has taken, or passed over, all that stands there before that offset."""
        with anyio.fail_after(60):
            while await self._exchange._consumer.position(place) < end:  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.01)


@contextlib.asynccontextmanager
async def receiving(*journals):
    """Receivers, each of which receives by now."""
    exchanges = [each.hint_exchange() for each in journals]
    receivers = [Receiver() for _ in journals]
    try:
        async with anyio.create_task_group() as tasks:
            for receiver, exchange in zip(receivers, exchanges, strict=True):
                tasks.start_soon(receiver.run, exchange)
            with anyio.fail_after(60):
                while not all(receiver.turns for receiver in receivers):
                    await exchanges[0].send([PROBE])
                    await anyio.sleep(0.05)
            yield receivers
            tasks.cancel_scope.cancel()
    finally:
        for exchange in exchanges:
            await exchange.close()


async def sent_until_received(exchange, receiver, hint=HINT):
    """Again and again: a receiver that begins anew, as after an outage, does so at the end, and misses what came before."""
    with anyio.fail_after(60):
        while hint not in receiver.hints:
            with contextlib.suppress(Unavailable):
                await exchange.send([hint])
            await anyio.sleep(0.1)


def topic(prefix):
    return f"{prefix}balances.hints.v1"
