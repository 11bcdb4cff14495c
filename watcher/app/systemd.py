"""What systemd is told: that we serve, reload, stop and are alive (sd_notify(3), Type=notify-reload).

A datagram of a few words to a socket that the environment names. The libraries for it are unmaintained (sdnotify, last released in
2017) or wrap libsystemd in C (cysystemd), which no container of ours has; the protocol is as long as their adapters would be.

The heartbeat comes from the event loop, and not from a thread: a loop that stands still is to be restarted.
"""

import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

import anyio

PATIENCE = 0.1
"""Seconds for which a datagram may wait, when systemd does not read."""
OPENING = 5.0
"""Seconds between two requests for more time, while the journal is opened."""
EXTENSION = 60.0
"""Seconds that each asks for: a loop that stands still for longer is ended."""
STATUS = 5.0
"""Seconds between two looks at the status line."""


class Systemd:
    """Does nothing where `NOTIFY_SOCKET` is not set, and never fails: a service that nobody watches serves all the same."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._beat = _seconds_between_beats(environment)
        self._serves = False
        self._status = ""

    def ready(self) -> None:
        """It serves."""
        self._serves = True
        self._notify("READY=1")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """A reload, for as long as the block runs. One before it serves is no reload: systemd would take its end for the start's."""
        if not self._serves:
            yield
            return
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self._notify("READY=1")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`, which everybody on the machine may read."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._notify(f"STATUS={line}")

    async def run(self, serves: Callable[[], Awaitable[object]], status: Callable[[], str]) -> None:
        """Report until cancelled, and then that it stops. `serves` returns once it does; `status` gives the line."""
        if not self._address:
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watchdog)
                await self._open(serves)
                while True:
                    self.status(status())
                    await anyio.sleep(STATUS)
        finally:
            self.stopping()

    async def _open(self, serves: Callable[[], Awaitable[object]]) -> None:
        """A large journal takes minutes to read, which is longer than systemd waits unless it is asked to."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask_for_time)
            await serves()
            tasks.cancel_scope.cancel()
        self.ready()

    async def _ask_for_time(self) -> None:
        self.status("opening the journal")
        while True:
            self._notify(f"EXTEND_TIMEOUT_USEC={round(EXTENSION * 1e6)}")
            await anyio.sleep(OPENING)

    async def _watchdog(self) -> None:
        while self._beat is not None:
            self._notify("WATCHDOG=1")
            await anyio.sleep(self._beat)

    def _notify(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(PATIENCE)
            out.sendto("\n".join(lines).encode(), self._address)


def _seconds_between_beats(environment: Mapping[str, str]) -> float | None:
    """Half of what the unit allows; None: it asks for none, or asks another process."""
    try:
        allowed = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
        process = int(environment.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return allowed / 2 if allowed > 0 and process == os.getpid() else None
