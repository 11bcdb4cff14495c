"""One request and one reply, as plain values: what the APIs decide on, with the socket left out."""

from collections.abc import Mapping
from typing import Any

import msgspec

VALID_KEY = "sandbox-key"
"""The one API key that every simulated provider accepts."""


class SimulatedRequest(msgspec.Struct, frozen=True):
    method: str
    path: str
    """Decoded, without the query: `/helius/`."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes = b""


class SimulatedReply(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes
    delay: float = 0.0
    """Seconds that the reply is held back."""
    cut: int | None = None
    """The connection breaks after so many bytes of the body; -1: before the first byte of the head."""


def json_reply(status: int, data: Any, **headers: str) -> SimulatedReply:
    """JSON. Header names are written with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimulatedReply(status, {"content-type": "application/json", **named}, msgspec.json.encode(data))


def page_reply(status: int, text: str) -> SimulatedReply:
    """What a proxy in front of an API says."""
    body = f"<!DOCTYPE html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>"
    return SimulatedReply(status, {"content-type": "text/html"}, body.encode())
