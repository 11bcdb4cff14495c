"""Secrets of a config that others could read: on this machine, by the rights of a file, or on the network, in plain HTTP.

Each of these may be intended: everyone in a container can read a secret that its orchestrator mounts, a relay of another user
reads the database, a test host speaks plain HTTP. So each is reported, and nothing is refused or changed.
"""

import ipaddress
import os
import pwd
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from watcher.app import journals
from watcher.app.hint_sources import HintSource
from watcher.app.provider_sources import Source
from watcher.app.settings import Settings
from watcher.hints.settings import HintSettings, TokenkitHints
from watcher.journal import PrivateFile
from watcher.webhooks.settings import Webhook

ACL = "system.posix_acl_access"
"""Where Linux keeps a file's access list: a version of four bytes, then (tag, rights, id) for each entry."""
USER, OWN_GROUP, GROUP = 0x02, 0x04, 0x08
"""Tags of entries: a named user, the file's group, a named group."""


def exposed(
    config: Settings, sources: Iterable[Source], hints: Iterable[HintSource], webhooks: Iterable[Webhook] = ()
) -> Iterator[str]:
    """A line for each thing that others could read."""
    found = list(sources)
    for file in _private_files(config, found):
        if who := readers(file.path):
            unless = file.unless and f", {file.unless}"
            yield f"{file.what}: {file.path} can be read by {who}: chmod 600 {file.path}{unless}"
    for one in found:
        url = urlsplit(one.provider.base_url)
        if one.secret is not None and url.scheme == "http" and not here(url.hostname or ""):
            yield (
                f"[providers.{one.provider.name}] base_url: the key goes to {url.hostname} in plain HTTP, and whoever is "
                "on the way can read it: write https://"
            )
    for hint in hints:
        address = urlsplit("" if isinstance(hint.table, TokenkitHints) else hint.secret.reveal())
        if address.scheme == "ws" and not here(address.hostname or ""):
            yield (
                f"[[hints]] {hint.name}: its address, with any key in it, goes to {address.hostname} in plain, and whoever is on "
                "the way can read it: write wss://"
            )
    for webhook in webhooks:
        if webhook.plain and not here(webhook.host):
            yield (
                f"[[webhook]] {webhook.title}: its events go to {webhook.host} in plain HTTP, and whoever is on the way can "
                "read them: write https://"
            )


def _private_files(config: Settings, sources: Iterable[Source]) -> Iterator[PrivateFile]:
    for what, file in (
        *((f"[providers.{one.provider.name}] api_key_file", one.provider.settings.api_key_file) for one in sources),
        *((f"[[hints]] {table.source} {key}", file) for table in config.hints for key, file in _secret_files(table)),
        *((f"[[webhook]] {table.title} secret_file", table.secret_file) for table in config.webhooks),
        *((f"[[webhook]] {table.title} url_file", table.url_file) for table in config.webhooks),
        ("[relay] tokens_file", config.relay.tokens_file),
        ("[relay] key", config.relay.key),
    ):
        if file is not None:
            yield PrivateFile(what, Path(file))
    plugin = journals.plugin_of(config.journal, journals.known())
    yield from plugin.private_files(config.journal, config.journal_settings)


def _secret_files(table: HintSettings) -> Iterator[tuple[str, str | None]]:
    if isinstance(table, TokenkitHints):
        yield "secret_file", table.secret_file
    else:
        yield "url_file", table.url_file


def readers(path: Path) -> str:
    """Who can read a file besides us and root, with its mode and owner; empty: nobody, or the file is not there."""
    try:
        found = path.stat()
    except OSError:  # whoever needs the file reports that
        return ""
    others = [
        who
        for who, can in (
            ("its owner", found.st_uid not in (0, os.geteuid()) and found.st_mode & stat.S_IRUSR),
            *_readers_beside(path, found.st_mode),
            ("everyone", found.st_mode & stat.S_IROTH),
        )
        if can
    ]
    return (
        f"{' and '.join(others)} (mode {stat.S_IMODE(found.st_mode):04o}, owner {_name(found.st_uid)})"
        if others
        else ""
    )


def _readers_beside(path: Path, mode: int) -> Iterator[tuple[str, bool]]:
    """Its group; or whom its access list names: then the mode's bits for the group are no group's, but the most that those
    have. So systemd gives a service its credentials."""
    try:
        entries = list(struct.iter_unpack("<HHI", os.getxattr(path, ACL)[4:]))
    except (OSError, struct.error, AttributeError):  # it has none, or the system knows none
        yield "its group", bool(mode & stat.S_IRGRP)
        return
    can = [(tag, who) for tag, rights, who in entries if rights & 4 and mode & stat.S_IRGRP]
    yield "its group", any(tag == OWN_GROUP for tag, _ in can)
    yield "others of its access list", any(tag == GROUP or (tag == USER and who != os.geteuid()) for tag, who in can)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def here(host: str) -> bool:
    """Whether the host of a URL is this machine: a loopback address, or a name that always means one (RFC 6761)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
