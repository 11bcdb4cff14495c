"""Foreign producers send hints as docs/kafka.md shows it, and every process that polls is given them."""

import sys

import anyio
import pytest

from tests.consumers.clients import java
from tests.e2e.test_blocks import BLOCKS
from tests.foreign import require
from tests.journal.hint_world import producing, receiving, topic
from tests.journal.kafka_world import ready
from watcher.model.hints import Hint, decode, encode

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]
SHOWN = Hint(provider="helius", account="3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa")


@pytest.fixture
def anyio_backend():
    return "asyncio"


def shown(language, address, prefix):
    """The block of the page in which a hint is sent, for this cluster."""
    (text,) = (
        block.text
        for block in BLOCKS
        if block.page == "docs/kafka.md" and block.language == language and "balances.hints.v1" in block.text
    )
    return text.replace("localhost:9092", address).replace("balances.hints.v1", topic(prefix))


def kcat(address, prefix):
    require("kcat")
    return ["bash", "-c", shown("sh", address, prefix)], b""


def confluent(address, prefix):
    return [sys.executable, "-c", shown("python", address, prefix)], b""


def console(address, prefix):
    """Apache Kafka's `kafka-console-producer.sh`: Java's client, with a key for its partitioner."""
    properties = [f"--reader-property={each}" for each in ("parse.key=true", "key.separator=|")]
    command = [*java(), "org.apache.kafka.tools.ConsoleProducer", f"--bootstrap-server={address}", *properties]
    return [*command, f"--topic={topic(prefix)}", "--compression-codec=gzip"], b"any key|" + encode(SHOWN) + b"\n"


@pytest.mark.parametrize("producer", [kcat, confluent, console])
async def test_a_hint_of_a_foreign_producer_reaches_every_process(kafka, prefix, producer):
    async with (
        ready(kafka.address, prefix) as one,
        ready(kafka.address, prefix) as two,
        receiving(one, two) as receivers,
    ):
        command, given = producer(kafka.address, prefix)
        done = await anyio.run_process(command, input=given, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        with anyio.fail_after(60):
            while not all(receiver.hints for receiver in receivers):  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.01)
        assert [[decode(hint) for hint in receiver.hints] for receiver in receivers] == [[SHOWN], [SHOWN]]


@pytest.mark.parametrize("header", [b"\xff\xfe=1", b"\xc3=", b"x=\xff", b"null"])
async def test_a_header_may_be_anything_and_who_receives_goes_on(kafka, prefix, header):
    """Python's client takes its name for UTF-8; librdkafka and the broker take any bytes."""
    require("kcat")
    poison = ["kcat", "-P", "-b", kafka.address, "-t", topic(prefix), "-H", header]
    async with ready(kafka.address, prefix) as made, receiving(made) as (receiver,):
        for number in range(1, 3):
            await anyio.run_process(poison, input=b"poison")
            with anyio.fail_after(60):
                while len(receiver.hints) < number:  # noqa: ASYNC110 (no event tells it)
                    await anyio.sleep(0.01)
        assert {*receiver.hints} <= {b"", b"poison"}  # neither is a hint, and counts as none
        with producing(kafka.address) as producer:
            producer.produce(topic(prefix), encode(SHOWN))
        await receiver.until(encode(SHOWN))
