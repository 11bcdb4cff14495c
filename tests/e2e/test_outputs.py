"""Nobody who does not read what we write holds us: not the loop, not a signal, not the end."""

import contextlib
import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.front import ACCENTS, RIGHT, before, front
from tests.e2e.harness import KEY, ROOT, get, until, written
from tests.kafka_broker import free_port

SOON = 2.0
"""Seconds that an end may take while nobody reads: the contract's five, less what a busy machine takes."""
PAGE = 4096


@contextlib.contextmanager
def pipe():
    """A pipe of one page: (reading end, writing end)."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    try:
        yield reading, writing
    finally:
        for end in (reading, writing):
            with contextlib.suppress(OSError):
                os.close(end)


def full(writing):
    """A pipe that takes not one byte more."""
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * PAGE)
    os.set_blocking(writing, True)


def figure(port, name):
    text = get(f"http://127.0.0.1:{port}/metrics")[1].decode()
    return float(re.search(rf"^{name} (\S+)", text, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def sandbox(shared):
    return shared.sandbox(rate=300.0, limits="none")


@pytest.fixture(scope="module")
def served(shared, sandbox):
    """A daemon that tells many changes."""
    return shared.run(shared.config(sandbox.providers()))


def stream(daemon):
    return f"ws://127.0.0.1:{daemon.port}/v1/stream"


def serves(port):
    try:
        return get(f"http://127.0.0.1:{port}/readyz")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("what", ["a pipe that nobody reads", "a pipe whose reader has gone", "a full disk", "nothing"])
def test_a_daemon_whose_log_nobody_takes_serves_and_ends(house, sandbox, what):
    port = free_port()
    config = house.config(sandbox.providers(), relay={"port": port})
    with pipe() as (reading, writing):
        program = (sys.executable, "-m", "watcher")
        if what == "a pipe that nobody reads":
            full(writing)
        elif what == "a full disk":
            os.dup2(os.open("/dev/full", os.O_WRONLY), writing)
        elif what == "nothing":
            program = ("sh", "-c", f'exec {sys.executable} -m watcher "$@" 2>&-', "sh")
        else:
            os.close(reading)
        daemon = house.watcher("run", "-c", config, stderr=writing, program=program)
        until(lambda: serves(port) or daemon.status is not None, "it serves")
        lost = lambda: figure(port, "watcher_log_lines_dropped_total") > 0  # noqa: E731
        if what in ("a pipe whose reader has gone", "a full disk"):
            until(lost, "lines that nobody takes are counted as lost")
        else:
            assert not lost()
        status, seconds = daemon.end()
    assert status == 0
    assert seconds < SOON + 1.0


@pytest.mark.parametrize(("arguments", "number"), [(["--json"], signal.SIGTERM), ([], signal.SIGINT)])
def test_a_tail_that_nobody_reads_ends_at_a_signal_and_what_it_wrote_is_whole_lines(house, served, arguments, number):
    with pipe() as (reading, writing):
        tail = house.watcher("tail", stream(served), *arguments, stdout=writing)
        os.close(writing)
        told = figure(served.port, "watcher_relay_updates_total")
        more = 2 * PAGE / 50  # more than a pipe of one page takes, however short the lines are
        until(
            lambda: figure(served.port, "watcher_relay_updates_total") > told + more,
            "it is told more than it can write",
        )
        status, seconds = tail.end(number)
        assert status == 0, tail.err
        assert seconds < SOON
        assert "Traceback" not in tail.err
        text = b"".join(iter(lambda: os.read(reading, PAGE), b"")).decode()
    assert text.endswith("\n")
    if arguments:
        assert all(json.loads(line)["event"]["version"] for line in text.splitlines())


def test_a_tail_in_json_is_utf8_whatever_the_terminal_speaks(house, sandbox):
    with front(sandbox) as server:
        bloxroute = {"bloxroute": sandbox.providers()["bloxroute"]}
        daemon = house.run(house.config(before(bloxroute, server, "accents")), env={KEY: RIGHT})
        tail = house.watcher("tail", stream(daemon), "--json", env={"PYTHONIOENCODING": "latin-1"})
        until(lambda: tail.out.count("\n") > 5, "changes are told")
        assert tail.end()[0] == 0, tail.err
        assert daemon.end()[0] == 0
    assert {json.loads(line)["event"]["symbol"] for line in tail.out.splitlines()} == {ACCENTS}


def test_a_tail_whose_reader_has_seen_enough_ends_quietly(house, served):
    with pipe() as (reading, writing):
        tail = house.watcher("tail", stream(served), stdout=writing)
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        assert tail.wait() == 0, tail.err
    assert tail.err == ""


def test_a_demo_that_nobody_reads_ends_at_a_signal(house):
    with pipe() as (_, writing):
        full(writing)
        demo = house.watcher("demo", stdout=writing)
        os.close(writing)
        until(lambda: listens(demo.process.pid) or demo.status is not None, "it serves")
        status, seconds = demo.end(signal.SIGINT)
    assert status == 0, demo.err
    assert "Traceback" not in demo.err
    assert seconds < SOON + 1.0


def listens(pid):
    """Whether it has the two ports of a demo."""
    with contextlib.suppress(OSError):
        links = [str(descriptor.readlink()) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
        return sum(link.startswith("socket:") for link in links) > 4
    return False


def test_what_a_command_has_to_say_waits_for_its_reader(house):
    with pipe() as (reading, writing):
        full(writing)
        sample = house.watcher("sample", stdout=writing)
        os.close(writing)
        text = b"".join(iter(lambda: os.read(reading, PAGE), b"")).decode()
        assert sample.wait() == 0
    assert text.strip() == (ROOT / "config" / "watcher.toml").read_text().strip()


def test_output_that_is_lost_is_no_success(house, served):
    for arguments in (["sample"], ["tail", stream(served)]):
        with Path("/dev/full").open("wb") as disk:
            process = house.watcher(*arguments, stdout=disk)
            assert process.wait() == 69
        assert process.err == "watcher: stdout: No space left on device\n"


# ── Signals in the first instants ────────────────────────────────────────────────────────────────────────────────────


def test_nothing_that_takes_time_is_loaded_before_signals_are_heard():
    code = "import sys, watcher.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "watcher.__main__" in loaded
    assert not {
        "anyio",
        "asyncio",
        "msgspec",
        "structlog",
        "threading",
        "watcher.app.cli",
        "watcher.logs.output",
    } & {*loaded}


@functools.cache
def alone():
    """What makes a process PID 1 of a namespace of its own, where that is allowed."""
    words = ("unshare", "--pid", "--fork", "--kill-child")
    with contextlib.suppress(OSError):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    return ()


@pytest.mark.parametrize(
    ("command", "number", "ends"),
    [("run", signal.SIGTERM, 0), ("run", signal.SIGINT, 0), ("init", signal.SIGTERM, 143), ("init", signal.SIGINT, 0)],
)
def test_a_signal_is_heard_as_pid_1_too_from_the_first_instant_on(house, command, number, ends):
    config = house.config({"jupiter": {"base_url": "http://127.0.0.1:9", "watch": []}})
    process = house.watcher(command, "-c", config, program=(*alone(), sys.executable, "-m", "watcher"))
    pid = until(lambda: inner(process.process.pid) or process.status, "it stands")
    until(lambda: hears(pid) or process.status is not None, "it hears signals")
    os.kill(pid, number)
    assert process.wait() == ends, process.err
    assert process.err == ""
    assert process.out == ""


def inner(pid):
    """The process itself, behind what made it PID 1."""
    if not alone():
        return pid
    return int((written(Path(f"/proc/{pid}/task/{pid}/children")).split() or [0])[0])


def hears(pid):
    with contextlib.suppress(OSError):
        caught = int(re.search(r"SigCgt:\s+(\w+)", written(Path(f"/proc/{pid}/status")))[1], 16)
        return caught >> (signal.SIGTERM - 1) & 1
    return False
