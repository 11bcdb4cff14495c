"""What a running daemon tells systemd, on a real NOTIFY_SOCKET; and that a loop that stands still tells nothing."""

import signal
import socket
import sys
import threading
import time

import pytest

from tests.e2e.harness import KEY, until
from watcher.sandbox.world import tables

BEAT = 0.2
"""Seconds between two heartbeats: half of WATCHDOG_USEC."""

NOBODY = tables(1, 1, KEY)
"""`[providers.NAME]` tables that lead to a port where nobody is."""

HELD = """
import os, signal, sys, time
from watcher.__main__ import main
def hold(*_):  # in the thread of the loop
    os.write(2, b"held\\n")
    while not os.path.exists(os.environ["GO_ON"]):
        time.sleep(0.01)
signal.signal(signal.SIGUSR1, hold)
sys.exit(main())
"""
"""The command, with a loop that stands still from SIGUSR1 on, until the file GO_ON is there."""
FROM_A_THREAD = """
import os, socket, threading, time
def beat():
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
        time.sleep(0.1)
threading.Thread(target=beat, daemon=True).start()
"""
"""The planted bug: a heartbeat that goes on whatever the loop does."""


class Manager:
    """Stands for systemd: remembers what it is told, and when."""

    def __init__(self, path):
        self.told = []
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(round(2 * BEAT * 1e6))}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.1)
        self._open = True
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while self._open:
            try:
                said = self._socket.recv(65536).decode().split("\n")
            except TimeoutError:
                continue
            self.told += [(time.monotonic(), line) for line in said]

    def lines(self, after=0.0):
        return [line for when, line in self.told if when >= after]

    def beats(self, after=0.0):
        return self.lines(after).count("WATCHDOG=1")

    def close(self):
        self._open = False
        self._thread.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_systemd_is_told_of_serving_reloading_and_stopping(house, manager):
    daemon = house.run(house.config(NOBODY), env=manager.environment)
    until(lambda: "READY=1" in manager.lines(), "it serves")
    now = time.monotonic()
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "READY=1" in manager.lines(now), "the end of the reload")
    before, when, after = (line for line in manager.lines(now) if line != "WATCHDOG=1" and "STATUS" not in line)
    assert (before, after) == ("RELOADING=1", "READY=1")
    assert now * 1e6 <= int(when.removeprefix("MONOTONIC_USEC=")) <= time.monotonic() * 1e6

    beats = manager.beats()
    until(lambda: manager.beats() >= beats + 5, "a regular heartbeat")
    trouble = f"in trouble: {', '.join(NOBODY)}; 0 subscribers"
    until(lambda: any(line.endswith(trouble) for line in manager.lines()), "the status line")
    lines = [line for line in manager.lines() if line != "WATCHDOG=1"]
    assert lines[0] == "STATUS=opening the journal"
    assert lines[1].startswith("EXTEND_TIMEOUT_USEC=")
    polling = [number for number, line in enumerate(lines) if line.startswith("STATUS=polling 5 providers, ")]
    assert lines.index("READY=1") < polling[0]

    assert daemon.end()[0] == 0
    until(lambda: manager.lines()[-1] == "STOPPING=1", "the end")
    assert manager.lines().count("STOPPING=1") == 1


def test_a_daemon_that_ends_by_itself_says_so_and_is_never_ready(house, manager):
    config = house.config(NOBODY, journal=f"sqlite:///{house.folder}/none/balances.db")
    (house.folder / "none").write_text("a file")
    ended = house.finished("run", "-c", config, env=manager.environment)
    assert ended.status == 69
    until(lambda: "STOPPING=1" in manager.lines(), "the end")
    assert "READY=1" not in manager.lines()


@pytest.mark.parametrize(
    ("plant", "silent"), [("", True), (FROM_A_THREAD, False)], ids=["the loop beats", "a thread beats"]
)
def test_a_loop_that_stands_still_gives_no_heartbeat(house, manager, plant, silent):
    program = (sys.executable, "-c", plant + HELD)
    go_on = house.folder / "go-on"
    environment = manager.environment | {"GO_ON": str(go_on)}
    daemon = house.run(house.config(NOBODY), env=environment, program=program)
    until(lambda: manager.beats() > 5, "a regular heartbeat")
    daemon.process.send_signal(signal.SIGUSR1)
    until(lambda: "held" in daemon.err, "it is held")
    time.sleep(BEAT)  # what was said before is read
    held = time.monotonic()
    time.sleep(5 * BEAT)
    assert (manager.beats(held) == 0) is silent
    go_on.touch()
    released = time.monotonic()
    until(lambda: manager.beats(released) > 2, "it goes on")
