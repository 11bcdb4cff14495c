"""Secrets of a config that others could read: on this machine, by the rights of a file, or on the network, in plain HTTP.

Each of these may be intended: everyone in a container can read a secret that its orchestrator mounts, a relay of another user
reads the database, a test host speaks plain HTTP. So each is reported, and nothing is refused or changed.
"""

import ipaddress
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from watcher.app import journals
from watcher.app.provider_sources import Source
from watcher.app.settings import Settings
from watcher.journal import PrivateFile


def exposed(config: Settings, sources: Iterable[Source]) -> Iterator[str]:
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


def _private_files(config: Settings, sources: Iterable[Source]) -> Iterator[PrivateFile]:
    for what, file in (
        *((f"[providers.{one.provider.name}] api_key_file", one.provider.settings.api_key_file) for one in sources),
        ("[relay] tokens_file", config.relay.tokens_file),
        ("[relay] key", config.relay.key),
    ):
        if file is not None:
            yield PrivateFile(what, Path(file))
    plugin = journals.plugin_of(config.journal, journals.known())
    yield from plugin.private_files(config.journal, config.journal_settings)


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
            ("its group", found.st_mode & stat.S_IRGRP),
            ("everyone", found.st_mode & stat.S_IROTH),
        )
        if can
    ]
    return (
        f"{' and '.join(others)} (mode {stat.S_IMODE(found.st_mode):04o}, owner {_name(found.st_uid)})"
        if others
        else ""
    )


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
