"""The bytes of an answer, decompressed as they come: gzip with all its members, deflate with and without a zlib header.

That is done in small steps, so that what is small on the wire cannot become large before it is measured. A body that is
cut short, or goes on after its end, is no answer.
"""

import zlib
from collections.abc import Iterator

import httpx

from watcher.providers.failures import Malformed

STEP = 2**18
"""Bytes decompressed at a time: a millisecond or so."""
GZIP, ZLIB, RAW = 31, 15, -15
"""What zlib calls `wbits`."""


class Decompressor:
    """Of one body. Raises httpx.DecodingError for what is not compressed as it says."""

    def __init__(self, encoding: str) -> None:
        """`encoding`: the header `content-encoding`, or nothing. Raises Malformed for one that we did not ask for."""
        codings = [
            name for name in (part.strip().lower() for part in encoding.split(",")) if name not in ("", "identity")
        ]
        if len(codings) > 1 or not set(codings) <= {"gzip", "x-gzip", "deflate"}:
            raise Malformed(f"the answer is packed in a way that we did not ask for: {', '.join(codings)[:60]!r}")
        self._encoding = codings[0] if codings else None
        self._stream: zlib._Decompress | None = None
        """The member that is open."""
        self._ended = False
        """One member was whole."""
        self._head = b""
        """Of a deflated body, while it is too short to show which kind it is."""

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What these bytes hold, at most STEP of it at a time."""
        if self._encoding is None:
            yield data
            return
        try:
            yield from self._decompressed(data)
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None

    def end(self) -> None:
        """Nothing more will come."""
        if self._stream is not None or self._head:
            raise httpx.DecodingError("cut short")

    def _decompressed(self, data: bytes) -> Iterator[bytes]:
        more = data != b""
        while more:
            if self._stream is None:
                data, self._head = self._head + data, b""
                self._stream = self._opened(data)
                if self._stream is None:
                    self._head = data
                    return
            part = self._stream.decompress(data, STEP)
            if part:
                yield part
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            more = data != b"" or len(part) == STEP
            if self._stream.eof:
                self._stream, self._ended, more = None, True, data != b""

    def _opened(self, data: bytes) -> "zlib._Decompress | None":
        """The next member; None where too little of it is here to know its kind."""
        if self._encoding != "deflate":
            return zlib.decompressobj(GZIP)
        if self._ended:
            raise zlib.error("more than one")
        if len(data) < 2:
            return None
        headed = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
        return zlib.decompressobj(ZLIB if headed else RAW)
