"""What a client's message says, looked at piece by piece, so that every mistake is answered in words. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from watcher.model.log import Cursor

Params = Mapping[str, Any]


class CommandRefused(Exception):
    """A command that cannot be done. Its code and text go to the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def fields(message: str) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(message, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise CommandRefused("bad_request", "not a JSON object with id, method and params") from None


def id_of(message: Mapping[str, msgspec.Raw]) -> bytes:
    """The client's own spelling, sent back as it came."""
    spelt = bytes(message.get("id", b""))
    if spelt[:1] == b'"' or spelt.lstrip(b"-").isdigit():
        return spelt
    raise CommandRefused("bad_request", "a command has an id, an integer or a string")


def method_of(message: Mapping[str, msgspec.Raw]) -> str:
    name = _value(message, "method", None)
    if not isinstance(name, str):
        raise CommandRefused("bad_request", "a command has a method, a string")
    return name


def params_of(message: Mapping[str, msgspec.Raw]) -> Params:
    params = _value(message, "params", {})
    if not isinstance(params, dict):
        raise CommandRefused("bad_request", "params is an object")
    return params


def _value(message: Mapping[str, msgspec.Raw], name: str, absent: object) -> object:
    try:
        return msgspec.json.decode(message[name]) if name in message else absent
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise CommandRefused("bad_request", f"{name} cannot be read") from None


def choice(params: Params, name: str, allowed: tuple[str, str]) -> str:
    chosen = params.get(name, allowed[0])
    if not isinstance(chosen, str) or chosen not in allowed:
        raise CommandRefused("bad_request", f"{name} is {allowed[0]} or {allowed[1]}")
    return chosen


def interval(params: Params) -> int:
    """Milliseconds."""
    told = params.get("interval_ms", 0)
    if isinstance(told, bool) or not isinstance(told, int) or not 0 <= told <= 60_000:
        raise CommandRefused("bad_request", "interval_ms is an integer from 0 to 60000")
    return told


def cursor(params: Params) -> Cursor | None:
    if "cursor" not in params:
        return None
    text = params["cursor"]
    try:
        return Cursor.parse(text if isinstance(text, str) else "")
    except ValueError:
        raise CommandRefused("bad_cursor", "not a cursor: send back one that a push gave you, as it was") from None
