"""The relay and the Kafka journal run on asyncio alone."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
