"""Stdout and stderr, each written by a thread of its own.

A pipe that nobody reads, a terminal that was stopped and a disk that hangs can block a writer for ever. So only these threads
write there. Lines wait in a queue, in order, and the queue is bounded. When it is full, lines for stderr are dropped and
counted; whoever writes to stdout waits for `free_space`.
"""

import asyncio
import codecs
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

MAX_BUFFERED = 1024 * 1024
"""Bytes of memory that may wait for one descriptor."""
ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes as a whole or not at all: what is lost at the end is whole lines."""


PLAIN = {"→": ">", "▲": "^", "▼": "v", "…": "~", "–": "-", "’": "'"}
"""What stands for our own signs where the encoding has none of them: as wide, so that columns stay."""


def plain_signs(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: our signs in ASCII, and an escape for everything else that cannot be written."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    shown = [PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters]
    return "".join(shown), error.end


codecs.register_error("watcher.plain_signs", plain_signs)


class ReaderClosed(Exception):
    """Nobody reads our stdout any more, as in `watcher tail | head`: the work is done."""


class OutputThread:
    """One descriptor, the lines that wait for it, and the thread that writes them.

    `lossy`: lines are dropped when the queue is full or the descriptor refuses them.
    """

    def __init__(self, descriptor: int, *, lossy: bool, max_buffered: int = MAX_BUFFERED) -> None:
        self.descriptor = descriptor
        self.lossy = lossy
        self.max_buffered = max_buffered
        self.error: OSError | None = None
        """Why the descriptor takes nothing. It stays so, unless lossy: a missing line must not go unseen."""
        self.dropped = 0
        """Lines, since the beginning."""
        self.on_dropped: Callable[[int], None] = lambda lines: None  # noqa: ARG005 (nobody listens yet)
        """Called with the number of dropped lines, in their place, once lines are written again."""
        self._unreported = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._torn = False
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], object]] = set()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        return self._size > self.max_buffered

    def put(self, lines: bytes) -> None:
        """Whole lines, to be written in their turn; never waits."""
        # Once lines were dropped there must be space for many again, so that gaps are few, and so are reports of them.
        if self.lossy and self._size > (self.max_buffered // 2 if self._unreported else self.max_buffered):
            self._drop(lines)
            return
        if self._unreported and self.error is None:
            self._report_dropped()
        with self._changed:
            self._waiting.append(lines)
            self._size += sys.getsizeof(lines)
            if self._thread is None:
                # A daemon thread: one that is blocked in a write must not hold up the end of the process.
                self._thread = threading.Thread(target=self._work, name="output", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def written(self, seconds: float | None) -> bool:
        """Wait until nothing waits any more; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._size == 0, seconds)

    async def until(self, condition: Callable[["OutputThread"], bool]) -> None:
        """Wait, on asyncio, until the condition holds."""
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
            if self.error is None or self.lossy:
                self.error = self._write(b"".join(taken))
            with self._changed:
                self._size -= sum(map(sys.getsizeof, taken))
                self._changed.notify_all()
                listeners, flows = list(self._listeners), self.error is None and not self._waiting
            for listener in listeners:
                with contextlib.suppress(RuntimeError):  # its loop has ended
                    listener()
            if flows and self._unreported:
                self._report_dropped()

    def _take(self) -> list[bytes]:
        """As many lines as one atomic write takes, at least one."""
        taken = [self._waiting.popleft()]
        size = len(taken[0])
        while self._waiting and size + len(self._waiting[0]) <= ATOMIC:
            taken.append(self._waiting.popleft())
            size += len(taken[-1])
        return taken

    def _write(self, lines: bytes) -> OSError | None:
        """Write all of it, however long that takes. Returns the error that ended it."""
        left = memoryview(b"\n" + lines if self._torn else lines)
        while left:
            try:
                left = left[os.write(self.descriptor, left) :]
            except BlockingIOError:  # another process that shares the pipe made it non-blocking
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
            self._unreported += lines.count(b"\n")

    def _report_dropped(self) -> None:
        with self._changed:
            count, self._unreported = self._unreported, 0
        if count:
            self.on_dropped(count)


class LineWriter(io.TextIOBase):
    """A text stream over an OutputThread, in the place of `sys.stdout` or `sys.stderr`."""

    encoding = "utf-8"
    errors = "watcher.plain_signs"

    def __init__(self, output: OutputThread, encoding: str = "utf-8") -> None:
        self.output = output
        self.encoding = encoding
        self._begun = b""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Never waits. Raises ReaderClosed, OSError when an earlier line could not be written and none may be missing."""
        self.check()
        with self._lock:
            whole, end, self._begun = (self._begun + text.encode(self.encoding, self.errors)).rpartition(b"\n")
        if end:  # not under the lock: it may report dropped lines, and that report is written here
            self.output.put(whole + end)
        return len(text)

    def check(self) -> None:
        """Raises ReaderClosed, OSError when lines were lost and none may be."""
        error = self.output.error
        if error is None or self.output.lossy:
            return
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            raise ReaderClosed from error
        raise OSError(error.errno, error.strerror, "stdout") from error

    def reconfigure(self, *, encoding: str) -> None:
        self.encoding = encoding

    def close_line(self) -> None:
        """End the last line, if it has no end yet."""
        if self._begun:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self.output.descriptor)

    def fileno(self) -> int:
        return self.output.descriptor


def install() -> None:
    """From now on this process writes to stdout and stderr through OutputThreads only."""
    for descriptor in range(3):
        # The next file that is opened would get a closed descriptor, and that file may be the database.
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        encoding: str = getattr(getattr(sys, name), "encoding", "utf-8")
        setattr(sys, name, LineWriter(OutputThread(descriptor, lossy=name == "stderr"), encoding))


def lines_of(stream: TextIO) -> LineWriter | None:
    """The stream as a LineWriter; None for any other, as in tests."""
    found: object = stream
    return found if isinstance(found, LineWriter) else None


def use_utf8() -> None:
    """On stdout, whatever the terminal's encoding: a file in TOML, JSON or CSV is in UTF-8."""
    stdout: object = sys.stdout
    if isinstance(stdout, LineWriter | io.TextIOWrapper):
        stdout.reconfigure(encoding="utf-8")


async def free_space(stream: TextIO) -> None:
    """Wait until more may be written to the stream. Raises ReaderClosed, OSError."""
    if (lines := lines_of(stream)) is not None:
        await lines.output.until(lambda output: not output.full or output.error is not None)
        lines.check()


async def watch_closed(stream: TextIO) -> None:
    """Wait for ever; raises ReaderClosed, OSError as soon as a line cannot be written, even if no other follows."""
    if (lines := lines_of(stream)) is not None:
        await lines.output.until(lambda output: output.error is not None)
        lines.check()


def drain(seconds: float | None) -> OSError | None:
    """Wait at the end of the process: up to so many seconds for stdout, then up to half a second for stderr.

    Returns the error of the last write to stdout.
    """
    last = None
    for stream, patience in ((sys.stdout, seconds), (sys.stderr, 0.5)):
        if (lines := lines_of(stream)) is None:
            continue
        with contextlib.suppress(ReaderClosed, OSError):
            lines.close_line()
        lines.output.written(patience)
        try:
            lines.check()
        except ReaderClosed:
            pass
        except OSError as error:
            last = error
    return last
