"""Every fenced block of README and docs does what it shows.

| block | here |
|---|---|
| `sh` | runs with bash, line by line, in an empty folder: `watcher` stands on the PATH, and the providers of its config are the sandbox's |
| `python`, `javascript` | runs against a relay at 127.0.0.1:8765; it ends by itself with 0, or prints a line and is ended |
| `toml` | is a config of ours |
| `json` | is JSON |
| without a language, `text` | a picture: nothing to run |

A block that cannot be run here says why, for its readers too: ```` ```sh no-run: needs Docker ````, or, where that would be
seen by readers, `<!-- no-run: needs Docker -->` in the line above it. Any other block fails.

A page with `<!-- session -->` in it is one long session, as its reader has it: its blocks of `sh` run one after another in one
folder, and "Save this as `NAME`" before any other block makes that file. Jobs that it leaves behind are ended.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.harness import PATIENCE, ROOT, until, written
from watcher.app import settings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PICTURES = ("", "text")
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
REASON = re.compile(r"no-run: *(\S.*?)(?: *-->)?$")
SAVED = re.compile(r"Save this as `([\w.-]+)`")
SESSION = "<!-- session -->"
PAUSE = 3
"""Seconds that a reader takes at least from one block to the next."""
RELAY = 8765
"""The port of the config's sample, and of every page that shows one."""
HOSTS = {
    "https://api.jup.ag": "jupiter",
    "https://ny.solana.dex.blxrbdn.com": "bloxroute",
    "https://mainnet.helius-rpc.com": "helius",
    "https://api.gm.ondo.finance": "ondo",
    "https://api.tokenkithq.io": "tokenkit",
}
COMMAND = """#!/usr/bin/env python3
# `watcher`, whose providers are the sandbox's; a command that lasts is given a few seconds, and `run` goes on beside the others.
import os, pathlib, signal, subprocess, sys, time
for config in pathlib.Path().glob("*.toml"):
    text = config.read_text()
    for host, name in {hosts}.items():
        text = text.replace('"' + host + '"', '"{sandbox}/' + name + '"')
    config.write_text(text)
command = [{python!r}, "-m", "watcher", *sys.argv[1:]]
kind = sys.argv[1] if len(sys.argv) > 1 else ""
os.environ.update({{name: "sandbox-key" for name in os.environ if name.endswith(("_API_KEY", "_AUTH_HEADER"))}})
if kind not in ("run", "tail", "demo", "sandbox"):
    os.execv(command[0], command)
if kind in ("run", "sandbox"):
    log = open("beside.log", "ab")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    open("beside.pids", "a").write(str(process.pid) + " ")
    serves = b'"event": "started"' if kind == "run" else b"the truth is at"
    while serves not in pathlib.Path("beside.log").read_bytes():
        if process.poll() is not None:
            sys.exit(pathlib.Path("beside.log").read_text())
        time.sleep(0.05)
    sys.exit(0)
process = subprocess.Popen(command)
time.sleep(4)
process.send_signal(signal.SIGINT)
sys.exit(process.wait())
"""


class Block(NamedTuple):
    page: str
    line: int
    language: str
    reason: str | None
    text: str
    name: str | None
    """The file that it is to be saved as."""

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(page, text):
    """Each fenced block of one page."""
    lines = text.split("\n")
    number = end = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        begin = number
        while not re.fullmatch(rf" {{0,3}}{opening[1][0]}{{{len(opening[1])},}} *", lines[number]):
            number += 1
        language, _, info = opening[2].strip().partition(" ")
        named = SAVED.findall("\n".join(lines[end:begin]))
        above = lines[begin - 2].strip() if begin > 1 else ""
        told = REASON.search(info) or (REASON.search(above) if above.startswith("<!--") else None)
        content = "\n".join(lines[begin:number]) + "\n"
        yield Block(page, begin, language, told and told[1], content, named[-1] if named else None)
        number = end = number + 1


BLOCKS = [block for page in PAGES for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text())]


def those(*languages):
    lines = {page.relative_to(ROOT).as_posix() for page in PAGES if SESSION in page.read_text()}
    apart = [block for block in BLOCKS if block.page not in lines or block.language in ("toml", "json")]
    found = [block for block in apart if block.language in languages and block.reason is None]
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_is_run_here_or_says_why_not():
    known = ("sh", "python", "javascript", "toml", "json", *PICTURES)
    lost = [
        f"{block}: a block of {block.language}" for block in BLOCKS if not block.reason and block.language not in known
    ]
    assert not lost, f'these cannot be run: write "no-run: …" behind the language, with the reason: {lost}'
    empty = [str(block) for block in BLOCKS if not block.text.strip()]
    assert not empty


def test_a_block_is_found_with_its_language_and_its_reason():
    page = "a\n```sh\necho\n```\n<!-- no-run: needs Docker -->\n```sh\nx\n```\n````md no-run: shows a fence\n```sh\n```\n````\n```yaml\n```\n"
    assert [(block.line, block.language, block.reason) for block in blocks_of("p", page)] == [
        (2, "sh", None),
        (6, "sh", "needs Docker"),
        (9, "md", "shows a fence"),
        (13, "yaml", None),
    ]


@those("toml")
def test_a_block_of_toml_is_a_config(block):
    settings.parse(tomllib.loads(block.text))


@those("json")
def test_a_block_of_json_is_json(block):
    json.loads(block.text)


@pytest.fixture(scope="module")
def sandbox(shared):
    return shared.sandbox(rate=20.0, limits="none")


def session_of(blocks):
    """A script of bash that does what the reader of a page does."""
    yield "set -meuo pipefail; trap 'kill -9 $(jobs -p) 2> /dev/null || true' EXIT\n"
    for block in blocks:
        if block.reason is None and block.language == "sh":
            yield f"{block.text}sleep {PAUSE}\n"
        elif block.reason is None and block.language not in PICTURES:
            assert block.name, f"{block}: say before it what it is saved as: Save this as `NAME`."
            yield f"cat > {block.name} <<'END OF FILE'\n{block.text}END OF FILE\n"


def session(blocks, folder):
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    out = folder / "session.out"
    with out.open("wb") as told:  # no pipe: a job that is left behind would hold it
        command = ["bash", "-c", "".join(session_of(blocks))]
        said = subprocess.run(
            command, cwd=folder, env=environment, stdout=told, stderr=told, timeout=PATIENCE, check=False
        )
    assert said.returncode == 0, written(out)[-3000:]


def test_a_session_keeps_its_files_and_its_jobs(tmp_path):
    page = "```sh\nsleep 60 &\n```\nSave this as `a.py`.\n```python\nprint(7)\n```\n```sh\npython a.py > b\nkill -9 %1\n```\n"
    session(blocks_of("p", page), tmp_path)
    assert (tmp_path / "b").read_text() == "7\n"
    with pytest.raises(AssertionError):
        session(blocks_of("p", "```sh\nfalse\n```\n"), tmp_path)


@pytest.mark.parametrize("page", [page for page in PAGES if SESSION in page.read_text()], ids=lambda page: page.name)
def test_a_page_that_is_a_session_runs_from_its_first_block_to_its_last(page, tmp_path, port):
    session(blocks_of(page.name, page.read_text()), tmp_path)


def free():
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", RELAY)) != 0


@pytest.fixture
def port():
    """The one that the pages show: nobody may stand there."""
    until(free, f"port {RELAY} is free: the pages show it, so it is needed", patience=30.0)


@those("sh")
def test_a_block_of_sh_runs_in_an_empty_folder(block, sandbox, tmp_path, port):
    binaries, folder = tmp_path / "bin", tmp_path / "empty"
    binaries.mkdir()
    folder.mkdir()
    command = binaries / "watcher"
    command.write_text(COMMAND.format(hosts=HOSTS, sandbox=sandbox.url, python=sys.executable))
    command.chmod(0o755)
    path = f"{binaries}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    try:
        said = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env={"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert said.returncode == 0, (
            f"{block} ended with {said.returncode}:\n{said.stdout[-2000:]}\n{said.stderr[-2000:]}"
        )
    finally:
        pids = folder / "beside.pids"
        for pid in written(pids).split() if pids.exists() else ():
            subprocess.run(["kill", "-INT", pid], check=False)
            until(lambda pid=pid: gone(pid), f"{pid} ends")


def gone(pid):
    """It has ended; nobody may have waited for it yet."""
    try:
        return written(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def relay(shared, sandbox):
    """One that tells many changes, at the address of the pages."""
    until(free, f"port {RELAY} is free: the pages show it, so it is needed", patience=30.0)
    daemon = shared.run(shared.config(sandbox.providers(), relay={"port": RELAY}))
    yield daemon
    daemon.end()


@those("python", "javascript")
def test_a_block_of_a_program_runs_against_a_relay(block, relay, tmp_path):
    if block.language == "python":
        program = [sys.executable, "-"]
    elif (node := shutil.which("node")) is not None:
        program = [node, "--experimental-websocket", "-"]  # Node 20 has what 22 shows to everybody
    else:
        pytest.skip("no node here")
    out, err = tmp_path / "out", tmp_path / "err"
    with (
        out.open("wb") as told,
        err.open("wb") as log,
        subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=told,
            stderr=log,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        try:
            process.stdin.write(block.text.encode())
            process.stdin.close()
            until(lambda: process.poll() is not None or "\n" in written(out), f"{block} prints a line", patience=60.0)
            ended = process.poll()
            assert ended in (None, 0), f"{block} ended with {ended}: {written(err)[-2000:]}"
            assert "Error" not in written(err), written(err)[-2000:]
        finally:
            process.send_signal(signal.SIGKILL)
