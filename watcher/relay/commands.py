"""What a client's message says, looked at piece by piece, so that every mistake is answered in words. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from watcher.model.log import Cursor
from watcher.relay.messages import Code

Params = Mapping[str, Any]


class CommandRefused(Exception):
    """A command that cannot be done. Its code and text go to the client."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class CommandEnvelope(msgspec.Struct, frozen=True):
    """A command as it came; an empty Raw is a member that it does not have."""

    id: Raw = Raw(b"")
    method: Raw = Raw(b"")
    params: Raw = Raw(b"{}")


_decode = msgspec.json.Decoder(CommandEnvelope).decode


def request_of(message: str) -> CommandEnvelope:
    try:
        return _decode(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise CommandRefused("bad_request", "not a JSON object with id, method and params") from None


def id_of(request: CommandEnvelope) -> bytes:
    """The client's own spelling, sent back as it came."""
    spelt = bytes(request.id)
    if spelt[:1] == b'"' or spelt.lstrip(b"-").isdigit():
        return spelt
    raise CommandRefused("bad_request", "a command has an id, an integer or a string")


def method_of(request: CommandEnvelope) -> str:
    name = _value_of(request.method, "method") if bytes(request.method) else None
    if not isinstance(name, str):
        raise CommandRefused("bad_request", "a command has a method, a string")
    return name


def params_of(request: CommandEnvelope) -> Params:
    params = _value_of(request.params, "params")
    if not isinstance(params, dict):
        raise CommandRefused("bad_request", "params is an object")
    return params


def _value_of(raw: Raw, name: str) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise CommandRefused("bad_request", f"{name} cannot be read") from None


def choice_of(params: Params, name: str, allowed: tuple[str, str]) -> str:
    """The first where the command does not say."""
    chosen = params.get(name, allowed[0])
    if not isinstance(chosen, str) or chosen not in allowed:
        raise CommandRefused("bad_request", f"{name} is {allowed[0]} or {allowed[1]}")
    return chosen


def flag_of(params: Params, name: str, *, usual: bool) -> bool:
    given = params.get(name, usual)
    if not isinstance(given, bool):
        raise CommandRefused("bad_request", f"{name} is true or false")
    return given


def interval_of(params: Params) -> float:
    """Seconds."""
    given = params.get("interval_ms", 0)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= 60_000:
        raise CommandRefused("bad_request", "interval_ms is an integer from 0 to 60000")
    return given / 1000


def cursor_of(params: Params) -> Cursor | None:
    if "cursor" not in params:
        return None
    text = params["cursor"]
    try:
        return Cursor.parse(text if isinstance(text, str) else "")
    except ValueError:
        raise CommandRefused("bad_cursor", "not a cursor: send back one that a push gave you, as it was") from None
