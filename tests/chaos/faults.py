"""What goes wrong: each fault is a coroutine that does its harm and leaves exactly one daemon that is meant to write."""

import asyncio
import contextlib
import itertools
import sqlite3

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.chaos.proxy import INIT_PRODUCER
from tests.chaos.system import PATIENCE, Stuck, until


async def kill(system, dice):
    """`kill -9` at any instant, then a new daemon."""
    await system.daemon.kill()
    await system.start()


async def stop(system, dice):
    """SIGTERM in the middle of the work, then a new daemon."""
    await system.stop()
    await system.start()


async def twin(system, dice):
    """A second instance started by mistake: exactly one stays, the other one ends with 75."""
    first, second = system.daemon, await system.spawn()
    await system.one_stays(first, second)


async def zombie(system, dice):
    """SIGSTOP, a successor, SIGCONT: the frozen one wakes up with its work half done."""
    first = system.daemon
    first.freeze()
    second = await system.spawn()
    # A process frozen inside a commit to SQLite holds the lock: its successor waits for it, or gives up.
    with contextlib.suppress(Stuck):
        await second.up("the successor starts", dice.uniform(5, 15))
        await asyncio.sleep(dice.uniform(0, 2))
    first.thaw()
    await system.one_stays(first, second)


async def pause(system, dice):
    """SIGSTOP and SIGCONT, for long enough that Kafka's transaction times out at times."""
    system.daemon.freeze()
    await asyncio.sleep(dice.choice((0.5, 2, 11)))
    system.daemon.thaw()


async def back(broker):
    """A broker that was killed reads its whole log before it is ready."""
    broker.spawn()
    await asyncio.to_thread(broker.wait, 300.0)


async def broker_stop(system, dice):
    """A controlled shutdown of the broker, and a restart."""
    await asyncio.to_thread(system.broker.terminate)
    await back(system.broker)


async def broker_kill(system, dice):
    """`kill -9` of the broker, and a restart."""
    await asyncio.to_thread(system.broker.kill)
    await asyncio.sleep(dice.uniform(0, 2))
    await back(system.broker)


async def broker_pause(system, dice):
    """The broker is frozen: connections stay open and nothing answers."""
    system.broker.freeze()
    await asyncio.sleep(dice.choice((0.5, 3, 7, 12)))
    system.broker.thaw()


async def broker_pause_and_kill(system, dice):
    """The daemon is killed while the broker is frozen with its transaction open."""
    system.broker.freeze()
    await asyncio.sleep(dice.uniform(0, 1))
    await system.daemon.kill()
    system.broker.thaw()
    await system.start()


async def cut(system, dice):
    """Every connection to the broker is cut, a few times in a row."""
    for _ in range(dice.randint(1, 4)):
        system.proxy.cut()
        await asyncio.sleep(dice.uniform(0, 0.5))


async def hold(system, dice):
    """Nothing passes for a while, in either direction; then all of it does."""
    await system.proxy.hold(dice.choice((0.3, 2, 5.5, 6.5, 9)))


async def delay(system, dice):
    """Each frame is late by up to 30 ms."""
    system.proxy.lag = 0.03
    await asyncio.sleep(dice.uniform(1, 3))
    system.proxy.lag = 0.0


async def lost_answer(system, dice):
    """EndTxn is delivered, its answer is not: nobody knows whether the transaction was committed."""
    count = dice.randint(1, 4)
    before = system.proxy.stats["lost answers"]
    system.proxy.lose_answers(count)
    await until(lambda: system.proxy.stats["lost answers"] >= before + count, "EndTxn requests come")


async def late_end(system, dice):
    """EndTxn gets no answer, and is delivered in the middle of the next transaction (KIP-890)."""
    count = dice.randint(1, 4)
    before = system.proxy.stats["late EndTxn"]
    system.proxy.late_ends(count)
    await until(lambda: system.proxy.stats["late EndTxn"] >= before + count, "EndTxn requests come")


async def late_end_of_half(system, dice):
    """The same while the broker takes no states: it meets the events of the next transaction, and them alone."""
    held, late = system.proxy.stats["held EndTxn"], system.proxy.stats["late EndTxn"]
    system.proxy.late_ends(1, INIT_PRODUCER)  # what a writer does next of whom a half was refused
    await until(lambda: system.proxy.stats["held EndTxn"] > held, "an EndTxn request comes")
    async with refusing(system, system.witness.log.state):
        await until(lambda: system.proxy.stats["late EndTxn"] > late, "the held EndTxn is delivered")


async def refuse(system, dice):
    """The broker takes no batches of events for a while, those of the state it takes: half a transaction fails."""
    async with refusing(system, system.witness.log.changed):
        await asyncio.sleep(dice.uniform(1, 3))


async def refuse_and_kill(system, dice):
    """The daemon is killed while the broker takes no batches of events."""
    async with refusing(system, system.witness.log.changed):
        await asyncio.sleep(dice.uniform(0.5, 1.5))
        await system.daemon.kill()
    await system.start()


@contextlib.asynccontextmanager
async def refusing(system, topic):
    """The broker takes no balance into that topic; what an owner writes to open it is smaller."""
    address = system.witness.log.address
    await asyncio.to_thread(_limit, address, topic, "300")
    try:
        yield
    finally:
        await asyncio.to_thread(_limit, address, topic, "1048588")


def _limit(address, topic, size):
    admin = AdminClient({"bootstrap.servers": address})
    entry = ConfigEntry("max.message.bytes", size, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource], request_timeout=60).values():
        future.result()


async def lock(system, dice):
    """Another connection holds SQLite's write lock for a while."""
    path = system.folder / "balances.db"
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(dice.choice((0.3, 1.5, 4)))
        connection.execute("ROLLBACK")


async def slow_twin(system, dice):
    """A second instance that gets hardly any time to start: much is committed between two of its steps.

    Where there are too few processors even for that, it gets twice as much after many turns, and so on.
    """
    asleep, awake = (0.1, 0.003) if system.kind == "sqlite" else (0.04, 0.01)  # a start on Kafka takes more steps
    first, second = system.daemon, await system.spawn()
    await until(lambda: second.starting or second.status is not None, "a twin begins to start")
    turns = itertools.count()
    while first.status is second.status is None:
        second.freeze()
        await asyncio.sleep(asleep)
        second.thaw()
        await asyncio.sleep(awake * 2 ** (next(turns) // 1000))
    await system.one_stays(first, second)


async def reader_kill(system, dice):
    """A second process that only reads, `--only relay`, is killed while it does."""
    reader = await system.spawn("--only", "relay")
    await reader.up("a reader starts")
    await asyncio.sleep(dice.uniform(0, 1))
    await reader.kill()


ANY = {kill: 4, twin: 3, slow_twin: 2, zombie: 3, pause: 2, stop: 1}
SQLITE = {**ANY, lock: 3, reader_kill: 1}
KAFKA = {
    **ANY, cut: 4, hold: 3, delay: 1, lost_answer: 4, late_end: 2, late_end_of_half: 2,
    broker_stop: 1, broker_kill: 2, broker_pause: 2, broker_pause_and_kill: 1, reader_kill: 1, refuse: 1, refuse_and_kill: 1,
}  # fmt: skip
FAULTS = {"sqlite": SQLITE, "kafka": KAFKA}
"""What may happen to each journal, and how often beside the others."""
