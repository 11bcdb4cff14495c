"""Long work in slices, so that other tasks of the event loop keep their pace."""

from collections.abc import Generator
from contextlib import nullcontext
from typing import TypeVar, cast

import anyio

T = TypeVar("T")
TURN = 0.004
"""Seconds that a slice takes at most. It takes several steps of the work (from one `yield` to the next), since most cost
nearly nothing."""
STEPS = 25
"""Steps in one slice at most: others get their turn even where time stands still."""
REST = 2.0
"""After a slice the work rests for so many times as long as the slice took."""
LONGEST_REST = 0.5
"""Seconds: when a slice seems to have taken longer, the process stood still meanwhile."""


def run_at_once(work: Generator[None, None, T]) -> T:
    """Run to the end; no other task runs in between."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("T", end.value)


async def run_in_slices(work: Generator[None, None, T], turns: anyio.Lock | None = None) -> T:
    """Run to the end; other tasks run in between, and have the loop for longer than this work has it. `turns`: shared by works
    that together have no more of it than one: each has a slice in its turn."""
    while True:
        async with turns or nullcontext():
            began = anyio.current_time()
            for _ in range(STEPS):
                try:
                    next(work)
                except StopIteration as end:
                    return cast("T", end.value)
                if (took := anyio.current_time() - began) >= TURN:
                    break
            await anyio.sleep(min(REST * took, LONGEST_REST))
