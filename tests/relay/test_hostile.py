"""Clients that mean harm; `python -m tests.relay.hostile --tries 10000` is the long run."""

import pytest

from tests.relay.hostile import siege

pytestmark = pytest.mark.anyio


async def test_malformed_frames_and_handshakes_get_the_right_answer_and_harm_nobody(tmp_path):
    wrong, unharmed, grown = await siege(500, 1, tmp_path)
    assert wrong == []
    assert unharmed
    assert grown < 100_000_000
