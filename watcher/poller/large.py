"""A large listing is taken in a slice at a time, so that whoever shares the event loop keeps his pace.

First its body is compared with the one before, by a hash of each megabyte; most large listings repeat themselves.
"""

from collections.abc import Generator
from typing import TypeVar, cast

import anyio.lowlevel

from watcher.providers.provider import Found, Provider, Request, Response

T = TypeVar("T")

LARGE = 2**20
"""Bytes from which on an answer is worth it."""


async def in_slices(work: Generator[None, None, T]) -> T:
    """Run to the end; everybody else runs in between."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return cast("T", end.value)
        await anyio.lowlevel.checkpoint()


def reading(provider: Provider, request: Request, response: Response) -> Generator[None, None, Found] | None:
    """The provider's own way to read a large listing: `slices`, which it need not have. None: `read` does."""
    slices = getattr(provider, "slices", None)
    if slices is None or response.status != 200 or len(response.body) < LARGE:
        return None
    return cast("Generator[None, None, Found]", slices(request, response))


def fingerprint(body: bytes) -> Generator[None, None, tuple[int, ...]]:
    """Equal for equal bodies, in this process; for others with a chance of 2⁻⁶⁴."""
    whole, parts = memoryview(body), [len(body)]
    for start in range(0, len(body), LARGE):
        parts.append(hash(whole[start : start + LARGE]))
        yield
    return tuple(parts)
