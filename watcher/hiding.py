"""What this process must never show: keys and tokens, whole or in part, plain or escaped.

Texts of our own are cleaned of whole secrets. A text from outside may repeat a secret in any disguise and be cut in the
middle of it, so it is withheld as a whole, and before it is cut.
"""

import base64
import contextlib
import html
import re
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any
from urllib.parse import unquote

RUN = 8
"""So many characters of a secret in a row are a part of it; fewer stand in many a text by chance."""
WITHHELD = "(withheld: it repeats a part of a key)"
LAYERS = 3
"""Of escapes that are undone, one around another."""

_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)


class Redaction:
    """Knows the secrets. As a processor of structlog it puts `***` where one stands, at any depth of the event."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets: list[str] = []
        self._runs: frozenset[str] = frozenset()
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """These as well, from now on."""
        # The longest first, so that a secret that contains another one leaves no tail behind.
        self._secrets = sorted({*self._secrets, *filter(None, secrets)}, key=len, reverse=True)
        self._runs = frozenset(
            run
            for secret in self._secrets
            if len(secret) >= RUN
            for plain in (*_plain(secret), *_opened(secret))
            for run in _runs(plain)
        )

    def __call__(self, _logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: self.clean(value) for key, value in event.items()}

    def clean(self, value: Any) -> Any:
        """The same with `***` for each whole secret."""
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, "***")
            return value
        if isinstance(value, dict):
            return {key: self.clean(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(part) for part in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.clean(str(value)) if self._secrets else value

    def betrayed(self, text: str) -> bool:
        """Whether RUN characters of a secret in a row stand in it, in any case, plain or escaped (JSON, percent, HTML)."""
        return bool(self._runs) and any(run in self._runs for plain in _plain(text) for run in _runs(plain))

    def shown(self, text: str) -> str:
        """A text from outside as it may be shown."""
        return WITHHELD if self.betrayed(text) else str(self.clean(text))


def _runs(text: str) -> Iterator[str]:
    folded = text.casefold()
    return (folded[i : i + RUN] for i in range(len(folded) - RUN + 1))


def _opened(secret: str) -> Iterator[str]:
    """What stands in a secret that is text in base64, as those of bloXroute are."""
    with contextlib.suppress(ValueError):
        if (text := base64.b64decode(secret, validate=True).decode("ascii")).isprintable():
            yield text


def _plain(text: str) -> Iterator[str]:
    """The text as it is, and with one layer of escapes after another undone."""
    yield text
    for _ in range(LAYERS):
        plain = html.unescape(unquote(_ESCAPED.sub(_letter, text)))
        if plain == text:
            return
        text = plain
        yield text


def _letter(escaped: re.Match[str]) -> str:
    digits = escaped[1] or escaped[2]
    return chr(int(digits, 16)) if digits else escaped[3]


HIDDEN = Redaction(())
"""What this process hides. Keys that a reload brings are added; those of before stay hidden."""
