"""The sockets that the relay listens on.

Three things must be set before a connection is accepted, since accepted sockets inherit them: a small send buffer (or
the kernel hides a stalled reader for ten seconds), the protocol number (asyncio switches Nagle off only for sockets
that were made with it), and a bound on how long unacknowledged bytes may wait.
"""

import asyncio.sslproto
import contextlib
import errno
import socket
import ssl
from typing import NamedTuple

from watcher.relay.http.admission import BACKLOG
from watcher.relay.settings import RelaySettings, is_loopback
from watcher.runtime import small_file
from watcher.runtime.config_section import SettingsError

SEND_BUFFER = 64 * 1024
"""Linux doubles it for its own bookkeeping."""
UNACKNOWLEDGED = 20_000
"""Milliseconds. Longer than our own limit for stalled readers, which gives a reason."""
DRAWS = 20
"""Free ports that are tried where there are several addresses: what is free at one may be taken at another."""

TLS_BUFFER = 16 * 1024
"""Bytes that asyncio keeps for each connection from its first one on; its own 256 KiB are a stranger's to fill."""

Address = tuple[socket.AddressFamily, str]


class BoundPort(NamedTuple):
    """A port that is ours: who connects waits until somebody serves it."""

    sockets: list[socket.socket]
    """One for each address of the host."""
    tls: ssl.SSLContext | None

    @property
    def number(self) -> int:
        return int(self.sockets[0].getsockname()[1])

    def close(self) -> None:
        for listener in self.sockets:
            listener.close()


def bind(settings: RelaySettings, *, guarded: bool, key: str = "[relay] port") -> BoundPort:
    """All that can be wrong with the port is found here. Raises what `tls` and `listen` raise, and `settings.check`."""
    settings.check()
    context = tls(settings)
    return BoundPort(listen(settings, guarded=guarded, key=key), context)


def listen(settings: RelaySettings, *, guarded: bool, key: str = "[relay] port") -> list[socket.socket]:
    """One socket for each address of the host, all on one port.

    `guarded`: tokens are asked for. `key`: where the config names the port. Raises SettingsError for a public address
    without tokens, OSError when the port is taken.
    """
    found = addresses(settings, guarded=guarded)
    for _ in range(DRAWS if settings.port == 0 and len(found) > 1 else 1):
        try:
            return _on_one_port(found, settings, key)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            taken = error
    raise taken


def addresses(settings: RelaySettings, *, guarded: bool) -> list[Address]:
    """Those of the host. Raises SettingsError as `listen` does."""
    found = _addresses(settings.host)
    if not guarded and not all(is_loopback(host) for _, host in found):
        raise SettingsError(
            f"[relay] host = {settings.host!r} can be reached from other machines and no tokens are set: "
            "name tokens_env or tokens_file, or bind 127.0.0.1"
        )
    return found


def _on_one_port(at: list[Address], settings: RelaySettings, key: str) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        found: list[socket.socket] = []
        for family, host in at:
            port = found[0].getsockname()[1] if found else settings.port
            try:
                found.append(opened.enter_context(_socket(family, host, port, key)))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or len(at) == 1:
                    raise  # of several addresses one may be missing, as ::1 often is
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, f"none of the addresses of {settings.host!r} is on this machine")
        opened.pop_all()
        return found


def _addresses(host: str) -> list[Address]:
    try:
        infos = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long
        reason = error.strerror if isinstance(error, OSError) else "no such name"
        raise SettingsError(f"[relay] host = {host!r} is not an address of this machine: {reason}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in infos))


def _socket(family: socket.AddressFamily, host: str, port: int, key: str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        what = f"port {port} of {host} cannot be listened on ({error.strerror}): free it, or set another {key}"
        raise OSError(error.errno, what) from error
    return listener


def tls(settings: RelaySettings) -> ssl.SSLContext | None:
    """None without a certificate. Raises SettingsError."""
    if settings.certificate is None:
        return None
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        for path in filter(None, (settings.certificate, settings.key)):
            small_file.read(path, small_file.PEM_BYTES)  # OpenSSL would wait at a pipe
        context.load_cert_chain(settings.certificate, settings.key)
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").lower().replace("_", " ")
        what = f"[relay] certificate {settings.certificate} and key {settings.key} cannot be used ({reason})"
        raise SettingsError(f"{what}: name the PEM files of one pair, without a password") from error
    except OSError as error:
        what = f"[relay] certificate {settings.certificate} or key {settings.key} cannot be read ({error.strerror})"
        raise SettingsError(f"{what}: look at their names and rights") from error
    except ValueError as error:  # a NUL in a name
        raise SettingsError(f"[relay] certificate or key names no file ({error}): look at their names") from error
    return context
