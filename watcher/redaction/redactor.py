"""What this process must never show: keys and tokens, whole or in part, plain or in disguise.

Texts of our own are cleaned of whole secrets. A text from outside may repeat a secret in any disguise and be cut in the
middle of it, so it is withheld as a whole, and before it is cut. To find one, text and secret are brought to the same
normal forms: escapes, percent-encoding, base64 and hex undone, without what nobody sees, without what may split a key.
"""

import base64
import bisect
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any
from urllib.parse import unquote

WINDOW_LENGTH = 8
"""So many characters of a secret in a row are a part of it; fewer stand in many a text by chance."""
BASE64_LENGTH = 11
"""Letters of base64 that WINDOW_LENGTH characters take."""
SHORTEST = 4
"""A secret of fewer characters is not blotted out: its letters stand everywhere."""
WITHHELD = "(withheld: it repeats a part of a key)"
LEFT_OUT = "(lines in between are left out)"
MAX_LAYERS = 6
"""Of disguises that are undone, one around another. What has more is withheld unread."""
MAX_LENGTH = 32_768
"""Characters that are looked at. A longer text is withheld unread: reading it would hold up everybody."""
OWN_FIELDS = frozenset({"timestamp", "level"})
"""Fields of an event that nobody but us writes."""

ALLOWED_WORDS = (
    "api_key_env",
    "api_key_file",
    "tokens_env",
    "tokens_file",
    "sasl_password_env",
    "sasl_password_file",
    "ssl_key_password_env",
    "secret_env",
    "url_file",
    "secret_file",
    "https://",
    "balance-watcher",
    "watcher.toml",
)
"""Words of our own messages. They betray nothing of a key that is called `my-api-key-env` or `balance-watcher-token`."""

_ESCAPED = re.compile(
    r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|([0-7]{3})|(.))", re.DOTALL
)
_MARK = re.compile(r"[\\%&]")
_SPACES = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " ", "v": " ", "0": " "}
_TAG = re.compile(r"<[^<>]{0,200}>")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS = {**dict.fromkeys([*range(32), 127]), **dict.fromkeys(range(9, 14), " ")}
_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Mn", "Me"})
_SEPARATORS = re.compile(r"[\W_]+")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]+")
_HEX = re.compile(r"[0-9a-f]{16,}")
_WORDS = re.compile(rb"[ -~]{8,}")


class Redactor:
    """Knows the secrets. As a processor of structlog it lets none through, at any depth of the event."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        self._windows: frozenset[str] = frozenset()
        self._allowed: frozenset[str] = frozenset()
        self.allow(ALLOWED_WORDS)
        self.add(secrets)

    def allow(self, names: Iterable[str]) -> None:
        """Names that we show ourselves, such as that of a variable: what a secret has in common with them betrays nothing."""
        self._allowed = self._allowed.union(_all_windows(names))
        self._windows -= self._allowed

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these as well, from now on."""
        new = {secret for secret in secrets if len(secret) >= SHORTEST}.difference(self._secrets)
        if not new:
            return
        # The longest first, so that a secret that contains another one leaves no tail behind.
        self._secrets = sorted([*self._secrets, *new], key=len, reverse=True)
        self._windows = self._windows.union(_all_windows(new)) - self._allowed

    def __call__(self, _logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: value if key in OWN_FIELDS else self.scrubbed(value) for key, value in event.items()}

    def scrubbed(self, value: Any) -> Any:
        """The same with `***` for each whole secret; a text that holds a part of one nevertheless is withheld."""
        if isinstance(value, str):
            return self._scrubbed(self.masked(value) if len(value) <= MAX_LENGTH else value)
        if isinstance(value, dict):
            return {self.scrubbed(str(key)): self.scrubbed(part) for key, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.scrubbed(part) for part in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.scrubbed(str(value))

    def _scrubbed(self, text: str) -> str:
        """Of a traceback only the lines that need it are withheld, unless a part stands across several.

        Of one that is too long its beginning and its end are kept, which say what went wrong.
        """
        if not self.leaks(text):
            return text
        if len(text) > MAX_LENGTH:
            beginning = text[: MAX_LENGTH // 2].rpartition("\n")[0]
            end = text[-MAX_LENGTH // 2 :].partition("\n")[2]
            if not (beginning and end):
                return WITHHELD
            return f"{self.scrubbed(beginning)}\n{LEFT_OUT}\n{self.scrubbed(end)}"
        lines = "\n".join(WITHHELD if self.leaks(line) else line for line in text.split("\n"))
        return WITHHELD if self.leaks(lines) else lines

    def masked(self, text: str) -> str:
        """The same with `***` for each whole secret."""
        # What is longer than the text stands first and is passed over: a relay may have thousands of tokens, and a listing
        # as many symbols.
        for secret in self._secrets[bisect.bisect_left(self._secrets, -len(text), key=lambda secret: -len(secret)) :]:
            text = text.replace(secret, "***")
        return text

    def leaks(self, text: str) -> bool:
        """Whether WINDOW_LENGTH characters of a secret in a row stand in it, in any case and disguise, or may stand there."""
        if not self._windows or len(text) < WINDOW_LENGTH:
            return False
        if len(text) > MAX_LENGTH:
            return True
        return any(form is None or not self._windows.isdisjoint(_windows(form)) for form in _disguises(text))

    def redacted(self, text: str) -> str:
        """A text from outside as it may be shown."""
        return WITHHELD if self.leaks(text) else self.masked(text)


def _all_windows(texts: Iterable[str]) -> Iterator[str]:
    return (window for text in texts for form in _disguises(text) if form is not None for window in _windows(form))


def _windows(form: str) -> Iterator[str]:
    return (form[i : i + WINDOW_LENGTH] for i in range(len(form) - WINDOW_LENGTH + 1))


def _disguises(text: str) -> Iterator[str | None]:
    """All that the text may stand for, as it is compared: one layer of disguise after another undone.

    None at the end: there are more layers than are undone.
    """
    texts, seen = [text], {text}
    for _ in range(MAX_LAYERS):
        below: list[str] = []
        for one in texts:
            plain = _visible(_COLOUR.sub("", one))
            if len(plain) > MAX_LENGTH:
                yield None
            yield from _normalized(plain)
            if "<" in plain:
                yield from _normalized(_TAG.sub("", plain))
            below += (_unescaped(plain), *_decoded(plain))
        texts = [one for one in dict.fromkeys(below) if one not in seen and len(one) >= WINDOW_LENGTH]
        seen.update(texts)
        if not texts:
            return
    yield None


def _normalized(plain: str) -> Iterator[str]:
    """Without spaces, and without all that may stand between the parts of a key that was split; no difference of case."""
    tight = "".join(plain.split()).casefold()
    yield tight
    bare = _SEPARATORS.sub("", tight)
    if bare != tight:
        yield bare


def _visible(text: str) -> str:
    """Without what nobody sees; letters of any width and with any mark as the plain ones."""
    if text.isascii():
        return text.translate(_CONTROLS)
    letters = unicodedata.normalize("NFKD", text)[: MAX_LENGTH + 1].translate(
        _CONTROLS
    )  # some letters are made of many
    return "".join(letter for letter in letters if letter.isascii() or unicodedata.category(letter) not in _UNSEEN)


def _unescaped(text: str) -> str:
    """One layer of escapes undone: JSON and programs, percent, HTML."""
    if not _MARK.search(text):
        return text
    return html.unescape(unquote(_ESCAPED.sub(_letter, text)))


def _letter(escaped: re.Match[str]) -> str:
    digits = escaped[1] or escaped[2] or escaped[3] or escaped[4]
    if digits or escaped[5]:
        number = int(digits, 16) if digits else int(escaped[5], 8)
        return chr(number) if number <= 0x10FFFF else ""
    return _SPACES.get(escaped[6], escaped[6])


def _decoded(text: str) -> Iterator[str]:
    """The words in it that are written in base64 or in hex, wherever they begin and however they are split."""
    letters = _NOT_BASE64.sub("", text.replace("-", "+").replace("_", "/"))
    for start in range(4) if len(letters) >= BASE64_LENGTH else ():
        whole = letters[start : start + (len(letters) - start) // 4 * 4]
        yield from _words(base64.b64decode(whole))
    if len(text) < 2 * WINDOW_LENGTH:
        return
    for digits in _HEX.findall(_SEPARATORS.sub("", text.casefold().replace("0x", ""))):
        for start in range(2):
            yield from _words(bytes.fromhex(digits[start : start + (len(digits) - start) // 2 * 2]))


def _words(data: bytes) -> Iterator[str]:
    return (word.decode("ascii") for word in _WORDS.findall(data.replace(b"\0", b"")))


SECRETS = Redactor()
"""What this process hides. Keys that a reload brings are added; those of before stay hidden."""
