"""What is written to a pipe that nobody reads, to a full disk and to who has gone holds nobody, and is lost in the open."""

import array
import contextlib
import errno
import fcntl
import os
import sys
import termios
import threading

import anyio
import anyio.lowlevel
import pytest

from watcher.logs.output import ATOMIC, MAX_BUFFERED, LineWriter, OutputThread, ReaderClosed, free_space, watch_closed

PATIENCE = 60.0


@pytest.fixture
def pipe():
    """A pipe of one page: (reading end, writing end). What is still open at the end is closed."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, ATOMIC)
    yield reading, writing
    for end in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(end)


class Reader(threading.Thread):
    """Reads until it has seen that text."""

    def __init__(self, descriptor, last):
        super().__init__(daemon=True)
        self.descriptor, self.last, self.text = descriptor, last, ""
        self.start()

    def run(self):
        while self.last not in self.text:
            self.text += os.read(self.descriptor, 65536).decode()

    def lines(self):
        self.join(PATIENCE)
        assert not self.is_alive(), self.text[-200:]
        return self.text.splitlines()


def told(lines):
    """A stream that is told of dropped lines as the log is: by a line of its own."""
    lines.heard = threading.Event()

    def tell(count):
        print(f"dropped {count}", file=lines)
        lines.heard.set()

    lines.output.on_dropped = tell
    return lines


def test_lines_come_whole_and_in_order_however_they_are_put_together(pipe):
    stream = LineWriter(OutputThread(pipe[1], lossy=True))
    reader = Reader(pipe[0], "last\n")
    for number in range(500):
        print(number, "x" * 30, file=stream)
    stream.write("no end yet, ")
    stream.write("now\nla")
    stream.write("st")
    stream.close_line()
    assert reader.lines() == [*(f"{n} {'x' * 30}" for n in range(500)), "no end yet, now", "last"]
    assert stream.output.dropped == 0


def test_a_pipe_that_nobody_reads_holds_nobody_and_what_it_cost_is_told_at_its_place(pipe):
    stream = told(LineWriter(OutputThread(pipe[1], lossy=True, max_buffered=64 * 1024)))
    for number in range(5000):
        print(f"{number:05} {'x' * 90}", file=stream)
    dropped = stream.output.dropped
    assert 4000 < dropped < 5000
    assert not stream.output.written(0)
    reader = Reader(pipe[0], "flows\n")
    assert stream.heard.wait(PATIENCE)
    print("flows", file=stream)
    *kept, notice, last = reader.lines()
    assert [int(line.split()[0]) for line in kept] == list(range(5000 - dropped))
    assert (notice, last) == (f"dropped {dropped}", "flows")


@pytest.mark.parametrize("what", ["a full disk", "a reader that has gone"])
def test_a_descriptor_that_refuses_costs_lines_and_nothing_else(pipe, what):
    reading, writing = pipe
    if what == "a full disk":
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        os.close(reading)
    stream = told(LineWriter(OutputThread(writing, lossy=True)))
    for number in range(100):
        print(number, file=stream)
    assert stream.output.written(PATIENCE)
    assert stream.output.dropped == 100


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe):
    os.set_blocking(pipe[1], False)
    stream = LineWriter(OutputThread(pipe[1], lossy=False))
    for number in range(2000):
        print(number, "y" * 20, file=stream)
    reader = Reader(pipe[0], "1999 yyyyyyyyyyyyyyyyyyyy\n")
    assert reader.lines() == [f"{n} {'y' * 20}" for n in range(2000)]


def test_a_line_that_was_cut_in_its_middle_does_not_spoil_the_next(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    first = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "fifo", os.O_WRONLY)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, ATOMIC)
    stream = told(LineWriter(OutputThread(writing, lossy=True)))
    print("a" * (10 * ATOMIC), file=stream)
    assert len(_exactly(first, ATOMIC)) == ATOMIC
    os.close(first)
    assert stream.output.written(PATIENCE)
    assert (stream.output.dropped, stream.output.error.errno) == (1, errno.EPIPE)
    second = os.open(tmp_path / "fifo", os.O_RDONLY)
    reader = Reader(second, "dropped 1\n")
    print("whole", file=stream)
    begun, *rest = reader.lines()
    assert set(begun) <= {"a"}
    assert rest == ["whole", "dropped 1"]
    os.close(second)
    os.close(writing)


def _exactly(descriptor, count):
    """So many bytes of a descriptor that does not block."""
    found = b""
    while len(found) < count:
        with contextlib.suppress(BlockingIOError):
            found += os.read(descriptor, count - len(found))
    return found


def test_whoever_has_more_to_say_than_is_read_waits_and_nothing_is_lost(pipe):
    stream = LineWriter(OutputThread(pipe[1], lossy=False, max_buffered=64 * 1024))
    line, written = f"00000 {'z' * 90}\n".encode(), []

    async def write():
        for number in range(3000):
            print(f"{number:05} {'z' * 90}", file=stream)
            written.append(number)
            await free_space(stream)

    def stands():
        """The pipe is full, its thread knows, and no line has room any more."""
        there = array.array("i", [0])
        fcntl.ioctl(pipe[0], termios.FIONREAD, there)
        left = len(written) - there[0] // len(line)
        return there[0] > 0 and stream.output.full and stream.output._size == left * sys.getsizeof(line)

    async def follow():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            # The loop goes on while the writer waits: it is seen to stand still.
            while not stands():
                await anyio.lowlevel.checkpoint()
            stood = len(written)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert len(written) == stood < 1000
            assert stream.output._size < 64 * 1024 + 500
            return Reader(pipe[0], "02999 ")

    assert stream.output.max_buffered < MAX_BUFFERED
    lines = anyio.run(follow).lines()
    assert [line.split()[0] for line in lines] == [f"{n:05}" for n in range(3000)]


@pytest.mark.parametrize(("descriptor", "ends"), [("pipe", ReaderClosed), ("/dev/full", OSError)])
def test_who_must_not_lose_a_line_is_told_at_once_that_one_is_lost(pipe, descriptor, ends):
    writing = pipe[1]
    if descriptor == "pipe":
        os.close(pipe[0])
    else:
        writing = os.open(descriptor, os.O_WRONLY)
    stream = LineWriter(OutputThread(writing, lossy=False))
    print("the only line", file=stream)
    with pytest.raises(ends):
        anyio.run(watch_closed, stream)
    with pytest.raises(ends):
        print("the next one", file=stream)


def test_what_a_terminal_cannot_show_is_escaped(pipe):
    stream = LineWriter(OutputThread(pipe[1], lossy=False), "ascii")
    reader = Reader(pipe[0], "\n")
    print("▲ 1 → é", file=stream)
    assert reader.lines() == [r"^ 1 > \xe9"]
