"""`python -m watcher` and the console script: the first and the last instants of the process.

Signals are handled before anything else is loaded, since PID 1 of a container has no default action for them. Until the
command handles them itself, and again once it has ended, they end the process at once.
"""

import os
import signal
import sys
from types import FrameType

LASTING = ("demo", "run", "sandbox", "tail")
"""Commands that go on until they are asked to end: for them a signal is no failure. The others have work to finish."""
ENDING = 0.5
"""Seconds that such a command waits at its end until its output is read."""


def lasting() -> bool:
    return sys.argv[1:2] != [] and sys.argv[1] in LASTING


def leave(number: int, _frame: FrameType | None) -> None:
    """End at once: no work is half done, and nothing may hold the end up."""
    os._exit(0 if number == signal.SIGINT or lasting() else 128 + number)


def listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`, or a shell's `&`
            signal.signal(number, leave)


def ignore() -> None:
    """In its last instants Python gives signals their default action back, and a signal would replace the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    listen()
    import atexit  # noqa: PLC0415 (slow imports come after the signals)

    from watcher.logs import output  # noqa: PLC0415

    output.install()

    def end() -> None:
        output.drain(ENDING)
        ignore()

    atexit.register(end)  # a traceback is written after that
    from watcher.app.cli import main as command  # noqa: PLC0415

    status = command()
    listen()
    error = output.drain(ENDING if lasting() else None)
    if error is not None and status == 0:
        print(f"watcher: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 69
    return status


if __name__ == "__main__":
    sys.exit(main())
