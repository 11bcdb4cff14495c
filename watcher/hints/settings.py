"""The `[[hints]]` tables of the config: one for each source, found by its `type`."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from watcher.hints.figures import HTTP, KAFKA, SourceType
from watcher.model import addresses
from watcher.model.addresses import ETHEREUM, AddressError
from watcher.redaction import secret
from watcher.redaction.redactor import SECRETS
from watcher.redaction.secret import Secret
from watcher.runtime.config_section import Mistakes, SettingsError, probably, section

DOORS: tuple[SourceType, ...] = (HTTP, KAFKA)
"""Sources that are always there and stand in no table: these names are taken."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PARAMETER = re.compile(r"(?:(?<=^)|(?<=&))[A-Za-z]{1,8}(?:[-_][A-Za-z]{1,8})?=(?=[^=])")
"""The name of a parameter in a URL, that is surely no key itself."""
_EVM_CHAIN = re.compile(r"eip155:[1-9][0-9]{0,31}")


class HintTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every `[[hints]]` table has."""

    name: str | None = None
    """None: as its type."""

    @property
    def source(self) -> str:
        """What it is called in metrics, in log lines and on the page."""
        return self.name or str(getattr(self, "type", ""))


class SocketHints(HintTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One whose source is a websocket. Providers put their keys into its address, so that is a secret."""

    url_env: str | None = None
    url_file: str | None = None


class SolanaHints(SocketHints, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON-RPC pubsub of a Solana node."""

    type: Literal["solana"]
    max_subscriptions: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    """At one time, on its one socket."""


class EthereumHints(SocketHints, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`eth_subscribe` of a node of one EVM chain."""

    type: Literal["ethereum"]
    chain: str = ETHEREUM
    """CAIP-2."""


class StarknetHints(SocketHints, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`starknet_subscribeEvents` of a node."""

    type: Literal["starknet"]


class TokenkitHints(HintTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Signed webhooks that TokenKit posts to us."""

    type: Literal["tokenkit"]
    secret_env: str | None = None
    secret_file: str | None = None


HintSettings = SolanaHints | EthereumHints | StarknetHints | TokenkitHints
TYPES: Mapping[str, type[HintSettings]] = {
    "solana": SolanaHints,
    "ethereum": EthereumHints,
    "starknet": StarknetHints,
    "tokenkit": TokenkitHints,
}


def parse(tables: Any) -> tuple[HintSettings, ...]:
    """`tables`: what the config has as `hints`. Chains are canonical afterwards. Raises SettingsError for each mistake."""
    if not isinstance(tables, list):
        raise SettingsError("`hints` must hold tables: write [[hints]] before each", where="hints")
    found: list[HintSettings] = []
    mistakes = Mistakes()
    for number, table in enumerate(tables):
        with mistakes.gathered():
            one = _table(table, f"hints[{number}]")
            if one.source in {other.source for other in found}:
                raise SettingsError(
                    f'[[hints]]: two sources are called {one.source}: write name = "…" into one of them',
                    where=f"hints[{number}].name",
                )
            found.append(one)
    mistakes.raise_any()
    SECRETS.allow(one.source for one in found)  # log lines tell them, whatever a URL has in common with them
    return tuple(found)


def secret_of(table: HintSettings, environment: Mapping[str, str]) -> Secret:
    """Its URL, or what its webhooks are signed with. Raises SettingsError."""
    try:
        found = _named_secret(table, environment)
    except SettingsError as error:
        raise SettingsError(str(error), where=f"hints.{table.source}") from None
    if not isinstance(table, TokenkitHints):
        _allow_public_parts(found.reveal())
    return found


def _named_secret(table: HintSettings, environment: Mapping[str, str]) -> Secret:
    where = f"[[hints]] {table.source}:"
    if isinstance(table, TokenkitHints):
        found = secret.read(f"{where} secret", environment, env=table.secret_env, file=table.secret_file)
    else:
        found = secret.read(f"{where} url", environment, env=table.url_env, file=table.url_file, judge=unfit_url)
    assert found is not None, "`parse` has seen to it that the table names one"
    return found


def unfit_url(text: str) -> str | None:
    """What is wrong with the address of a websocket, to be put behind what names it; it tells nothing of the address."""
    try:
        url = urlsplit(text)
        whole = bool((url.hostname or "").encode("idna")) and url.port != 0
        for part in (url.username, url.password):
            unquote(part or "", errors="strict")
    except ValueError:  # brackets that hold no IPv6 address, a port beyond 65535, a name that no lookup takes, no UTF-8
        return "is no address of a websocket: write wss:// and the host, then the path with the key"
    if url.scheme not in ("ws", "wss") or not whole:
        return "is no address of a websocket: write it with wss:// (or ws:// on this machine) and its host"
    if "#" in text:
        return "has a `#`, which is never sent: leave that out with what follows it"
    if (url.username is None) != (url.password is None):
        return "has a user without a password: write both, or leave them out"
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        return "has a space in it: leave that out"
    return None


def _table(table: Any, where: str) -> HintSettings:
    if not isinstance(table, dict):
        raise SettingsError(f"`{where}` must be a table: write [[hints]] before it", where=where)
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        what = "lacks its type" if kind is None else f"no type {kind!r} of hints"
        raise SettingsError(
            f'[{where}]: {what}; write type = "…" with one of {", ".join(TYPES)}{probably(str(kind), TYPES)}',
            where=where,
        )
    found = section(table, TYPES[kind], where)
    mistakes = Mistakes()
    with mistakes.gathered():
        _check_name(found.name, where)
    with mistakes.gathered():
        _check_secret(found, where)
    with mistakes.gathered():
        if isinstance(found, EthereumHints):
            found = msgspec.structs.replace(found, chain=_evm_chain(found.chain, where))
    mistakes.raise_any()
    return found


def _check_name(name: str | None, where: str) -> None:
    if name is None:
        return
    if not NAME.fullmatch(name):
        raise SettingsError(f"[{where}]: name: write up to 64 letters, digits, `-` and `_`", where=f"{where}.name")
    if name in DOORS:
        raise SettingsError(f"[{where}]: name = {name!r} is a source of ours: write another", where=f"{where}.name")


def _check_secret(table: HintSettings, where: str) -> None:
    """It names exactly one place."""
    if isinstance(table, TokenkitHints):
        key, places = "secret", (table.secret_env, table.secret_file)
        what = "what its webhooks are signed with"
    else:
        key, places = "url", (table.url_env, table.url_file)
        what = "its address, which may hold a key,"
    if places == (None, None):
        raise SettingsError(f"[{where}]: say where {what} stands: write {key}_env or {key}_file", where=where)
    if None not in places:
        raise SettingsError(f"[{where}]: {key}_env and {key}_file are both given: keep one", where=where)


def _evm_chain(text: str, where: str) -> str:
    try:
        chain = addresses.chain(text)
    except AddressError as error:
        raise SettingsError(f"[{where}]: chain: {error}", where=f"{where}.chain") from None
    if not _EVM_CHAIN.fullmatch(chain):
        raise SettingsError(
            f"[{where}]: chain = {chain!r} is no EVM chain: write eip155: and its number, as in {ETHEREUM}",
            where=f"{where}.chain",
        )
    return chain


def _allow_public_parts(url: str) -> None:
    """Scheme, host, port and names of parameters are no secret: the host stands in every lookup and handshake in the clear.

    Were they hidden with the rest, so were other addresses on that host, such as a provider's own. Two letters of the path
    betray nothing: another address may begin with the same.
    """
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    names = _PARAMETER.findall(parts.query)
    SECRETS.allow([f"{host}{parts.path[:3]}", *names, *(f"{host}/?{name}" for name in names[:1])])
