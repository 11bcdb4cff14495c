"""A secret: read in one way from wherever it stands, hidden from then on, and shown as stars by whatever prints it.

It is hidden by being read, so nobody has to keep a list of what there is to hide.
"""

import contextlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from watcher.redaction.redactor import SECRETS, SHORTEST
from watcher.runtime import small_file
from watcher.runtime.config_section import SettingsError

LONGEST = 8192
"""Bytes: what a header can carry. What is longer is no key."""
STARS = "***"

_NAME = re.compile(
    r"(?=[A-Z_])(?=.{1,100}\Z)(?>[A-Z]+(?![0-9])|[A-Z0-9]{0,15})(?:_(?>[A-Z]+(?![0-9])|[A-Z0-9]{0,15}))*"
)
"""A variable's name that is surely none of the keys that people write where the name belongs: in a key of capitals, letters
and digits are mixed for longer."""
_PATH = re.compile(r".*[/.\\].*", re.DOTALL)
SHORT_PATH = 32
"""A path of at most so many characters may be shown wherever it leads: keys that look like a path are longer."""
_QUOTES = "\"'`´‘’‚‛“”„‟«»‹›"
_ASSIGNED = re.compile(r"^(?:export\s+[A-Za-z_][A-Za-z0-9_]*|[A-Z][A-Z0-9]*_[A-Z0-9_]*)=(?!=*$)")
"""A variable and its value. It is shown, so it must be nothing that may begin a key with `=` in it."""
_HEADED = re.compile(r"^(?:Bearer\s+|(?:Authorization|X-API-Key|API-Key):\s*)", re.IGNORECASE)

log = structlog.get_logger()

Judge = Callable[[str], str | None]
"""What is wrong with a value, to be put behind `NAME …`; None: nothing is. It never contains the value."""


class Secret:
    """A key, a token or a password. Only `reveal` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        SECRETS.add([value])
        self._value = value

    def reveal(self) -> str:
        """The value itself, for whom it is meant."""
        return self._value

    def __repr__(self) -> str:
        return STARS

    def __format__(self, spec: str) -> str:
        return format(STARS, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._bytes(), other._bytes())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written down")

    def _bytes(self) -> bytes:
        return self._value.encode("utf-8", "surrogatepass")


def read(
    what: str, environment: Mapping[str, str], *, env: str | None, file: str | None = None, judge: Judge | None = None
) -> Secret | None:
    """The secret that a config names by variable or by file; None when it names neither. Raises SettingsError.

    `what`: the keys without their endings, as in "[kafka] sasl_password" for sasl_password_env and sasl_password_file.
    """
    if env is not None and file is not None:
        raise SettingsError(f"{what}_env and {what.rpartition(' ')[2]}_file are both given: keep one")
    if env is not None:
        return of_variable(f"{what}_env", env, environment, judge)
    return None if file is None else of_file(f"{what}_file", file, judge)


def of_variable(what: str, name: str, environment: Mapping[str, str], judge: Judge | None = None) -> Secret:
    """The secret in that variable. `what`: the key of the config that names it. Raises SettingsError."""
    where, text = _variable(what, name, environment)
    return _checked(where, text, judge)


def several(what: str, name: str, environment: Mapping[str, str], judge: Judge | None = None) -> list[Secret]:
    """The secrets in that variable, separated by commas. Raises SettingsError."""
    where, text = _variable(what, name, environment)
    parts = [part.strip() for part in text.split(",")]
    SECRETS.add(map(_core, parts))  # all before one of them is complained of
    return [_checked(where, part, judge) for part in parts if part]


def of_file(what: str, path: str, judge: Judge | None = None) -> Secret:
    """The secret in that file, without a byte order mark and spaces or line ends around it. Raises SettingsError."""
    shown = path if _is_path(path) else "a file (its name is not told: it may be the key itself)"
    try:
        data = small_file.read(path, LONGEST)
    except (small_file.NotRegular, IsADirectoryError):
        raise SettingsError(f"{what} names {shown}, which is no regular file") from None
    except small_file.TooLong:
        raise SettingsError(f"{what} names {shown}, which holds more than {LONGEST} bytes: that is no key") from None
    except OSError as error:
        raise SettingsError(f"{what} cannot be read: {error.strerror or type(error).__name__}: {shown}") from None
    except ValueError:  # a NUL in the name
        raise SettingsError(f"{what} names no file") from None
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise SettingsError(f"{what} names {shown}, which is not UTF-8: write the key into it as plain text") from None
    if not text:
        raise SettingsError(f"{what} names {shown}, which is empty")
    return _checked(f"{what} names {shown}, which", text, judge)


def _is_path(text: str) -> bool:
    """Whether it is surely a path and no key that was written in its place: those of base64 and JWT have `/` and `.` too."""
    if not _PATH.fullmatch(text):
        return False
    if len(text) <= SHORT_PATH or text.startswith(("/", "./", "../")):
        return True
    with contextlib.suppress(OSError, ValueError):
        return Path(text).parent != Path() and Path(text).parent.is_dir()
    return False


def _variable(what: str, name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """How a complaint of its value begins, and its value."""
    text = environment.get(name)
    if text is None and not _NAME.fullmatch(name):
        raise SettingsError(
            f"{what} names no variable that is set (what stands there is not told: it may be the key itself): "
            f"write the name of a variable, as in {_example(what.rsplit(maxsplit=1)[-1])}, and export MY_KEY=…"
        )
    if text is None or not text.strip():
        raise SettingsError(f"{what} names {name}, which is {'not set' if text is None else 'empty'}: export {name}=…")
    SECRETS.allow([name])
    return f"{what} names {name}, which", text.removeprefix("\ufeff").strip()


def _example(place: str) -> str:
    return f"{place} MY_KEY" if place.startswith("--") else f'{place} = "MY_KEY"'


def _checked(where: str, text: str, judge: Judge | None) -> Secret:
    if len(text) > LONGEST:
        raise SettingsError(f"{where} holds more than {LONGEST} bytes: that is no key")
    if complaint := unfit(text) or (judge and judge(text)):
        SECRETS.add(map(_core, text.splitlines()))
        raise SettingsError(f"{where} {complaint}")
    secret = Secret(text)
    if len(text) < SHORTEST:
        log.warning(
            "secret.short", text=f"{where} is so short that it cannot be blotted out of texts: take a longer one"
        )
    return secret


def _core(text: str) -> str:
    """What is secret of a text that holds more than the secret: a message may tell the rest."""
    for around in (_ASSIGNED, _HEADED):
        text = around.sub("", text.strip().strip(_QUOTES), count=1)
    return text


def unfit(text: str) -> str | None:
    """What no key, token or password has in it."""
    if "\n" in text or "\r" in text:
        return "holds more than one line: leave the key alone there"
    for letter in text:
        if "\udc80" <= letter <= "\udcff":
            return "is not UTF-8: write the key there as plain text"
        if not letter.isprintable() and letter != " ":
            return f"holds a character that cannot be seen ({_character_words(letter)}): copy the key anew, or type it"
    return None


def token(text: str) -> str | None:
    """What is wrong with a token that goes behind `Bearer`: what a header cannot carry, or what does not belong to it."""
    for letter in text:
        if ord(letter) > 255:
            return f"holds a character that no header can carry ({_character_words(letter)}): copy the key anew, or type it"
    if text[0] in _QUOTES and text[-1] in _QUOTES:
        return "has quotation marks around it that would be sent too: leave them out"
    if headed := _HEADED.match(text):
        return f"begins with `{headed[0].strip()}`: leave that out, the key stands there alone"
    return None


def key(text: str) -> str | None:
    """What is wrong with a provider's key, which goes into a header or a URL as it is."""
    if complaint := token(text):
        return complaint
    if "://" in text:
        return "holds a whole address: leave the key alone there"
    if assigned := _ASSIGNED.match(text):
        return f"begins with `{assigned[0]}`: leave that out"
    for letter in text:
        if not " " <= letter <= "~":
            return f"holds a character that no header can carry ({_character_words(letter)}): copy the key anew, or type it"
    return None


def _character_words(letter: str) -> str:
    name = unicodedata.name(letter, "").lower()
    return f"U+{ord(letter):04X} {name}".strip()


def without_user(address: str) -> str:
    """An address with stars for the user and password in it and for its query; what is secret of them is hidden."""
    beginning, mark, query = address.replace("#", "?").partition("?")
    scheme, slashes, rest = beginning.partition("//")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    SECRETS.add([user.partition(":")[2] or user, *(pair.partition("=")[2] for pair in query.split("&"))])
    return "".join((scheme, slashes, STARS if at else "", at, host, slash, path, mark, STARS if mark else ""))
