"""What all five APIs share in their answers: JSON, HTTP statuses, and how they say "wait"."""

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from watcher.events import AmountError, Key, Reading, canonical
from watcher.providers.failures import Exhausted, Malformed, Misconfigured, RefusedCredential, Temporary, Throttled
from watcher.providers.provider import Request, Response, Target

T = TypeVar("T")
U = TypeVar("U")

LONGEST_WAIT = 3600.0
"""Seconds. A provider that says more is asked again after an hour: it may have meant something else."""
Order = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A slot, or a time in microseconds: what every journal can keep."""
Decimals = Annotated[int, msgspec.Meta(ge=0, le=255)]
Code = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
BOM = b"\xef\xbb\xbf"
MOST_IN_A_NUMBER = 2**53
"""Whole numbers above it may have been rounded on their way when they come as JSON numbers."""
_TEXT = msgspec.json.Decoder(str)
_ANYTHING = msgspec.json.Decoder()
_PLAIN = re.compile(rb'"(?:0|[1-9][0-9]{0,77})"')
_BASE = re.compile(r"[0-9]{1,78}")
_DECIMAL = re.compile(r"-?[0-9]{1,78}(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?")


def decode(decoder: msgspec.json.Decoder[T], body: bytes, once: Callable[[T], bool] | None = None) -> T:
    """The one place that opens bytes from outside. Raises Malformed, also when an object tells one member twice.

    `once` may prove of what was found, cheaper than a second look at the bytes, that nothing can be told twice in them.
    """
    body = body.removeprefix(BOM)
    try:
        if not body.isascii():
            body.decode()  # the decoder does not look into fields that it passes over, but a broken byte is a torn answer
        found = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the answer is not what the API documents: {one_line(str(error))} ({glimpse(body)})") from None
    if once is None or not once(found):
        _refuse_repeated_members(body)
    return found


def decode_either(strict: msgspec.json.Decoder[T], loose: msgspec.json.Decoder[U], body: bytes) -> T | U:
    """An answer as documented; or, where a part of it has another shape, with its parts still closed. Raises Malformed."""
    try:
        return decode(strict, body)
    except Malformed:
        return decode(loose, body)


def attempt(decoder: msgspec.json.Decoder[T], part: msgspec.Raw) -> T | None:
    """A part of an answer that was opened; None when it has another shape."""
    try:
        return decoder.decode(part)
    except (msgspec.DecodeError, RecursionError):
        return None


def literal(told: str | msgspec.Raw) -> str:
    """A number, in a string or not, as it was written. Raises Malformed for what is neither."""
    if isinstance(told, str):
        return told
    text = bytes(told)
    if text[:1] == b'"':
        try:
            return _TEXT.decode(text)
        except msgspec.DecodeError:
            raise Malformed(f"not a text: {glimpse(text)}") from None
    if text[:1] not in b"-0123456789" or not text:
        raise Malformed(f"neither a number nor a string: {glimpse(text)}")
    return text.decode()


def base_units(told: str | msgspec.Raw) -> str:
    """Canonical amount of a whole number of base units, `"6.5E+12"` too. Raises Malformed.

    A JSON number where a string is documented counts as long as no reader on its way can have rounded it.
    """
    if isinstance(told, msgspec.Raw) and _PLAIN.fullmatch(told):
        return bytes(told)[1:-1].decode()  # nearly every amount takes this path
    text = literal(told)
    amount = canonical(text) if _BASE.fullmatch(text) else token_units(text)
    if "." in amount or len(amount) > 78:
        raise Malformed(f"not a whole number of base units: {one_line(text)!r}")
    if isinstance(told, msgspec.Raw) and bytes(told)[:1] != b'"' and int(amount) > MOST_IN_A_NUMBER:
        raise Malformed(f"a number that may have been rounded, where a string is due: {one_line(text)}")
    return amount


def token_units(text: str) -> str:
    """Canonical amount of a decimal number in a string. Raises Malformed."""
    if not _DECIMAL.fullmatch(text):
        raise Malformed(f"not a decimal amount: {one_line(text)!r}")
    try:
        return canonical(text)
    except AmountError as error:
        raise Malformed(str(error)) from None


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """The readings, one for each key. Raises Malformed when one key is told twice and differently."""
    found: dict[Key, Reading] = {}
    for reading in readings:
        if found.setdefault(reading.key, reading) != reading:
            raise Malformed(f"the answer contradicts itself on {reading.key}")
    return list(found.values())


def asked(targets: Sequence[Target]) -> str:
    """The targets of a request in one line, for a reason."""
    rest = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    return "; ".join(str(target) for target in targets[:3]) + rest


def refuse(request: Request, response: Response, message: str, *, wait: float | None = None) -> NoReturn:
    """The failure that an HTTP status other than 200 stands for; `message` is what the provider said."""
    status = response.status
    reason = f"HTTP {status}: {one_line(message) or 'no reason given'}"
    if status == 429:
        raise Throttled(reason, wait)
    if status in (401, 403, 407):
        raise RefusedCredential(reason)
    if status == 402:
        raise Exhausted(reason)
    if 300 <= status < 400:
        raise Misconfigured(f"HTTP {status}: the API has moved; check base_url")
    if status in (408, 425) or status >= 500:
        raise Temporary(reason)
    if 400 <= status < 500:
        raise Misconfigured(f"{reason} (asked for {asked(request.targets)})")
    raise Malformed(f"HTTP {status} where 200 was due")


def retry_after(response: Response) -> float | None:
    """Seconds to wait by `Retry-After` (seconds or HTTP date), else by `x-ratelimit-reset` (Unix seconds), else None.

    A time in the past and a number that is none say nothing; a longer one than an hour is cut to that.
    """
    text = response.headers.get("retry-after", "").strip()
    for seconds in (_seconds(text), _until(text, response.wall), _reset(response)):
        if seconds is not None and seconds > 0:
            return min(seconds, LONGEST_WAIT)
    return None


def glimpse(body: bytes) -> str:
    """The beginning of an answer, in one line."""
    text = one_line(body[:200].decode("utf-8", "replace"), 60)
    return f"{len(body)} bytes: {text}" if body else "empty"


def one_line(text: str, most: int = 160) -> str:
    """Text from outside, fit for a log line: printable, one line, not long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * most])
    line = " ".join(line.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _refuse_repeated_members(body: bytes) -> None:
    """Refuse JSON that tells one member of an object twice, of which a decoder silently keeps the last.

    What was kept, written anew, has fewer colons then. Only an escape could hide one, so those are looked at slowly.
    Raises Malformed.
    """
    try:
        if b"\\u" not in body and msgspec.json.encode(_ANYTHING.decode(body)).count(b":") == body.count(b":"):
            return
    except (msgspec.MsgspecError, OverflowError, RecursionError):
        pass  # numbers beyond its reach, in fields that nobody reads
    try:
        json.loads(body, object_pairs_hook=_members, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the answer contradicts itself: {one_line(str(error))}") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _reset(response: Response) -> float | None:
    moment = _seconds(response.headers.get("x-ratelimit-reset", ""))
    return None if moment is None else moment - response.wall


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _until(date: str, wall: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
