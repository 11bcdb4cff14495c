"""Large listings are processed a slice at a time, so that whoever shares the event loop keeps his pace.

First the body is compared with the one before, by its hash: most large listings repeat themselves.
"""

import hashlib
from collections.abc import Generator
from typing import cast

import msgspec

from watcher.model.bulk_listing import BulkListing
from watcher.providers.failures import Malformed
from watcher.providers.protocol import ReadResult

LARGE = 2**16
"""Bytes from which on an answer is read in slices."""
HASHED = 2**20
"""Bytes hashed in one step of work."""


def clear_rows_only(result: ReadResult) -> Generator[None, None, ReadResult]:
    """What can be understood of a bulk listing of which a row raised UnreadableRow. Raises Malformed for none."""
    rows = cast("BulkListing", result.readings)
    known, remark = yield from rows.readable_rows()
    yield from rows.clear()
    if not known:
        raise Malformed(remark)
    return msgspec.structs.replace(result, readings=known, partial=True, remark=remark)


def fingerprint(body: bytes) -> Generator[None, None, bytes]:
    """Equal for equal bodies and for no others: a body that is mistaken for another would be a change that is lost."""
    whole, hashed = memoryview(body), hashlib.sha256()
    for start in range(0, len(body), HASHED):
        hashed.update(whole[start : start + HASHED])
        yield
    return hashed.digest()
