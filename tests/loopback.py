"""What tests of connections share: a listener, certificates, and a clock that is moved by hand."""

import asyncio
import contextlib
import ssl
import subprocess
import time

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from watcher.sandbox.server import serve as serve_world

PATIENCE = 60.0
"""Seconds for what must happen on a machine that may stall."""


@contextlib.asynccontextmanager
async def served(serve, tls=None):
    """Gives the port on which `serve` speaks to everybody who connects."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as tcp, anyio.create_task_group() as tasks:
        listener = tcp if tls is None else TLSListener(tcp, tls, standard_compatible=False)
        tasks.start_soon(listener.serve, serve)
        try:
            yield tcp.extra(SocketAttribute.local_port)
        finally:
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def sandboxed(world):
    """Gives the port on which a world of the sandbox is served. It ends after all that is within, which it answers up to then."""
    async with anyio.create_task_group() as serving:
        port = await serving.start(serve_world, world)
        yield port
        serving.cancel_scope.cancel()


class Still(asyncio.SelectorEventLoop):
    """A loop whose time stands still until it is moved, so that no stall makes a time-out pass too early.

    After some real time it goes on by itself: what hangs fails.
    """

    def __init__(self):
        self._moves = time.monotonic() + PATIENCE
        self.passed = 0.0
        super().__init__()

    def time(self):
        return self.passed + max(0.0, time.monotonic() - self._moves)


def made(folder, names):
    """A certificate for `names`, by itself. Gives the server's side of it."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "1", "-subj", "/CN=test", "-addext", f"subjectAltName={names}"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no openssl to make a certificate with")
    return certificate, key


def context(certificate, *protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context
