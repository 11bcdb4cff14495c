"""A consumer as its users write it: `python confluent.py SERVERS TOPIC…` prints a JSON line a record and ends at the end.

librdkafka reads committed records only, by default.
"""

import json
import sys
from uuid import uuid4

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

DECODERS = {"application/json": json.loads, "application/msgpack": msgspec.msgpack.decode}
PATIENCE = 60.0
"""Seconds."""


def line(message):
    headers = {name: value.decode() for name, value in message.headers()}
    decode = DECODERS.get(headers["content-type"])
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "key": message.key().decode(),
        "headers": headers,
        "value": decode(message.value()) if decode else None,
    }


def main(servers, *topics):
    consumer = Consumer({"bootstrap.servers": servers, "group.id": uuid4().hex, "enable.partition.eof": True})
    places = [
        TopicPartition(topic, partition, OFFSET_BEGINNING)
        for topic in topics
        for partition in consumer.list_topics(topic, PATIENCE).topics[topic].partitions
    ]
    consumer.assign(places)
    ended = set()
    while len(ended) < len(places):
        message = consumer.poll(PATIENCE)
        assert message is not None, f"nothing for {PATIENCE} s"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ended.add((message.topic(), message.partition()))
        else:
            print(json.dumps(line(message)))
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
