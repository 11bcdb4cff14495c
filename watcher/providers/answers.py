"""What all five APIs share in their answers: JSON, what an HTTP status means and whose word it is, text for a log."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from watcher.model.amounts import AmountError, canonical
from watcher.model.keys import Key
from watcher.model.readings import Reading
from watcher.model.targets import Target
from watcher.providers.failures import (
    Exhausted,
    Malformed,
    Misconfigured,
    Quoting,
    RefusedCredential,
    Temporary,
    Throttled,
)
from watcher.providers.protocol import Request, Response
from watcher.providers.waits import refusal_wait
from watcher.redaction.safe_text import LOOK_AHEAD, one_line

T = TypeVar("T")
U = TypeVar("U")

MAX_DOCUMENT_BYTES = 4 * 2**20
"""Bytes of JSON that are opened in one go, and for as long nothing else runs: a larger answer is read in slices, or not
at all."""
MAX_VALUES = 100_000
"""Commas and brackets in it, which stand for as many values: some thirty thousand balances."""
ROWS_PER_STEP = 300
"""Rows that are read in one step of work: some milliseconds."""
MAX_ERROR_BYTES = 2**16
"""Bytes of an error: what is longer is a page, and nobody's word."""
Order = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A slot, or a time in microseconds: what every journal can keep."""
Decimals = Annotated[int, msgspec.Meta(ge=0, le=255)]
Code = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
BOM = b"\xef\xbb\xbf"
MOST_IN_A_NUMBER = 2**53
"""Whole numbers above it may have been rounded on their way when they come as JSON numbers."""
_BUT_STRUCTURE = bytes(set(range(256)).difference(b",{["))
_TEXT = msgspec.json.Decoder(str)
_ANYTHING = msgspec.json.Decoder()
_PLAIN = re.compile(rb'"(?:0|[1-9][0-9]{0,77})"')
_BASE = re.compile(r"[0-9]{1,78}")
_DECIMAL = re.compile(r"-?[0-9]{1,78}(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?")


def decode(decoder: msgspec.json.Decoder[T], body: bytes, once: Callable[[T], bool] | None = None) -> T:
    """The one place that opens bytes from outside. Raises Malformed, also when an object has one member twice.

    `once` may prove of what was found, cheaper than a second look at the bytes, that no member can stand twice in them.
    """
    _refuse_endless(body)
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


def literal(value: str | msgspec.Raw) -> str:
    """A number, in a string or not, as it was written. Raises Malformed for what is neither."""
    if isinstance(value, str):
        return value
    text = bytes(value)
    if text[:1] == b'"':
        try:
            return _TEXT.decode(text)
        except msgspec.DecodeError:
            raise Malformed(Quoting("not a text: {}", text, glimpse)) from None
    if text[:1] not in b"-0123456789" or not text:
        raise Malformed(Quoting("neither a number nor a string: {}", text, glimpse))
    return text.decode()


def base_units(value: str | msgspec.Raw) -> str:
    """Canonical amount of a whole number of base units, `"6.5E+12"` too. Raises Malformed.

    A JSON number where a string is documented counts as long as no reader on its way can have rounded it.
    """
    if isinstance(value, msgspec.Raw) and _PLAIN.fullmatch(value):
        return bytes(value)[1:-1].decode()  # nearly every amount takes this path
    text = literal(value)
    amount = canonical(text) if _BASE.fullmatch(text) else token_units(text)
    if "." in amount or len(amount) > 78:
        raise Malformed(quoting("not a whole number of base units: {}", text))
    if isinstance(value, msgspec.Raw) and bytes(value)[:1] != b'"' and int(amount) > MOST_IN_A_NUMBER:
        raise Malformed(quoting("a number that may have been rounded, where a string is due: {}", text))
    return amount


def token_units(text: str) -> str:
    """Canonical amount of a decimal number in a string. Raises Malformed."""
    if not _DECIMAL.fullmatch(text):
        raise Malformed(quoting("not a decimal amount: {}", text))
    try:
        return canonical(text)
    except AmountError as error:
        raise Malformed(str(error)) from None


def quoting(template: str, text: str) -> Quoting[str]:
    """A reason that quotes a text from outside."""
    return Quoting(template, text, lambda text: repr(one_line(text)))


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """The readings, one for each key. Raises Malformed when two readings of one key differ."""
    found: dict[Key, Reading] = {}
    for reading in readings:
        if found.setdefault(reading.key, reading) != reading:
            raise Malformed(f"the answer contradicts itself on {reading.key}")
    return list(found.values())


def named_targets(targets: Sequence[Target]) -> str:
    """The targets of a request in one line, for a reason."""
    rest = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    return "; ".join(str(target) for target in targets[:3]) + rest


def documented_error(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """The body as an error of the shape that the provider documents; None: it has another, and is not its word."""
    if len(body) > MAX_ERROR_BYTES:
        return None
    try:
        return decode(decoder, body)
    except Malformed:
        return None


def is_redirect(response: Response) -> bool:
    """Whether it is a redirect: the API has not answered, whatever stands in the body."""
    return 300 <= response.status < 400


def refuse(request: Request, response: Response, word: str | None, *, wait: float | None = None) -> NoReturn:
    """The failure that an answer without balances stands for, by its status and by whose word it is.

    word: what the provider said, in the shape that it documents for errors. None: the body has another shape, so a
    gateway, a balancer or a page speaks, and nothing follows for our key, our plan or a watch.
    wait: seconds, after too many requests, where no header says how long.
    """
    status = response.status
    if 200 <= status < 300:
        raise Malformed(f"HTTP {status} without balances ({glimpse(response.body)})")
    said = one_line(word) or "no reason given" if word is not None else glimpse(response.body)
    reason = f"HTTP {status}: {said}"
    if status == 429:
        raise Throttled(reason, refusal_wait(response) or wait)
    if is_redirect(response):
        raise Temporary(f"HTTP {status}: a redirect, which is never followed; if it goes on, look at base_url")
    if word is None and 400 <= status < 500:
        raise Temporary(f"{reason}; not in the provider's own words: if it goes on, look at base_url")
    if word is None or not 400 <= status < 500 or status in (407, 408, 425):
        raise Temporary(reason)
    if status in (401, 403):
        raise RefusedCredential(reason)
    if status == 402:
        raise Exhausted(reason)
    raise Misconfigured(f"{reason} (asked for {named_targets(request.targets)})")


def glimpse(body: bytes) -> str:
    """The beginning of an answer, in one line."""
    text = one_line(body[: 200 + LOOK_AHEAD].decode("utf-8", "replace"), 60)
    return f"{len(body)} bytes: {text}" if body else "empty"


def _refuse_endless(body: bytes) -> None:
    """Refuse what would take long to open, whatever is in it. Raises Malformed."""
    if len(body) > MAX_DOCUMENT_BYTES:
        raise Malformed(
            f"{len(body)} bytes in one piece: more than {MAX_DOCUMENT_BYTES} are not opened ({glimpse(body)})"
        )
    if len(body) > MAX_VALUES and len(body.translate(None, _BUT_STRUCTURE)) > MAX_VALUES:
        raise Malformed(f"more than {MAX_VALUES} values in one piece ({glimpse(body)})")


def _refuse_repeated_members(body: bytes) -> None:
    """Refuse JSON in which an object has one member twice: a decoder silently keeps the last.

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
