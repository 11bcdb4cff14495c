"""The two journals as an outsider reads them: confluent-kafka with `read_committed`, and plain sqlite3."""

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

PARTITIONS = 8
PATIENCE = 300.0
"""Seconds for the journal to be read on a busy machine."""
END = -191
"""confluent-kafka's code for the end of one partition."""


FIRST = """
CREATE TABLE chaos_first (data BLOB NOT NULL);
CREATE TRIGGER chaos_first AFTER INSERT ON state BEGIN INSERT INTO chaos_first VALUES (new.data); END;
"""
"""A file keeps of each balance the newest state alone: this keeps its first one, in the transaction that brings it."""


class SqliteLog:
    """Reads the file in short transactions."""

    def __init__(self, path):
        self.path = path
        self._after = 0
        self._begun = 0
        self._states = {}

    def watch(self):
        """From now on the file keeps what each balance begins with. To be called before anybody writes to it."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(FIRST)

    def feed(self, checker):
        """Whatever is new since the last call, in one consistent view; False when nothing is."""
        if not self.path.exists():
            return False
        with contextlib.closing(
            sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
        ) as connection:
            connection.execute("BEGIN")
            events = connection.execute(
                "SELECT seq, type, data FROM event WHERE seq > ? ORDER BY seq", (self._after,)
            ).fetchall()
            states = connection.execute("SELECT id, version, data FROM state").fetchall()
            begun = connection.execute("SELECT rowid, data FROM chaos_first WHERE rowid > ?", (self._begun,)).fetchall()
        for self._begun, data in begun:
            checker.begun(json.loads(data))
        for self._after, type_, data in events:
            (checker.crossing if type_ == "crossed" else checker.event)(("event", self._after), json.loads(data))
        for row, version, data in states:
            if self._states.get(row) != version:
                self._states[row] = version
                checker.state(("state", row), json.loads(data))
        checker.view()
        return bool(events)

    def again(self, checker):
        """Everything from the beginning. States of the past are gone from a file: only the newest are there."""
        SqliteLog(self.path).feed(checker)

    def close(self):
        pass


class KafkaLog:
    """Reads the topics from the beginning; it goes to the broker directly, the proxy is not in its way."""

    def __init__(self, address, prefix, partitions=PARTITIONS):
        self.address = address
        self.partitions = partitions
        names = ("changed", "state", "crossed")
        self.changed, self.state, self.crossed = self.topics = [f"{prefix}balances.{name}.v1" for name in names]
        self._consumer = None

    def _subscribed(self):
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": uuid4().hex,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "reconnect.backoff.max.ms": 500,
                "fetch.wait.max.ms": 100,
                "log_level": 0,
            },
            error_cb=lambda _: None,
        )
        places = [
            TopicPartition(topic, part, OFFSET_BEGINNING) for topic in self.topics for part in range(self.partitions)
        ]
        consumer.assign(places)
        return consumer

    def feed(self, checker):
        self._consumer = self._consumer or self._subscribed()
        messages = [message for message in self._consumer.consume(2000, 0.2) if not message.error()]
        for message in messages:
            self._take(checker, message)
        return bool(messages)

    def again(self, checker):
        """Everything up to the end of every partition. Nobody writes any more."""
        consumer, ended = self._subscribed(), set()
        until = time.monotonic() + PATIENCE
        places = len(self.topics) * self.partitions
        while len(ended) < places:
            if time.monotonic() > until:
                raise TimeoutError(f"only {len(ended)} of {places} partitions have been read to their end")
            for message in consumer.consume(2000, 1.0):
                if not message.error():
                    self._take(checker, message)
                elif message.error().code() == END:
                    ended.add((message.topic(), message.partition()))
        consumer.close()

    def _take(self, checker, message):
        place = (message.topic(), message.partition(), message.offset())
        if message.topic() == self.changed:
            checker.event(place, json.loads(message.value()))
        elif message.topic() == self.crossed:
            checker.crossing(place, json.loads(message.value()))
        elif b"/" in message.key():  # the others are notes and marks
            checker.state(place, json.loads(message.value()))

    def close(self):
        if self._consumer is not None:
            self._consumer.close()


class Witness:
    """Feeds one checker from one log, on a thread, until it is stopped: to be done once nobody writes any more."""

    def __init__(self, log, checker):
        self.log = log
        self.checker = checker
        self.error = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while not self._stopping.is_set():
                if not self.log.feed(self.checker):
                    self._stopping.wait(0.1)
            while self.log.feed(self.checker):
                pass
        except Exception as error:  # noqa: BLE001 (told by who stops it)
            self.error = error

    async def stop(self):
        """Nothing is left behind: a thread would go on reading, and fail in the middle of somebody else's test."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        self.log.close()
        if self.error is not None:
            raise self.error
