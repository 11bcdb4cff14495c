"""How an answer says "wait", under any status: `Retry-After`, the IETF's `RateLimit`, and `x-ratelimit-reset` of a refusal.

A header that is nonsense says nothing; of several that make sense the longest counts. Times of day are measured by the
answer's own `Date`, since its clock need not be ours.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime

from watcher.providers.protocol import Response

LONGEST_WAIT = 3600.0
"""Seconds. A provider that says more is asked again after an hour: it may have meant something else."""
FARTHEST = 86_400.0
"""Seconds. A reset that lies farther ahead is in another unit, or none."""
SENSIBLE = 1_577_836_800.0
"""Unix seconds: 2020. A clock that says less has never been set."""
YEAR = 31_536_000.0
"""Seconds. A longer wait is no duration but a time of day."""
LONGEST_FIELD = 2000
"""Characters of a structured field that are looked at."""

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_MEMBER = re.compile(r"\s*((?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,)?[^,]*)")
"""Of a list: a date holds a comma itself."""

# Structured fields (RFC 9651): a list of items with parameters, and a dictionary of items.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_WORD = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
_BARE = rf"(?:{_STRING}|{_WORD}|-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|:[A-Za-z0-9+/=]*:|\?[01]|@-?[0-9]{{1,15}})"
_PARAMETERS = rf"(?:; *{_KEY}(?:={_BARE})?)*"
_ITEM = re.compile(rf"({_STRING}|{_WORD})({_PARAMETERS})")
_ENTRY = re.compile(rf"({_KEY})=({_BARE}){_PARAMETERS}")
_PARAMETER = re.compile(rf"; *({_KEY})(?:=({_BARE}))?")
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def server_clock(response: Response) -> float:
    """Unix seconds by the clock of whoever answered: its `Date`, where that makes sense, else ours at arrival."""
    dates = _dates(response.headers.get("date", ""))
    return next((date for date in dates if date >= SENSIBLE), response.wall)


def retry_after(response: Response) -> float | None:
    """Seconds to wait by `Retry-After` (seconds or HTTP date), at most an hour; None: it does not say."""
    text = response.headers.get("retry-after", "")
    if not text:
        return None
    now = server_clock(response)
    return _longest((*_numbers(text), *(date - now for date in _dates(text))))


def spent(response: Response) -> float | None:
    """Seconds until a quota that is used up is there again, by `RateLimit` as it is and as it was; at most an hour.

    None: nothing is used up, or the answer does not say. `RateLimit-Policy` gives the window where no time is given.
    """
    headers = response.headers
    waits = [*_by_items(headers.get("ratelimit", ""), headers.get("ratelimit-policy", ""))]
    old = _entries(headers.get("ratelimit", ""))
    if old.get("remaining") == 0.0 and "reset" in old:
        waits.append(old["reset"])
    remaining = _numbers(headers.get("ratelimit-remaining", ""))
    if 0.0 in remaining:
        waits.extend(_numbers(headers.get("ratelimit-reset", "")))
    return _longest(wait for wait in waits if wait <= YEAR)


def requested_wait(response: Response) -> float | None:
    """Seconds for which the headers ask for no request, whatever the status: the longest of the above; None: they do not."""
    return _longest(wait for wait in (retry_after(response), spent(response)) if wait is not None)


def refusal_wait(response: Response) -> float | None:
    """Seconds to wait after too many requests: as above, else by `x-ratelimit-reset` (Unix seconds)."""
    asked = requested_wait(response) if response.wait is None else response.wait
    return _reset(response) if asked is None else asked


def _reset(response: Response) -> float | None:
    now = server_clock(response)
    waits = (moment - now for moment in _numbers(response.headers.get("x-ratelimit-reset", "")))
    return _longest(wait for wait in waits if wait <= FARTHEST)


def _longest(waits: Iterable[float]) -> float | None:
    sensible = [wait for wait in waits if wait > 0]
    return min(max(sensible), LONGEST_WAIT) if sensible else None


def _members(text: str) -> Iterator[str]:
    """Of a field that came once or several times."""
    return (found[1].strip() for found in _MEMBER.finditer(text[:LONGEST_FIELD]))


def _numbers(text: str) -> list[float]:
    return [float(member) for member in _members(text) if _NUMBER.fullmatch(member)]


def _dates(text: str) -> list[float]:
    """Unix seconds."""
    found = []
    for member in _members(text):
        try:
            moment = parsedate_to_datetime(member)
            found.append((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, IndexError, TypeError, OverflowError):
            continue
    return found


def _by_items(limits: str, policies: str) -> Iterator[float]:
    windows = {name: given["w"] for name, given in _items(policies) if "w" in given}
    for name, given in _items(limits):
        wait = given.get("t", windows.get(name))
        if given.get("r") == 0.0 and wait is not None:
            yield wait


def _items(text: str) -> list[tuple[str, dict[str, float]]]:
    """Names and whole numbers of a structured list; empty when any part of it is none."""
    return [
        (found[1].strip('"'), {name: float(value) for name, value in _PARAMETER.findall(found[2]) if value.isdecimal()})
        for found in _parsed(text, _ITEM)
    ]


def _entries(text: str) -> dict[str, float]:
    """Whole numbers of a structured dictionary; empty when any part of it is none."""
    return {found[1]: float(found[2]) for found in _parsed(text, _ENTRY) if found[2].isdecimal()}


def _parsed(text: str, part: re.Pattern[str]) -> list[re.Match[str]]:
    text, place, found = text.strip(" "), 0, []
    if len(text) > LONGEST_FIELD:
        return []
    while place < len(text):
        one = part.match(text, place)
        comma = _COMMA.match(text, one.end()) if one else None
        if one is None or (comma is None and one.end() < len(text)) or (comma and comma.end() == len(text)):
            return []
        found.append(one)
        place = comma.end() if comma else len(text)
    return found
