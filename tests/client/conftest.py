"""The relay's tests run on asyncio: `websockets` does."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"
