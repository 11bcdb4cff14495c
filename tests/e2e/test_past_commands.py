"""The past of a real daemon: over HTTP, and by the commands beside it, while it runs and after it was killed."""

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import urllib.parse
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e import checker
from tests.e2e.harness import KEY, ROOT, balances, get, one_clear_line, until
from watcher.sandbox.world import VALID_KEY

LABEL = 'Ops "1"'


def now():
    return datetime.now(UTC)


def rfc3339(time):
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Known:
    """What a client was told of each balance: its amounts and since when, as far back as it listens.

    `rows`: as they were at some time since; of what became known behind the client's snapshot, and did not change, only they tell.
    """

    def __init__(self, snapshot, events, rows):
        self.chains = {checker.name(row): [(row["observed_at"], row["amount"])] for row in rows if not row["version"]}
        self.chains |= {checker.name(row): [(row["observed_at"], row["amount"])] for row in snapshot}
        for event in events:
            # Known since a time that this client was not told of.
            chain = self.chains.setdefault(checker.name(event), [("", event["previous_amount"])])
            chain.append((event["observed_at"], event["amount"]))

    def at(self, time):
        """Names of the balances that were known then for sure."""
        return {name for name, chain in self.chains.items() if "" < chain[0][0] <= time}

    def wrong(self, rows, time):
        """Every row that says other than what was told."""
        return [row for row in rows if not self._right(row, time)]

    def _right(self, row, time):
        chain = self.chains[checker.name(row)]
        before = [amount for at, amount in chain if at <= time]
        after = [amount for at, amount in chain if at > time]
        if row["status"] == "changing":
            begin, end = row["between"]
            return begin < time < end and (row["previous_amount"], row["amount"]) == (before[-1], after[0])
        if row["status"] == "unseen":
            seen = [amount for at, amount in chain if at <= row["last_seen"]]
            return row["last_seen"] < time and row["amount"] == seen[-1]
        return row["amount"] == before[-1]


class Past:
    """A daemon that was told of changes for a while, and the times in between."""

    def __init__(self, house):
        self.house = house
        sandbox = house.sandbox(rate=60.0)
        tables = sandbox.providers()
        tables["helius"]["watch"][0] |= {"label": LABEL, "tags": ["=ops"]}
        self.config = house.config(tables)
        self.daemon = house.run(self.config)
        until(lambda: get(f"http://127.0.0.1:{self.daemon.port}/readyz")[0] == 200, "everything is read once")
        self.follower = house.follower(self.daemon.port)
        until(lambda: self.follower.cursor, "the snapshot has come")
        self.times = []
        for count in (100, 300, 500):
            until(lambda count=count: len(self.follower.events) >= count, f"{count} changes are told")
            self.times.append(rfc3339(now()))
        self.rows = balances(self.daemon.port)

    def http(self, path, **params):
        status, body = get(f"http://127.0.0.1:{self.daemon.port}{path}?{urllib.parse.urlencode(params)}")
        assert status == 200, body
        return json.loads(body)

    def command(self, *arguments):
        """What it prints, once it has ended in order."""
        process = self.house.finished(*arguments, "-c", self.config)
        assert process.status == 0, process.err
        assert process.err == ""
        return process.out

    def at(self, time, *filters):
        return [json.loads(line) for line in self.command("at", time, "--json", *filters).splitlines()]

    def known(self):
        return Known(self.follower.snapshot, self.follower.events, self.rows)


@pytest.fixture(scope="module")
def past(shared):
    return Past(shared)


def settled(rows):
    """Those of which later readings say nothing new."""
    return {checker.name(row): row for row in rows if row["status"] != "unseen"}


def changed(first, second):
    """What was settled and is otherwise now."""
    return [(row, second.get(name)) for name, row in first.items() if second.get(name) != row]


def test_http_and_command_tell_what_was_told_at_the_time(past):
    for time in past.times:
        over_http, by_command = past.http("/v1/balances", at=time), past.at(time)
        assert over_http["at"] == time
        known = past.known()
        assert known.wrong(over_http["data"], time) == []
        assert known.wrong(by_command, time) == []
        assert known.at(time) <= {checker.name(row) for row in by_command} <= known.chains.keys()
        first, second = settled(over_http["data"]), settled(by_command)
        assert changed(first, second) == [], "what is certain stays so"
    assert {row["status"] for time in past.times for row in past.at(time)} >= {"certain", "changing"}


def test_history_over_http_and_by_command_are_the_events_that_were_told(past):
    first, last = past.times[0], past.times[-1]
    until(lambda: past.follower.events[-1]["observed_at"] > last, "all of the interval is told")
    ids = [event["id"] for event in past.follower.events if first <= event["observed_at"] <= last]
    printed = [
        json.loads(line) for line in past.command("history", "--json", "--from", first, "--to", last).splitlines()
    ]
    assert [line["event"]["id"] for line in printed] == ids
    paged, query = [], {"from": first, "to": last, "limit": 70}
    while True:
        page = past.http("/v1/history", **query)
        paged += page["data"]
        if page["next"] is None:
            break
        query = {"limit": 70, "cursor": page["next"]}
    assert paged == printed
    table = past.command("history", "--csv", "--from", first, "--to", last)
    assert [row["id"] for row in csv.DictReader(io.StringIO(table, newline=""))] == ids
    assert past.command("history", "--from", first, "--to", last).count("\n") == len(ids) + 1


def test_filters_and_names_hold_for_both(past):
    time = past.times[-1]
    (row,) = past.at(time, "--label", LABEL)
    assert (row["provider"], row["label"], row["tags"]) == ("helius", LABEL, ["=ops"])
    assert (
        settled(past.http("/v1/balances", at=time, label=LABEL, tag="=ops")["data"]).items() <= settled([row]).items()
    )
    both = past.at(time, "--provider", "helius", "--provider", "ondo")
    assert {row["provider"] for row in both} == {"helius", "ondo"}
    assert {row["kind"] for row in past.at(time, "--kind", "settled")} == {"settled"}
    (told,) = csv.DictReader(io.StringIO(past.command("at", time, "--csv", "--tag", "=ops"), newline=""))
    assert (told["at"], told["label"], told["tags"], told["amount"]) == (time, LABEL, "'=ops", row["amount"])
    assert past.command("at", time, "--account", "nobody") == "no balance that matches was known then\n"
    assert past.command("history", "--account", "nobody").startswith("nothing that matches from ")
    assert past.command("at", time, "--account", "nobody", "--json") == ""


def test_a_time_that_cannot_be_told_is_2_and_says_what_can(past, house):
    later = rfc3339(now() + timedelta(days=1))
    mistakes = [
        (("at", "2026-12-31"), "write 2026-12-31T00:00:00Z"),
        (("at", "yesterday"), "TIME = 'yesterday' is no time of RFC 3339"),
        (("at", later), "is in the future"),
        (("history", "--from", later), "is in the future"),
        (("history", "--to", "2026-12-31"), "--to = 2026-12-31"),
        (("history", "--from", past.times[1], "--to", past.times[0]), "is later than"),
        (("at", past.times[0], "--csv", "--json"), "--csv or --json"),
        (("at", past.times[0], "--kind", "all"), "no kind 'all'"),
        (("at", past.times[0], "-c", "nowhere.toml"), "no config file at nowhere.toml"),
    ]
    for arguments, says in mistakes:
        process = house.finished(*arguments, *(() if "-c" in arguments else ("-c", past.config)))
        one_clear_line(process, 2, says)
        assert process.out == ""
    empty = house.config({}, journal=f"sqlite:///{house.folder / 'none.db'}")
    one_clear_line(house.finished("at", past.times[0], "-c", empty), 2, "none.db")


def test_nobody_who_stops_reading_is_told_so(past):
    for arguments in (("at", past.times[0], "--csv"), ("history",), ("history", "--json")):
        line = f"{sys.executable} -m watcher {' '.join(arguments)} -c {past.config} | head -1"
        said = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            capture_output=True,
            cwd=ROOT,
            check=False,
            env=os.environ | {KEY: VALID_KEY},
        )
        assert (said.returncode, said.stderr) == (0, b"")
        assert said.stdout.count(b"\n") == 1


@pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)], ids=str)
def test_a_terminal_gets_lines_and_no_escapes_and_nothing_else(past, house, form):
    ours, its = pty.openpty()
    process = house.watcher(
        "at", past.times[0], *form, "-c", past.config, stdout=its, stderr=its, env={"TERM": "xterm"}
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # its last descriptor is closed
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert process.wait() == 0, shown
    lines = shown.decode().splitlines()
    assert len(lines) == len(past.at(past.times[0])) + (form != ("--json",))
    assert b"\x1b" not in shown


@pytest.mark.parametrize("closing", [">&-", ">&- 2>&- <&-"])
def test_closed_outputs_break_nothing(past, closing):
    line = f'exec {sys.executable} -m watcher history --json -c "$1" {closing}'
    said = subprocess.run(["sh", "-c", line, "sh", past.config], capture_output=True, cwd=ROOT, check=False)
    assert said.returncode == 0, said
    assert said.stderr == b""


def test_ctrl_c_before_somebody_who_does_not_read_is_quiet_and_quick(past, house):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    try:
        process = house.watcher("history", "--json", "-c", past.config, stdout=writing)
        until(lambda: select.select([reading], [], [], 0)[0], "it writes")
        status, seconds = process.end(signal.SIGINT)
        assert (status, process.err) == (0, "")
        assert seconds < 5.0
    finally:
        os.close(reading)
        os.close(writing)


def test_after_a_kill_the_journal_tells_the_same_and_does_not_know_what_it_did_not_see(house):
    past = Past(house)
    time = past.times[-1]
    until(lambda: len(past.follower.events) >= 700, "more is told")
    before = past.at(time)
    past.daemon.end(signal.SIGKILL)
    killed = rfc3339(now())
    begun = min(event["observed_at"] for event in past.follower.events)
    # What was committed in the last instant, nobody was told of.
    printed = [json.loads(line)["event"] for line in past.command("history", "--json", "--from", begun).splitlines()]
    listened = [event["id"] for event in past.follower.events]
    first = [event["id"] for event in printed].index(listened[0])
    printed = printed[first:]
    assert [event["id"] for event in printed[: len(listened)]] == listened
    known = Known(past.follower.snapshot, printed, past.rows)
    after = past.at(time)
    assert known.wrong(after, time) == []
    assert changed(settled(before), settled(after)) == []
    at_the_end = past.at(killed)
    assert {row["status"] for row in at_the_end} == {"unseen"}
    assert all(row["last_seen"] < killed for row in at_the_end)
    assert {checker.name(row) for row in at_the_end} >= known.at(killed)
