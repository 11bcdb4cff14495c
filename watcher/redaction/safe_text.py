"""What may stand on a terminal, in a log line or in a reason: text that cannot move a cursor, hide or turn around.

`one_line` is for text from outside, `safe` for a whole line of ours that may hold some. Nothing reaches a screen without one
of them.
"""

import re
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any, TextIO

import msgspec

from watcher.redaction.redactor import SECRETS, WITHHELD

LINE = 4_000
"""Characters of a line, at most."""
LOOK_AHEAD = 800
"""Characters behind those that are shown which are searched for a secret as well: one may be cut by the end."""
MARKS = 3
"""Combining marks on one letter, at most: more of them grow over the lines around."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters and marks by their category, with nothing to see."""
_SELECTORS = re.compile("[\U000e0100-\U000e01ef\ufe00-\ufe0d]")
_UNSAFE_IN_JSON = re.compile(r"[^ -~]")


def one_line(text: str, most: int = 160) -> str:
    """Text from outside for a place in a line: one line, not long, safe for a screen, without any part of a secret.

    It is bounded in time, however long the text is: only what is shown is looked at, and a part behind it.
    """
    head = text[: 4 * most + LOOK_AHEAD]
    if SECRETS.leaks(head):  # before it is cut, perhaps inside the secret
        return WITHHELD
    return safe(" ".join(SECRETS.masked(head)[: 4 * most].split()), most)


def safe(text: str, most: int = LINE) -> str:
    """The same with an escape for every character that is not plainly seen where it stands."""
    if len(text) <= most and text.isascii() and text.isprintable():
        return text
    return _cut("".join(_visible(text[: most + 1])), most)


def safe_line(text: str) -> str:
    """A line that may repeat what came from outside, such as an error's: safe, and without a secret."""
    head = text[: LINE + LOOK_AHEAD]
    return safe(str(SECRETS.scrubbed(head)))


def print_line(line: str, file: TextIO | None = None) -> None:
    """Print one line to stdout, or to `file`."""
    print(safe_line(line), file=file or sys.stdout, flush=True)


def coloured(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether it takes colours: a terminal does that can (`TERM`), unless its user wants none (https://no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def paragraph(text: str) -> str:
    """Several lines of ours, such as a traceback, each safe for a screen."""
    return "\n".join(map(safe, text.split("\n")))


def json(text: str) -> str:
    """A line of JSON without secrets, with JSON's own escape for every character that is not plainly seen."""
    return _json_escaped(str(SECRETS.scrubbed(text)))


def json_document(document: object) -> str:
    """As JSON over several lines, each with JSON's own escapes. A text in it that repeats a part of a secret is withheld, and no
    whole line: what is left would be no JSON. Names of fields are ours."""
    shown = msgspec.json.encode(_without_secrets(msgspec.to_builtins(document)))
    return "\n".join(map(_json_escaped, msgspec.json.format(shown, indent=2).decode().split("\n")))


def width(text: str) -> int:
    """Columns that it takes on a screen."""
    if text.isascii():
        return len(text)
    return sum(0 if _is_mark(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def pad_right(text: str, columns: int) -> str:
    """Padded behind, as `str.ljust` does for letters that are one column wide."""
    return text + " " * (columns - width(text))


def pad_left(text: str, columns: int) -> str:
    """Padded before, as `str.rjust` does for letters that are one column wide."""
    return " " * (columns - width(text)) + text


def _visible(text: str) -> list[str]:
    found: list[str] = []
    marks = 0
    for letter in text:
        marks = marks + 1 if _is_mark(letter) else 0
        lone = marks == 1 and (not found or found[-1] == " ")
        found.append(letter if _is_safe(letter) and marks <= MARKS and not lone else _escape(letter))
    return found


def _is_safe(letter: str) -> bool:
    return letter.isprintable() and letter not in _BLANK and not _SELECTORS.match(letter)


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter) in ("Mn", "Me")


def _escape(letter: str) -> str:
    """As Python writes it: `\\x1b`, `\\u202e`."""
    return letter.encode("unicode_escape").decode()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(part) for name, part in value.items()}
    if isinstance(value, list):
        return list(map(_without_secrets, value))
    return SECRETS.scrubbed(value)


def _json_escaped(text: str) -> str:
    return _UNSAFE_IN_JSON.sub(lambda found: found[0] if _is_safe(found[0]) else _json_escape(found[0]), text)


def _json_escape(letter: str) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(letter.encode("utf-16-le", "surrogatepass")).cast("H"))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
