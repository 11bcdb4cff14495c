"""Every command at terminals that take no colours, without outputs, in ASCII, and at Ctrl-C: quiet and right."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.harness import KEY, ROOT, until
from tests.e2e.test_outputs import hears
from watcher.app import cli
from watcher.sandbox.world import VALID_KEY

SHORT = (["sample"], ["completion", "bash"], ["--version"], ["--help"], ["check", "--offline"], ["init"], ["fleet"])
LASTING = (["run"], ["tail"], ["demo"], ["sandbox", "--port", "0"])
ENDS = {"fleet": 2}
"""The config makes no fleet."""


@pytest.fixture(scope="module")
def served(shared):
    """A daemon that tells many changes, and the sandbox before it."""
    sandbox = shared.sandbox(rate=300.0, limits="none")
    return sandbox, shared.run(shared.config(sandbox.providers()))


@pytest.fixture
def whole(served, house):
    """The arguments of a command, with what it cannot do without."""
    sandbox, daemon = served
    config = house.config(sandbox.providers())

    def whole(arguments):
        if arguments[0] == "tail":
            return [*arguments, f"ws://127.0.0.1:{daemon.port}/v1/stream"]
        return [*arguments, "-c", config] if arguments[0] in ("run", "check", "init", "fleet") else arguments

    return whole


def at_a_terminal(house, arguments, lasting, **env):
    """All that the command shows on a terminal of its own."""
    ours, its = pty.openpty()
    program = (sys.executable, "-m", "watcher")
    process = house.watcher(*arguments, stdout=its, stderr=its, program=program, env={"TERM": "xterm-256color", **env})
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # its last descriptor is closed
        while data := os.read(ours, 65536):
            shown += data
            if lasting and shown.count(b"\n") > 2:
                lasting = False
                process.process.send_signal(signal.SIGINT)
    os.close(ours)
    return process.wait(), shown


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=lambda env: next(iter(env)))
@pytest.mark.parametrize("arguments", [*SHORT[3:5], *LASTING[:3]], ids=" ".join)
def test_no_escape_reaches_a_terminal_that_takes_none(house, whole, arguments, env):
    status, shown = at_a_terminal(house, whole(arguments), arguments in LASTING, **env)
    assert status == 0, shown
    assert shown
    assert b"\x1b" not in shown


def test_a_terminal_that_takes_colours_has_them(house, whole):
    assert b"\x1b[" in at_a_terminal(house, whole(["tail"]), lasting=True)[1]


@pytest.mark.parametrize("closing", [">&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("arguments", SHORT, ids=" ".join)
def test_closed_outputs_change_no_status_and_break_nothing(house, whole, arguments, closing):
    code = f'exec {sys.executable} -m watcher "$@" {closing}'
    said = subprocess.run(
        ["sh", "-c", code, "sh", *map(str, whole(arguments))],
        capture_output=True,
        cwd=ROOT,
        check=False,
        env=os.environ | {KEY: VALID_KEY},
    )
    assert said.returncode == ENDS.get(arguments[0], 0), said
    assert b"Traceback" not in said.stderr
    assert said.stderr.count(b"\n") <= 1


@pytest.mark.parametrize("arguments", [*SHORT[:2], *SHORT[4:], *LASTING], ids=" ".join)
def test_ctrl_c_at_any_moment_is_quiet(house, whole, arguments):
    number = [*SHORT, *LASTING].index(arguments)
    for wait in (0.0, 0.06 * number):  # in the first instant, and while it loads or works
        process = house.watcher(*whole(arguments))
        until(lambda p=process: hears(p.process.pid) or p.status is not None, "it hears signals")
        time.sleep(wait)
        status, seconds = process.end(signal.SIGINT)
        assert status in (0, ENDS.get(arguments[0], 0)), process.err
        assert seconds < 5.0
        assert "Traceback" not in process.err
        assert [line for line in process.err.splitlines() if line[0] != "{"] in ([], process.err.splitlines()[:1])


def test_in_ascii_our_own_signs_have_others_in_their_place(house, whole):
    tail = house.watcher(*whole(["tail"]), env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    until(lambda: tail.out.count("\n") > 5 or tail.status is not None, "changes are told")
    assert tail.end(signal.SIGINT)[0] == 0, tail.err
    assert tail.err == ""
    assert tail.out.isascii()
    assert "\\u" not in tail.out
    assert all("  >  " in line and ("^ " in line or "v " in line) for line in tail.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        (["sandbox"], set()),
        (["sandbox", "--log-level", "info"], {"info"}),
        (["--log-level", "info", "sandbox"], {"info"}),
        (["--log-level", "info", "sandbox", "--log-level", "error"], set()),
    ],
    ids=" ".join,
)
def test_the_level_of_the_log_is_what_is_asked_for(house, arguments, levels):
    process = house.watcher(*arguments, "--port", "0")
    until(lambda: process.out or process.status is not None, "it serves")
    assert process.end(signal.SIGINT)[0] == 0, process.err
    assert {record["level"] for record in process.logged} == levels
    assert levels or process.err == ""


def test_a_tail_that_is_asked_for_more_logs_what_is_in_order_too():
    usual = {line: cli.usual_level(cli.parser().parse_args(line.split())) for line in ("tail", "tail --verbose", "run")}
    assert usual == {"tail": "warning", "tail --verbose": "info", "run": "info"}
