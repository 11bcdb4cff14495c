"""What goes to stdout and stderr, written by threads of their own.

A pipe that nobody reads, a terminal that was stopped and a disk that hangs hold whoever writes to them for as long as
they like. So nobody but these threads writes there: lines wait in a queue, in order, and what waits is bounded. Of
stderr the lines that find no room are dropped and counted; who fills stdout waits for `room`.
"""

import asyncio
import contextlib
import functools
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

HELD = 1024 * 1024
"""Bytes of memory that may wait for one descriptor."""
ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes as a whole or not at all: what we do not get rid of at the end is whole lines."""


class ReaderGone(Exception):
    """Nobody reads our stdout any more, as in `watcher tail | head`: all that was wanted is done."""


class Outlet:
    """One descriptor and the lines that wait for it; `lossy`: what finds no room, or is refused, is dropped."""

    def __init__(self, descriptor: int, *, lossy: bool, held: int = HELD) -> None:
        self.descriptor = descriptor
        self.lossy = lossy
        self.held = held
        self.trouble: OSError | None = None
        """Why the descriptor takes nothing. For ever, unless lossy: a line that is missing must not go unseen."""
        self.dropped = 0
        """Lines, since the beginning."""
        self.on_dropped: Callable[[int], None] = lambda lines: None  # noqa: ARG005 (nobody listens yet)
        """Told how many lines were dropped, at their place, once it flows again."""
        self._untold = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._torn = False
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], object]] = set()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        return self._size > self.held

    def put(self, lines: bytes) -> None:
        """Whole lines, to be written in their turn; never waits."""
        # Once lines are dropped there must be room for many again: the gaps are few, and so is what is told of them.
        if self.lossy and self._size > (self.held // 2 if self._untold else self.held):
            self._drop(lines)
            return
        if self._untold and self.trouble is None:
            self._tell()
        with self._changed:
            self._waiting.append(lines)
            self._size += sys.getsizeof(lines)
            if self._thread is None:
                # A daemon: who is held in a write must not hold the end of the process.
                self._thread = threading.Thread(target=self._work, name="outlet", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def written(self, seconds: float | None) -> bool:
        """Wait until nothing waits any more; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._size == 0, seconds)

    async def until(self, condition: Callable[["Outlet"], bool]) -> None:
        """Wait, on asyncio, until this is so."""
        loop = asyncio.get_running_loop()
        while not condition(self):
            changed = asyncio.Event()
            listener = functools.partial(loop.call_soon_threadsafe, changed.set)
            with self._changed:
                self._listeners.add(listener)
            try:
                if not condition(self):
                    await changed.wait()
            finally:
                with self._changed:
                    self._listeners.discard(listener)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                taken = self._take()
            if self.trouble is None or self.lossy:
                self.trouble = self._write(b"".join(taken))
            with self._changed:
                self._size -= sum(map(sys.getsizeof, taken))
                self._changed.notify_all()
                listeners, flows = list(self._listeners), self.trouble is None and not self._waiting
            for listener in listeners:
                with contextlib.suppress(RuntimeError):  # its loop has ended
                    listener()
            if flows and self._untold:
                self._tell()

    def _take(self) -> list[bytes]:
        """As many as go at once, one at least."""
        taken = [self._waiting.popleft()]
        size = len(taken[0])
        while self._waiting and size + len(self._waiting[0]) <= ATOMIC:
            taken.append(self._waiting.popleft())
            size += len(taken[-1])
        return taken

    def _write(self, lines: bytes) -> OSError | None:
        """All of it, however long that takes; the error that ended it."""
        left = memoryview(b"\n" + lines if self._torn else lines)
        while left:
            try:
                left = left[os.write(self.descriptor, left) :]
            except BlockingIOError:  # whoever shares the pipe with us made it so
                waiting = select.poll()
                waiting.register(self.descriptor, select.POLLOUT)
                waiting.poll()
            except OSError as error:
                done = lines[: max(0, len(lines) - len(left))]
                self._torn = not done.endswith(b"\n") if done else self._torn
                self._drop(lines[len(done) :])
                return error
        self._torn = False
        return None

    def _drop(self, lines: bytes) -> None:
        with self._changed:
            self.dropped += lines.count(b"\n")
            self._untold += lines.count(b"\n")

    def _tell(self) -> None:
        with self._changed:
            count, self._untold = self._untold, 0
        if count:
            self.on_dropped(count)


class Lines(io.TextIOBase):
    """A text stream over an outlet, in the place of `sys.stdout` or `sys.stderr`."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, outlet: Outlet, encoding: str = "utf-8") -> None:
        self.outlet = outlet
        self.encoding = encoding
        self._begun = b""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Never waits. Raises ReaderGone, OSError when an earlier line could not be written and none may be missing."""
        self.check()
        with self._lock:
            whole, end, self._begun = (self._begun + text.encode(self.encoding, self.errors)).rpartition(b"\n")
        if end:  # not under the lock: it may tell of dropped lines, and that comes back here
            self.outlet.put(whole + end)
        return len(text)

    def check(self) -> None:
        """Raises ReaderGone, OSError when lines are lost that may not be."""
        trouble = self.outlet.trouble
        if trouble is None or self.outlet.lossy:
            return
        if isinstance(trouble, BrokenPipeError | ConnectionResetError):
            raise ReaderGone from trouble
        raise OSError(trouble.errno, trouble.strerror, "stdout") from trouble

    def reconfigure(self, *, encoding: str) -> None:
        self.encoding = encoding

    def close_line(self) -> None:
        """What stands without an end yet is a line now."""
        if self._begun:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self.outlet.descriptor)

    def fileno(self) -> int:
        return self.outlet.descriptor


def install() -> None:
    """From now on this process writes to stdout and stderr through outlets alone."""
    for descriptor in range(3):
        # One that is closed would be given to the next file that is opened, and that may be the database.
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        encoding: str = getattr(getattr(sys, name), "encoding", "utf-8")
        setattr(sys, name, Lines(Outlet(descriptor, lossy=name == "stderr"), encoding))


def lines_of(stream: TextIO) -> Lines | None:
    """The stream as one with an outlet; None for another's, as in tests."""
    found: object = stream
    return found if isinstance(found, Lines) else None


async def room(stream: TextIO) -> None:
    """Wait until more may be written to it. Raises ReaderGone, OSError."""
    if (lines := lines_of(stream)) is not None:
        await lines.outlet.until(lambda outlet: not outlet.full or outlet.trouble is not None)
        lines.check()


async def standing(stream: TextIO) -> None:
    """Raises ReaderGone, OSError as soon as something could not be written to it, also when nothing more is."""
    if (lines := lines_of(stream)) is not None:
        await lines.outlet.until(lambda outlet: outlet.trouble is not None)
        lines.check()


def settle(seconds: float | None) -> OSError | None:
    """The end: wait for what is still to be written to stdout, so long, and then to stderr, half a second.

    Gives the error that stdout's last lines ended in.
    """
    trouble = None
    for stream, patience in ((sys.stdout, seconds), (sys.stderr, 0.5)):
        if (lines := lines_of(stream)) is None:
            continue
        with contextlib.suppress(ReaderGone, OSError):
            lines.close_line()
        lines.outlet.written(patience)
        try:
            lines.check()
        except ReaderGone:
            pass
        except OSError as error:
            trouble = error
    return trouble
