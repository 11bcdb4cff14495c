"""What systemd is told, on a socket of ours, in virtual time."""

import os
import socket
import time
import uuid

import anyio
import anyio.lowlevel
import pytest

from tests.polling import virtually
from watcher.app.systemd import EXTENSION, OPENING, PATIENCE, Systemd


class Listener:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def said(self):
        """The lines since the last call."""
        found = []
        while True:
            try:
                found += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@watcher-{uuid.uuid4().hex}"
    listener = Listener(name.replace("@", "\0"))
    listener.environment = {"NOTIFY_SOCKET": name}
    yield listener
    listener.socket.close()


def test_each_word_is_one_datagram_on_a_path_and_in_the_abstract_space(listener):
    systemd = Systemd(listener.environment)
    with systemd.reloading():
        pass
    assert listener.said() == []  # while it starts, READY would be the start's
    systemd.ready()
    assert listener.said() == ["READY=1"]
    with systemd.reloading():
        begun, when = listener.said()
    assert begun == "RELOADING=1"
    assert when.removeprefix("MONOTONIC_USEC=").isdigit()
    assert listener.said() == ["READY=1"]
    systemd.status("polling\n2 providers\tREADY=0")
    systemd.status("polling 2 providers READY=0")
    assert listener.said() == ["STATUS=polling 2 providers READY=0"]
    systemd.stopping()
    assert listener.said() == ["STOPPING=1"]


def test_a_reload_that_fails_ends_too(listener):
    systemd = Systemd(listener.environment)
    systemd.ready()
    with pytest.raises(KeyError), systemd.reloading():
        raise KeyError
    assert listener.said()[-1] == "READY=1"


@pytest.mark.parametrize(
    "address", ["", "/nowhere/at/all", "@nobody-listens", "vsock:2:1234", "/" + "x" * 200, "relative"]
)
def test_who_is_not_there_disturbs_nobody(address):
    async def main():
        systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"})
        with anyio.move_on_after(60):
            await systemd.run(anyio.lowlevel.checkpoint, lambda: "fine")

    virtually(main)
    Systemd({}).ready()


def reported(listener, seconds, *, serves_after=0.0, **environment):
    """What is said in so many seconds, with the second in which it is."""
    log = []

    async def main():
        async def listen():
            while True:
                log.extend((round(anyio.current_time(), 1), line) for line in listener.said())
                await anyio.sleep(0.1)

        async def serves():
            await anyio.sleep(serves_after)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            with anyio.move_on_after(seconds):
                systemd = Systemd(listener.environment | environment)
                await systemd.run(serves, lambda: f"line {anyio.current_time() // 10:g}")
            tasks.cancel_scope.cancel()
        log.extend((seconds, line) for line in listener.said())

    virtually(main)
    return log


def test_it_says_ready_once_it_serves_and_asks_for_time_until_then(listener):
    log = reported(listener, 40.0, serves_after=3 * OPENING - 1)
    asked = [time for time, line in log if line == f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}"]
    assert asked == pytest.approx([0, OPENING, 2 * OPENING], abs=0.2)
    (ready,) = (time for time, line in log if line == "READY=1")
    assert ready == pytest.approx(3 * OPENING - 1, abs=0.2)
    assert any(line == "STATUS=opening the journal" and time < 0.3 for time, line in log)
    assert [line for time, line in log if line.startswith("STATUS") and time >= ready] == [
        "STATUS=line 1",
        "STATUS=line 2",
        "STATUS=line 3",
    ]
    assert log[-1] == (40.0, "STOPPING=1")
    assert not any("WATCHDOG" in line for _, line in log)


@pytest.mark.parametrize(
    ("process", "beats"), [({}, 20), ({"WATCHDOG_PID": str(os.getpid())}, 20), ({"WATCHDOG_PID": "1"}, 0)]
)
def test_it_beats_twice_as_often_as_it_must_and_only_where_it_is_meant(listener, process, beats):
    log = reported(listener, 29.9, serves_after=10.0, WATCHDOG_USEC="3000000", **process)
    assert sum(line == "WATCHDOG=1" for _, line in log) == beats


@pytest.mark.parametrize("usec", ["x", "0", "-5"])
def test_a_watchdog_that_makes_no_sense_is_none(listener, usec):
    assert not any(line == "WATCHDOG=1" for _, line in reported(listener, 5.0, WATCHDOG_USEC=usec))


def test_a_socket_that_nobody_reads_holds_nobody_up_for_long(listener):
    began = time.monotonic()
    systemd = Systemd(listener.environment)
    while True:  # until the kernel keeps no more
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(b"X", listener.socket.getsockname())
        except BlockingIOError:
            break
    systemd.ready()
    assert time.monotonic() - began < 10 * PATIENCE + 5
    assert "READY=1" not in listener.said()
