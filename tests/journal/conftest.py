"""Fixtures of the journals' tests. The shared suite's assertions explain themselves as those of a test module do."""

import pytest
from aiokafka.conn import AIOKafkaConnection

from tests import kafka_broker
from tests.journal import own_broker as secured


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
