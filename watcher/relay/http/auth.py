"""Who may see what: bearer tokens, compared as digests in constant time, and the rights bound to them.

A filter is not an authorization: what a connection sees is the intersection of what it asks for and its rights.
"""

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from watcher.model import filters
from watcher.model.keys import Filter
from watcher.redaction import secret
from watcher.relay.settings import RelaySettings, is_loopback
from watcher.runtime import small_file
from watcher.runtime.config_section import SettingsError

EVERYTHING = Filter()
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""Of a token: it stands in metrics and on terminals."""
SHOWN = 8
"""Digits of a digest that may be shown: too few to try tokens against, enough to find it in the file."""
FILE_BYTES = 16 * 1024 * 1024
"""Of a tokens file: a hundred thousand tokens."""
PORTS = {"http": 80, "https": 443}
GUESSED = frozenset(
    hashlib.sha256(word + end).digest()
    for word in (b"", b"$TOKEN", b"TOKEN", b"token", b"test")
    for end in (b"", b"\n")
)
"""Digests that stand in a file by mistake: of a variable that was not set or not filled in, and of the first try."""


class TokenTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[token]]` of a tokens file. A list that is left out narrows nothing."""

    sha256: str
    name: str | None = None
    """What its hints are counted under; left out: the first digits of `sha256`."""
    provider: list[str] | None = None
    chain: list[str] | None = None
    account: list[str] | None = None
    token: list[str] | None = None
    hint: bool | None = None
    """Whether it may send hints; left out: only if nothing narrows it."""

    def rights(self) -> Filter:
        """Raises FilterError."""
        given = {name: values for name in filters.PARTS if (values := getattr(self, name)) is not None}
        filters.require_chains(self.chain or ())
        return filters.parse(given)


class KnownToken(NamedTuple):
    """A token as the relay keeps it."""

    digest: bytes
    """Its SHA-256."""
    rights: Filter
    may_hint: bool = True
    sender: str = ""
    """What its hints are counted under; empty for tokens of the environment, which are counted together."""


NO_TOKEN = KnownToken(b"", EVERYTHING)
"""What everybody has where no tokens are asked for."""


class TokensFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: list[TokenTable]


class Tokens:
    """All tokens that open this relay, by their SHA-256."""

    def __init__(self, known: Iterable[KnownToken]) -> None:
        self._known = list(known)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def senders(self) -> frozenset[str]:
        """Under which hints may be counted."""
        return frozenset(each.sender for each in self._known if each.may_hint and each.sender)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and set(self._known) == set(other._known)

    __hash__ = None  # type: ignore[assignment]

    def replace(self, others: "Tokens") -> None:
        """From now on these. The rights of one that is as it was are the same object as before: `granted` knows them by that."""
        before = {(each.digest, each.rights): each.rights for each in self._known}
        self._known = [
            each._replace(rights=before.get((each.digest, each.rights), each.rights))
            for each in others._known  # noqa: SLF001
        ]

    def granted(self, rights: Filter) -> bool:
        """Whether they are those of a token that is ours still."""
        return any(rights is each.rights for each in self._known)

    def find(self, token: bytes) -> KnownToken | None:
        """None for a token that is not ours. Takes as long for either."""
        digest = hashlib.sha256(token).digest()
        found = None
        for known in self._known:
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def rights(self, token: bytes) -> Filter | None:
        """What the token allows; None for a token that is not ours."""
        found = self.find(token)
        return None if found is None else found.rights


def load(settings: RelaySettings, environ: Mapping[str, str]) -> Tokens | None:
    """The tokens that the settings name; None when they name none. Raises SettingsError."""
    known: list[KnownToken] = []
    if settings.tokens_env is not None:
        known += _from_environment(settings.tokens_env, environ)
    if settings.tokens_file is not None:
        known += _from_file(Path(settings.tokens_file), known)
    return Tokens(known) if known else None


def _from_environment(name: str, environ: Mapping[str, str]) -> list[KnownToken]:
    found = secret.several("[relay] tokens_env", name, environ, secret.token)
    if not found:
        raise SettingsError(
            f"[relay] tokens_env names {name}, which is empty: put the tokens there, separated by commas"
        )
    return [KnownToken(hashlib.sha256(token.reveal().encode()).digest(), EVERYTHING) for token in found]


def _from_file(path: Path, others: Sequence[KnownToken]) -> list[KnownToken]:
    """`others`: those of the environment."""
    try:
        table = tomllib.loads(small_file.read(path, FILE_BYTES).decode("utf-8"))
        tokens = msgspec.convert(table, TokensFile).token
        found = [_known(token) for token in tokens]
        _require_apart(found, others)
    except small_file.Pipe:
        raise SettingsError(f"[relay] tokens_file {path} is a pipe: name a file") from None
    except OSError as error:
        raise SettingsError(
            f"[relay] tokens_file {path} cannot be read ({error.strerror}): look at its name and rights"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"[relay] tokens_file {path}: {error}") from error
    if not found:
        raise SettingsError(f"[relay] tokens_file {path} holds no [[token]]: add one")
    return found


def _known(token: TokenTable) -> KnownToken:
    rights, digest = token.rights(), _digest(token.sha256)
    may_hint = rights == EVERYTHING if token.hint is None else token.hint
    if token.name is None:
        return KnownToken(digest, rights, may_hint, digest.hex()[:SHOWN])
    if not NAME.fullmatch(token.name):
        raise ValueError(f"name of the token {token.sha256[:SHOWN]}…: write 1 to 32 of letters, digits, - and _")
    return KnownToken(digest, rights, may_hint, token.name)


def _require_apart(known: Sequence[KnownToken], others: Sequence[KnownToken]) -> None:
    """That no two tokens have one name, and no name is a token, nor one of those that have no name. The same token twice is one."""
    names: dict[str, bytes] = {}
    digests = {each.digest for each in (*known, *others)}
    for each in known:
        if names.setdefault(each.sender, each.digest) != each.digest:
            raise ValueError(f'two tokens are called {each.sender}: write another name = "…" into one of them')
        if hashlib.sha256(each.sender.encode()).digest() in digests:
            raise ValueError(
                f"name of the token {each.digest.hex()[:SHOWN]}… is a token, which would be shown: write another name"
            )


def _digest(text: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError("sha256 is the 64 hex digits that `printf %s TOKEN | sha256sum` prints")
    digest = bytes.fromhex(text)
    if digest in GUESSED:
        raise ValueError(
            f"sha256 {text[:SHOWN]}… is that of a token that anybody would try, or of none: make a token by chance"
        )
    return digest


def bearer(header: str) -> bytes | None:
    """The token in an `Authorization` header as its bytes on the wire; None for another scheme."""
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    return token.strip().encode("latin-1", errors="surrogateescape")


def known_hosts(settings: RelaySettings) -> frozenset[str]:
    """What the relay is called besides its loopback addresses."""
    return frozenset(
        {"localhost", settings.host.lower(), *(urlsplit(origin).hostname or "" for origin in settings.origins)}
    )


def is_known_host(host: str, known: frozenset[str]) -> bool:
    """Whether a `Host` header, whatever its port, has one of these names or a loopback address.

    A page whose own name was made to resolve to this machine (DNS rebinding) is of the same origin as the relay, as
    far as its browser can tell; but it has to send that name.
    """
    try:
        name = urlsplit(f"//{host}").hostname
        return name is not None and (name in known or is_loopback(name))
    except ValueError:
        return False


def same_origin(origin: str, host: str) -> bool:
    """Whether a page from `origin` was served by whoever answers to this `Host` header.

    Only host and port are compared: behind a proxy that ends TLS the schemes differ.
    """
    try:
        page = urlsplit(origin)
        port = page.port or PORTS[page.scheme]
        here = urlsplit(f"//{host}")
        return bool(page.hostname) and page.hostname == here.hostname and port == (here.port or PORTS[page.scheme])
    except (KeyError, ValueError):
        return False


class Guard:
    """Who may ask at this port: under which name of it, from which page, with which token."""

    def __init__(self, settings: RelaySettings, tokens: Tokens | None) -> None:
        self.tokens: Tokens | None = None
        self.use(settings, tokens)

    def use(self, settings: RelaySettings, tokens: Tokens | None) -> None:
        """From now on these. Whoever has our tokens has the new ones."""
        if self.tokens is not None and tokens is not None:
            self.tokens.replace(tokens)
        else:
            self.tokens = tokens
        self._origins = settings.origins
        self._hosts = known_hosts(settings)

    @property
    def asks_for_tokens(self) -> bool:
        return self.tokens is not None

    def answers_to(self, host: str) -> bool:
        """Without tokens a `Host` of somebody else's is refused; see `is_known_host`."""
        return self.tokens is not None or is_known_host(host, self._hosts)

    def rights(self, authorization: str | None) -> Filter | None:
        """What that header allows: everything where no tokens are asked for; None without a valid one."""
        found = self.find(authorization)
        return None if found is None else found.rights

    def may_hint(self, authorization: str | None) -> Filter | None:
        """Of what that header allows hints to be sent: what `rights` gives, or None where its token has no right to hint."""
        found = self.find(authorization)
        return None if found is None or not found.may_hint else found.rights

    def digest(self, authorization: str | None) -> bytes:
        """Of the token in that header; empty without one of ours."""
        found = self.find(authorization)
        return b"" if found is None else found.digest

    def find(self, authorization: str | None) -> KnownToken | None:
        """The token in that header; None without a valid one. Where no tokens are asked for, one that allows everything."""
        if self.tokens is None:
            return NO_TOKEN
        token = bearer(authorization) if authorization is not None else None
        return None if token is None else self.tokens.find(token)

    def grants(self, rights: Filter | None) -> bool:
        """Whether who has been given them has them still. None: nothing was given."""
        return self.tokens is None or rights is None or self.tokens.granted(rights)

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether pages of that origin may open a stream, and send hints."""
        return origin in self._origins or same_origin(origin, host)
