"""What `run` needs of this machine: ports, certificates, descriptors, and a place for the journal."""

import errno
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from watcher.app.check.report import Report
from watcher.app.file_descriptors import connections
from watcher.app.findings import Finding, Severity
from watcher.app.limit_words import duration_words
from watcher.app.settings import Settings
from watcher.relay.http import sockets
from watcher.relay.settings import RelaySettings

SOON = 14 * 86400.0
"""Seconds before a certificate is over from which on that is told."""
OVER = {9: "is not valid yet", 10: "has expired"}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED."""


def look(config: Settings, report: Report, *, guarded: bool, now: Callable[[], int]) -> bool:
    """All of it. `now`: wall-clock microseconds. Whether somebody listens on the relay's port already."""
    relay = config.relay
    context = report.tried(lambda: sockets.tls(relay), "relay.certificate")
    if context is not None:
        for finding in certificate(relay, context, now() / 1e6):
            report.found(finding)
    _descriptors(config, report)
    busy = _port(relay, report, guarded=guarded, key="[relay] port")
    if config.metrics_port:
        _port(msgspec.structs.replace(relay, port=config.metrics_port), report, guarded=guarded, key="metrics_port")
    return busy


def _port(relay: RelaySettings, report: Report, *, guarded: bool, key: str) -> bool:
    """Whether it is taken."""
    where = key.replace("[relay] ", "relay.")
    try:
        for listener in sockets.listen(relay, guarded=guarded, key=key):
            listener.close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            report.failure(error, where)
            return False
        what = f"port {relay.port} of {relay.host} is in use"
        step = f"nothing, if the daemon runs already; else free it, or set another {key}"
        report.found(Finding("warning", where, what, step))
        return True
    except ValueError as error:
        report.failure(error, where)
    return False


def certificate(relay: RelaySettings, server: ssl.SSLContext, now: float) -> Iterator[Finding]:
    """What a client that trusts this very certificate says of it, in a handshake with ourselves. `now`: Unix seconds."""
    client = ssl.create_default_context(cafile=relay.certificate)
    client.check_hostname = False
    client.verify_flags = (client.verify_flags | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    step = "renew it, and restart `run`"
    try:
        until = ssl.cert_time_to_seconds(str(_handshake(client, server)["notAfter"]))
    except ssl.SSLCertVerificationError as refused:
        if said := OVER.get(refused.verify_code):
            yield Finding("error", "relay.certificate", f"[relay] certificate {relay.certificate} {said}", step)
        return
    if until - now < SOON:
        left = f"{duration_words(until - now)}, at {datetime.fromtimestamp(until, UTC):%Y-%m-%dT%H:%M:%SZ}"
        yield Finding(
            "warning", "relay.certificate", f"[relay] certificate {relay.certificate} expires in {left}", step
        )


def _handshake(trusting: ssl.SSLContext, serving: ssl.SSLContext) -> dict[str, object]:
    """The server's certificate as the client sees it. Raises SSLCertVerificationError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = trusting.wrap_bio(back, there), serving.wrap_bio(there, back, server_side=True)
    while True:
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if end is client and (found := client.getpeercert()):
                return dict(found)


def _descriptors(config: Settings, report: Report) -> None:
    wished = config.relay.max_connections
    if (possible := connections(wished, len(config.providers))) >= wished:
        return
    what = f"the limit of open files allows the relay {possible:,} connections, and [relay] max_connections asks for {wished:,}"
    severity: Severity = "warning" if possible else "error"  # with none at all `run` does not start
    report.found(Finding(severity, "relay.max_connections", what, "raise it (ulimit -n)"))


def database(path: Path, report: Report) -> bool:
    """The place of a SQLite file. Whether it is there, to be looked into."""
    where, folder = "journal", path.absolute().parent
    if not path.is_absolute():
        what = f"the journal's path is relative: started in {Path.cwd()}, `run` uses {path.absolute()}"
        report.found(Finding("info", where, what, "write four slashes for an absolute path"))
    if path.is_dir():
        report.found(Finding("error", where, f"{path} is a folder", "name a file in `journal`"), 69)
    elif not folder.is_dir() and path.parent == Path("var") and os.access(folder.parent, os.W_OK | os.X_OK):
        report.found(Finding("info", where, f"there is no database at {path} yet", "`run` makes folder and file"))
    elif not folder.is_dir():
        step = "make it, or name another file in `journal`"
        report.found(Finding("error", where, f"there is no folder {path.parent}", step), 69)
    elif not os.access(folder, os.W_OK | os.X_OK):
        step = "give this user the right to write there: SQLite makes files beside the database"
        report.found(Finding("error", where, f"the folder {path.parent} cannot be written", step), 69)
    elif path.exists() and not os.access(path, os.R_OK | os.W_OK):
        step = "give this user the right to read and write it"
        report.found(Finding("error", where, f"the database {path} cannot be read and written", step), 69)
    elif not path.exists():
        report.found(Finding("info", where, f"there is no database at {path} yet", "`run` makes it"))
    else:
        return True
    return False
