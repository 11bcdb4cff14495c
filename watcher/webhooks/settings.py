"""The `[[webhook]]` tables of the config: where events are sent, which, and what signs them."""

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import msgspec

from watcher.model import filters
from watcher.model.filters import FilterError
from watcher.model.keys import KINDS, Filter
from watcher.redaction import secret
from watcher.redaction.redactor import SECRETS
from watcher.redaction.secret import Secret
from watcher.runtime.config_section import Mistakes, SettingsError, probably, section
from watcher.webhooks.signing import key_of
from watcher.webhooks.targets import refusal

MOST = 50
"""Webhooks of one config: each reads the log, and has connections of its own."""
MOST_KEYS = 5
"""Secrets of one webhook that sign at the same time."""
LONGEST_URL = 2048
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
EVENTS = ("crossed", "changed")

Values = str | tuple[str, ...] | None


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table, as it is written."""

    name: str | None = None
    """None: the host and port of its `url`."""
    url: str | None = None
    url_env: str | None = None
    """For an address that is a secret itself."""
    url_file: str | None = None
    secret_env: str | None = None
    secret_file: str | None = None
    events: tuple[Literal["crossed", "changed"], ...] = EVENTS  # type: ignore[assignment]
    provider: Values = None
    chain: Values = None
    account: Values = None
    token: Values = None
    kind: Values = None
    label: Values = None
    tag: Values = None
    allow_private: bool = False

    @property
    def title(self) -> str:
        """What it is called in metrics, in log lines and by `webhook test`."""
        return self.name or urlsplit(self.url or "").netloc

    @property
    def wanted(self) -> Filter:
        """Without `kind`, which no filter of the stream has."""
        return Filter(**{name: _values(getattr(self, name)) for name in filters.FIELDS})

    @property
    def kinds(self) -> frozenset[str]:
        return KINDS if self.kind is None else frozenset(_values(self.kind) or ())

    @property
    def note_key(self) -> str:
        """Of the note that keeps its place in the log: who has a name keeps it when the address is another."""
        text = f"url\n{self.url}" if self.name is None else f"name\n{self.name}"
        return f"webhook:{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


class Webhook(msgspec.Struct, frozen=True):
    """One table with what its files and variables hold."""

    settings: WebhookSettings
    place: Secret | str
    """Its address. It is a secret where a file or a variable holds it."""
    secrets: tuple[Secret, ...]
    """All sign: while one is rotated, the one of before and the new one."""

    @property
    def title(self) -> str:
        return self.settings.title

    @property
    def url(self) -> str:
        return self.place.reveal() if isinstance(self.place, Secret) else self.place

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def plain(self) -> bool:
        return urlsplit(self.url).scheme == "http"

    @property
    def keys(self) -> list[bytes]:
        return [key_of(one.reveal()) for one in self.secrets]

    @property
    def fingerprint(self) -> str:
        """Of all that is configured: a receiver that was gone is asked again once this is another."""
        shown = msgspec.json.encode(self.settings, order="sorted")
        parts = [shown, self.url.encode(), *self.keys]
        return hashlib.blake2b(b"\n".join(parts), digest_size=12).hexdigest()


def parse(tables: Any) -> tuple[WebhookSettings, ...]:
    """`tables`: what the config has as `webhook`. Raises SettingsError for each mistake."""
    if not isinstance(tables, list):
        raise SettingsError("`webhook` must hold tables: write [[webhook]] before each", where="webhook")
    if len(tables) > MOST:
        raise SettingsError(
            f"{len(tables)} tables [[webhook]]: write {MOST} at most, and let one receiver hand on to others",
            where="webhook",
        )
    found: list[WebhookSettings] = []
    mistakes = Mistakes()
    for number, table in enumerate(tables):
        with mistakes.gathered():
            one = _table(table, f"webhook[{number}]")
            if one.title in {other.title for other in found}:
                what = f'[[webhook]]: two are called {one.title}: write name = "…" into one of them'
                raise SettingsError(what, where=f"webhook[{number}].name")
            found.append(one)
    mistakes.raise_any()
    SECRETS.allow(one.title for one in found)  # log lines tell them, whatever a URL has in common with them
    return tuple(found)


def load(settings: WebhookSettings, environment: Mapping[str, str]) -> Webhook:
    """With its secrets. Raises SettingsError."""
    where, mistakes = f"[[webhook]] {settings.title}:", Mistakes()
    place: Secret | str | None = settings.url
    keys: tuple[Secret, ...] = ()
    with mistakes.gathered():
        if place is None:
            place = secret.read(
                f"{where} url",
                environment,
                env=settings.url_env,
                file=settings.url_file,
                judge=lambda text: unfit_url(text, allow_private=settings.allow_private),
            )
            assert place is not None, "`parse` has seen to it that the table names one"
            _allow_public_parts(place.reveal())
    with mistakes.gathered():
        whole = secret.read(
            f"{where} secret", environment, env=settings.secret_env, file=settings.secret_file, judge=unfit_secrets
        )
        assert whole is not None, "the same"
        keys = tuple(map(Secret, whole.reveal().split()))
    try:
        mistakes.raise_any()
    except SettingsError as error:
        for one in error.errors:
            one.where = f"webhook.{settings.title}"
        raise
    assert place is not None, "else a mistake was raised"
    return Webhook(settings, place, keys)


def unfit_secrets(text: str) -> str | None:
    """What is wrong with secrets, separated by spaces, to be put behind what names them; it tells nothing of one."""
    parts = text.split()
    if len(parts) > MOST_KEYS:
        return f"holds {len(parts)} secrets: keep {MOST_KEYS} at most, each of which signs"
    for number, part in enumerate(parts, 1):
        try:
            key_of(part)
        except ValueError as error:
            return f"{error}" if len(parts) == 1 else f"holds {len(parts)} secrets, of which number {number} {error}"
    return None


def unfit_url(text: str, *, allow_private: bool) -> str | None:
    """What is wrong with the address of a receiver, to be put behind what names it; it tells nothing of the address."""
    try:
        url, client = urlsplit(text), httpx.URL(text)
        whole = bool(client.raw_host) and url.port != 0
    except (ValueError, httpx.InvalidURL):  # brackets that hold no IPv6 address, a name that no lookup takes, …
        return "is no address of the web: write https:// and the host, then the path"
    if url.scheme not in ("http", "https") or not whole:
        return "is no address of the web: write https:// and the host, then the path"
    if len(text) > LONGEST_URL:
        return f"has more than {LONGEST_URL} characters: write a shorter one"
    if "@" in url.netloc:
        return "has a user in it, which is not sent: leave that out, receivers know us by the signature"
    if "#" in text:
        return "has a `#`, which is never sent: leave that out with what follows it"
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        return "has a space in it: leave that out"
    if url.scheme == "http" and not allow_private:
        return "begins with http://, which can be read on the way: write https://, or allow_private = true for a receiver in your own network"
    return _unfit_address(client.host, allow_private=allow_private, plain=url.scheme == "http")


def _unfit_address(host: str, *, allow_private: bool, plain: bool) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:  # a name: what it stands for is seen when a connection is made
        return None
    words = refusal(host, allow_private=allow_private, plain=plain)
    return None if words is None else f"is refused: {words}"


def _table(table: Any, where: str) -> WebhookSettings:
    if not isinstance(table, dict):
        raise SettingsError(f"`{where}` must be a table: write [[webhook]] before it", where=where)
    found = section(table, WebhookSettings, where)
    mistakes = Mistakes()
    for check in (_check_name, _check_url, _check_secret, _check_events, _check_filter):
        with mistakes.gathered():
            check(found, where)
    mistakes.raise_any()
    return found


def _check_name(table: WebhookSettings, where: str) -> None:
    if table.name is not None and not NAME.fullmatch(table.name):
        raise SettingsError(f"[{where}]: name: write up to 64 letters, digits, `.`, `-` and `_`", where=f"{where}.name")
    if table.name is None and table.url is None and (table.url_env or table.url_file):
        what = f'[{where}]: write name = "…": an address in a file or variable is not shown, so this has no other name'
        raise SettingsError(what, where=f"{where}.name")


def _check_url(table: WebhookSettings, where: str) -> None:
    given = [key for key in ("url", "url_env", "url_file") if getattr(table, key) is not None]
    if not given:
        raise SettingsError(
            f"[{where}]: say where its events go: write url, or url_env or url_file for an address that is a secret",
            where=where,
        )
    if len(given) > 1:
        raise SettingsError(f"[{where}]: {' and '.join(given)} are given: keep one", where=where)
    if table.url is not None and (complaint := unfit_url(table.url, allow_private=table.allow_private)):
        raise SettingsError(f"[{where}]: url {complaint}", where=f"{where}.url")


def _check_secret(table: WebhookSettings, where: str) -> None:
    if table.secret_env is None and table.secret_file is None:
        what = f"[{where}]: say what its events are signed with: write secret_env or secret_file"
        raise SettingsError(what, where=where)
    if table.secret_env is not None and table.secret_file is not None:
        raise SettingsError(f"[{where}]: secret_env and secret_file are both given: keep one", where=where)


def _check_events(table: WebhookSettings, where: str) -> None:
    if not table.events:
        what = f"[{where}]: events is empty: write one or both of {', '.join(EVENTS)}, or leave it out for both"
        raise SettingsError(what, where=f"{where}.events")


def _check_filter(table: WebhookSettings, where: str) -> None:
    for name in (*filters.FIELDS, "kind"):
        values = _values(getattr(table, name))
        if values is not None and not all(values or ("",)):
            raise SettingsError(
                f"[{where}]: {name} is empty: write what is wanted, or leave it out to match anything",
                where=f"{where}.{name}",
            )
    try:
        filters.require_chains(_values(table.chain) or ())
    except FilterError as error:
        raise SettingsError(f"[{where}]: {error}", where=f"{where}.chain") from None
    for kind in _values(table.kind) or ():
        if kind not in KINDS:
            what = f"[{where}]: no kind {kind!r}: write {', '.join(sorted(KINDS))}{probably(kind, KINDS)}"
            raise SettingsError(what, where=f"{where}.kind")


def _values(given: Values) -> tuple[str, ...] | None:
    return (given,) if isinstance(given, str) else given


def _allow_public_parts(url: str) -> None:
    """Scheme, host and port are no secret: they stand in every lookup and handshake in the clear."""
    parts = urlsplit(url)
    SECRETS.allow([f"{parts.scheme}://{parts.netloc}{parts.path[:3]}"])
