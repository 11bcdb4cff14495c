"""Long work in slices, so that whoever shares the event loop keeps his pace."""

from collections.abc import Generator
from typing import TypeVar, cast

import anyio

T = TypeVar("T")
TURN = 0.004
"""Seconds after which work in slices rests: breaths that come sooner are let pass, for most rows cost nearly nothing."""
BREATHS = 25
"""That are let pass at most: where time stands still, too, others get their turn."""
REST = 2.0
"""For how long it rests: so many times as long as it was at work."""
LONGEST_REST = 0.5
"""Seconds: work that seems to have taken longer did not, but its process stood still."""


def run_at_once(work: Generator[None, None, T]) -> T:
    """Run to the end; nobody else runs in between."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("T", end.value)


async def run_in_slices(work: Generator[None, None, T]) -> T:
    """Run to the end; everybody else runs in between, and has the loop for longer than this work has it."""
    while True:
        began = anyio.current_time()
        for _ in range(BREATHS):
            try:
                next(work)
            except StopIteration as end:
                return cast("T", end.value)
            if (took := anyio.current_time() - began) >= TURN:
                break
        await anyio.sleep(min(REST * took, LONGEST_REST))
