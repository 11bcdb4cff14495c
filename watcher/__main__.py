"""`python -m watcher` and the console script: the first and the last instants of the process.

Signals are heard before anything else is loaded: PID 1 of a container has no default action for them. Until the command
listens itself, and again once it has ended, they end the process at once.
"""

import os
import signal
import sys
from types import FrameType

LASTING = ("demo", "run", "sandbox", "tail")
"""Commands that go on until they are asked to end: a signal is no failure. It is one for those that have work to finish."""
ENDING = 0.5
"""Seconds that their end waits for somebody to read what they have written."""


def lasting() -> bool:
    return sys.argv[1:2] != [] and sys.argv[1] in LASTING


def leave(number: int, _frame: FrameType | None) -> None:
    """The end at once: nothing stands half done, and nothing may hold it up."""
    os._exit(0 if number == signal.SIGINT or lasting() else 128 + number)


def listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`, or a shell's `&`
            signal.signal(number, leave)


def ignore() -> None:
    """The last instants: Python gives signals their default action back, and they would take the status with them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    listen()
    import atexit  # noqa: PLC0415 (what takes time comes behind the signals)

    from watcher.logs import output  # noqa: PLC0415

    output.install()

    def end() -> None:
        output.settle(ENDING)
        ignore()

    atexit.register(end)  # a traceback is written behind all of this
    from watcher.app.cli import main as command  # noqa: PLC0415

    status = command()
    listen()
    trouble = output.settle(ENDING if lasting() else None)
    if trouble is not None and status == 0:
        print(f"watcher: {trouble.filename}: {trouble.strerror}", file=sys.stderr)  # noqa: T201
        return 69
    return status


if __name__ == "__main__":
    sys.exit(main())
