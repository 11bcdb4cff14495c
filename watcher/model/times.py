"""Wall-clock times: microseconds since the epoch in memory, RFC 3339 UTC on the wire."""

import functools
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = EPOCH.replace(tzinfo=None)


def format_rfc3339(micros: int) -> str:
    """Wall-clock microseconds as RFC 3339 UTC with microseconds: `2026-01-25T14:43:57.000000Z`."""
    return f"{(_NAIVE_EPOCH + timedelta(microseconds=micros)).isoformat(timespec='microseconds')}Z"


def parse_rfc3339(text: str) -> int:
    """Any RFC 3339 time with an offset, as wall-clock microseconds. Raises ValueError for one without."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"a time without an offset names no instant: {text!r}")
    return (time - EPOCH) // timedelta(microseconds=1)


shared_micros = functools.lru_cache(maxsize=1024)(parse_rfc3339)
"""`parse_rfc3339`, which gives the very same object for a time that was asked for lately: many balances share theirs."""

shared_text = functools.lru_cache(maxsize=1024)(format_rfc3339)
"""The same of `format_rfc3339`."""
