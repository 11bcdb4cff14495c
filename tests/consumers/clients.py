"""The foreign consumers: the command of each, and its output as the lines that `laws` judges."""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from tests.foreign import absent, npm, require
from tests.kafka_broker import NoBroker, jars

HERE = Path(__file__).parent


class Kcat:
    """librdkafka's command. It reads one topic; `read_committed` is its default, as of all that stand on librdkafka."""

    def commands(self, log, _folder):
        require("kcat")
        for topic in (log.changed_topic, log.state_topic):
            yield ["kcat", "-b", log.address, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J"]

    def lines(self, output):
        for text in output:
            found = json.loads(text)
            headers = dict(zip(found["headers"][::2], found["headers"][1::2], strict=True))
            yield {**found, "headers": headers, "value": decoded(found["payload"])}


def decoded(text):
    """None for what is no JSON."""
    return json.loads(text) if text.startswith("{") else None


class Confluent:
    """confluent-kafka for Python."""

    def commands(self, log, _folder):
        yield [sys.executable, str(HERE / "confluent.py"), log.address, log.changed_topic, log.state_topic]

    def lines(self, output):
        return map(json.loads, output)


class KafkaJs:
    """kafkajs for Node, with npm's own MessagePack and CloudEvents."""

    def commands(self, log, folder):
        script = npm(HERE / "npm", folder / "npm") / "consumer.js"
        yield ["node", str(script), log.address, str(log.records), log.changed_topic, log.state_topic]

    def lines(self, output):
        return map(json.loads, output)


def java():
    try:
        return [
            "java",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{jars(HERE / 'pom.xml', 'consumers')}/*",
        ]
    except NoBroker as reason:
        absent(str(reason))


class Console(NamedTuple):
    """Apache Kafka's `kafka-console-consumer.sh`. Its default is `read_uncommitted`."""

    committed: bool = True

    def commands(self, log, _folder):
        shown = (f"--formatter-property=print.{part}=true" for part in ("partition", "offset", "headers", "key"))
        everything = f"--include={re.escape(log.prefix)}balances\\.(changed|state)\\.v1"
        records = log.records + (0 if self.committed else 2 * log.aborted)
        yield [
            *java(),
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            f"--bootstrap-server={log.address}",
            everything,
            "--from-beginning",
            f"--max-messages={records}",
            *shown,
            *(["--isolation-level=read_committed"] if self.committed else []),
        ]

    def lines(self, output):
        """It does not say of which topic a record is: events alone have the headers of a CloudEvent."""
        for text in output:
            partition, offset, headers, key, value = text.rstrip("\n").split("\t")
            told = dict(header.split(":", 1) for header in headers.split(","))
            yield {
                "topic": "balances.changed.v1" if "ce_id" in told else "balances.state.v1",
                "partition": int(partition.removeprefix("Partition:")),
                "offset": int(offset.removeprefix("Offset:")),
                "key": key,
                "headers": told,
                "value": decoded(value),
            }


class Streams:
    """Kafka Streams: `BalancesTable.java`, started from its source."""

    def commands(self, log, folder):
        counts = (str(log.events), str(log.states))
        yield [*java(), str(HERE / "BalancesTable.java"), log.address, log.prefix, *counts, str(folder / "streams")]

    def lines(self, output):
        return map(json.loads, output)
