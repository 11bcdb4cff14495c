"""anyio: the text by which `watcher/journal/kafka/deadlines.py` knows a scope's cancellation from somebody else's."""

import asyncio
import math

import anyio
import pytest

from watcher.journal.kafka.deadlines import ANYIO_SCOPE_MESSAGE

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def caught(wait):
    """The CancelledError that comes out of a wait."""
    try:
        await wait
    except asyncio.CancelledError as error:
        return error
    raise AssertionError("it was not cancelled")


@pytest.mark.parametrize("how", ["cancel", "deadline", "cancel before"])
async def test_a_scope_s_cancellation_begins_with_the_words_that_we_know(how):
    with anyio.CancelScope(deadline=anyio.current_time() + (0.01 if how == "deadline" else math.inf)) as scope:
        if how == "cancel before":
            scope.cancel()
        if how == "cancel":
            asyncio.get_running_loop().call_soon(scope.cancel)
        said = await caught(anyio.sleep_forever())
        assert str(said.args[0]).startswith(ANYIO_SCOPE_MESSAGE), said
        assert anyio.current_effective_deadline() == -math.inf


async def test_a_scope_lets_through_what_does_not_carry_its_word():
    foreign = asyncio.get_running_loop().create_future()
    foreign.cancel()

    async def ended():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await caught(anyio.sleep_forever())
            await foreign  # at the very moment that it ends

    error = await caught(asyncio.ensure_future(ended()))
    assert not (error.args and str(error.args[0]).startswith(ANYIO_SCOPE_MESSAGE))
