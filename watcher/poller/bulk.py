"""A large listing is taken in a slice at a time, so that whoever shares the event loop keeps his pace.

First its body is compared with the one before, by its hash; most large listings repeat themselves.
"""

import hashlib
from collections.abc import Generator
from typing import cast

import msgspec

from watcher.model.bulk_listing import BulkListing
from watcher.model.targets import LISTING
from watcher.providers.failures import Malformed
from watcher.providers.protocol import BulkProvider, Provider, ReadResult, Request, Response

LARGE = 2**16
"""Bytes from which on an answer is worth it."""
HASHED = 2**20
"""Bytes hashed between two breaths."""


def reading(provider: Provider, request: Request, response: Response) -> Generator[None, None, ReadResult] | None:
    """The provider's own way to read a large listing, which it need not have. None: `read` does."""
    large = response.status == 200 and len(response.body) >= LARGE and request.targets[0].family == LISTING
    return provider.read_in_slices(request, response) if large and isinstance(provider, BulkProvider) else None


def clear_rows_only(found: ReadResult) -> Generator[None, None, ReadResult]:
    """What can be understood of columns of which a row raised Unclear. Raises Malformed when nothing can."""
    rows = cast("BulkListing", found.readings)
    known, remark = yield from rows.understood()
    yield from rows.clear()
    if not known:
        raise Malformed(remark)
    return msgspec.structs.replace(found, readings=known, partial=True, remark=remark)


def fingerprint(body: bytes) -> Generator[None, None, bytes]:
    """Equal for equal bodies and for no others: a body that is taken for another would be a change that is lost."""
    whole, hashed = memoryview(body), hashlib.sha256()
    for start in range(0, len(body), HASHED):
        hashed.update(whole[start : start + HASHED])
        yield
    return hashed.digest()
