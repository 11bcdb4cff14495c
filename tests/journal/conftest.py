"""Fixtures of the journals' tests. The shared suite's assertions explain themselves as those of a test module do."""

import pytest
from aiokafka.conn import AIOKafkaConnection

from tests import kafka_broker
from tests.journal import own_broker as secured
from watcher.journal.kafka import cluster, journal, offsets, reader, topic_admin, writer


@pytest.fixture(autouse=True)
def connections(monkeypatch):
    """Every connection to Kafka that the test has opened. One that it leaves open fails it, and not whichever test
    runs when the garbage is collected."""
    made, connect = [], AIOKafkaConnection.connect

    async def watched(connection):
        made.append(connection)
        return await connect(connection)

    monkeypatch.setattr(AIOKafkaConnection, "connect", watched)
    yield made
    assert not [connection for connection in made if connection.connected()]


@pytest.fixture
def patient(monkeypatch):
    """Deadlines that no stall of the machine outlasts. A test that is about one of them sets its own."""
    for module, name, seconds in (
        (cluster, "START", 60.0),
        (cluster, "REQUEST", 30.0),
        (cluster, "TRANSACTION", 120.0),
        (offsets, "REQUEST", 30.0),
        (offsets, "STALLED", 60.0),
        (journal, "HEARTBEAT", 60.0),
        (reader, "FRESH", 30.0),
        (reader, "LOAD", 30.0),
        (topic_admin, "ADMIN", 60.0),
        (topic_admin, "BEGUN", 30.0),
        (writer, "COMMIT", 60.0),
        (writer, "FORGOTTEN", 30.0),
        (writer, "QUIET", 60.0),
    ):
        assert seconds > getattr(module, name)
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(key store, PEM) of the broker of our own."""
    return secured.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def secure_port():
    return kafka_broker.free_port()


@pytest.fixture(scope="session")
def own_broker(certificate, secure_port):
    """A broker that tests may kill and freeze, and must leave running."""
    try:
        with secured.own_broker(certificate[0], secure_port) as node:
            yield node
    except kafka_broker.NoBroker as reason:
        pytest.skip(f"no broker of our own: {reason}")


@pytest.fixture
def secure_address(own_broker, secure_port):
    """Its listener that wants TLS and a password."""
    return f"127.0.0.1:{secure_port}"
