"""What runs beside a daemon for as long as its process lives."""

import signal
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from watcher.logs import setup
from watcher.logs.repeat_filter import EVERY


async def report_repeats(wall: Callable[[], int]) -> None:
    """Of log lines. `wall`: microseconds of the wall clock."""
    while True:
        await anyio.sleep(EVERY)
        setup.report_repeats(wall() / 1e6)


async def call_on_hangup(reload: Callable[[], None], *, task_status: TaskStatus[None]) -> None:
    """At each SIGHUP."""
    with anyio.open_signal_receiver(signal.SIGHUP) as received:
        task_status.started()
        async for _ in received:
            reload()
