"""`watcher rehearse`: what is read, what is refused, what is said."""

import contextlib
import json
import shutil
import sqlite3

import anyio
import httpx
import pytest

from tests.polling import Api, account_of, balance, helius, journal, poller_of, solana, virtually
from watcher.app.cli import main

LIMIT = "limits = [{ requests = 6, per = 60.0 }]"


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A journal in which two of three balances changed every now and then, for two hours."""
    path = tmp_path_factory.mktemp("past") / "past.db"
    periods = {solana(0): 61.0, solana(1): 203.0, solana(2): 1e9}

    def answer(request, _n):
        now = anyio.current_time()
        amount = str(1 + int(now / periods[account_of(request)]))
        return httpx.Response(200, json=balance(amount, slot=int(now / 0.4)))

    async def polled():
        async with journal(path) as intake:
            poller = poller_of(helius(3, limits=((20, 60.0),)), Api(answer), intake)
            with anyio.move_on_after(7200):
                await poller.run()

    virtually(polled)
    return f"sqlite:///{path}"


def config(tmp_path, name="new.toml", *, journal="sqlite:///none.db", limits=LIMIT, watches=3, more="", labels=False):
    lines = [f'journal = "{journal}"', "[providers.helius]", 'type = "helius"', 'api_key_env = "NOT_SET"', limits, more]
    for n in range(watches):
        lines += [
            "[[providers.helius.watch]]",
            f'account = "{solana(n)}"',
            *([f'label = "desk {n}"'] if labels else []),
        ]
    path = tmp_path / name
    path.write_text("\n".join(lines))
    return str(path)


def run(capsys, *arguments):
    status = main(["rehearse", *arguments], {})
    out, err = capsys.readouterr()
    return status, out, err


def test_old_stands_beside_new_over_what_the_journal_has(tmp_path, past, capsys):
    old, new = config(tmp_path, "old.toml", journal=past), config(tmp_path, limits=LIMIT.replace("6,", "12,"))
    status, out, err = run(capsys, "-c", new, "--old", old, "--journal", past, "--days", "1")
    assert (status, err) == (0, "")
    assert "helius: a history of 120 min, repeated" in out
    rows = {line[:24].strip(): line[24:].split("  ") for line in out.splitlines() if line.startswith("  ")}
    requests = [int(cell.replace(",", "")) for cell in rows["requests a day"] if cell.strip()]
    assert requests == pytest.approx([86400 / 10, 86400 / 5], rel=0.01)
    document = json.loads(run(capsys, "-c", new, "--old", old, "--journal", past, "--days", "1", "--json")[1])
    (slow,), (quick,) = document["old"], document["new"]
    assert slow["delays"]["mean"] > 1.8 * quick["delays"]["mean"] > 0
    assert slow["made_up"] == quick["made_up"] == 0
    changes = sum(slow["delays"][part] for part in ("changes", "missed")) - slow["delays"]["missed"]
    assert changes == pytest.approx(86400 / 61 + 86400 / 203, rel=0.05)


def test_without_a_journal_of_its_own_the_changes_are_made_up(tmp_path, capsys):
    status, out, _ = run(capsys, "-c", config(tmp_path, journal=f"sqlite:///{tmp_path / 'none.db'}"), "--days", "0.2")
    assert status == 0
    assert "helius: the journal knows nothing of it, so its changes are made up" in out
    assert not (tmp_path / "none.db").exists()


def test_a_journal_that_is_named_must_be_there(tmp_path, capsys):
    status, out, err = run(capsys, "-c", config(tmp_path), "--journal", f"sqlite:///{tmp_path / 'gone.db'}")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "gone.db" in err


@pytest.mark.parametrize(
    ("pragma", "said"), [("user_version = 3", "`watcher init`"), ("user_version = 99", "upgrade watcher")]
)
def test_a_journal_of_the_configs_own_that_cannot_be_read_is_not_taken_for_none(tmp_path, past, capsys, pragma, said):
    other = tmp_path / "other.db"
    shutil.copy(past.removeprefix("sqlite:///"), other)
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute(f"PRAGMA {pragma}")
    status, out, err = run(capsys, "-c", config(tmp_path, journal=f"sqlite:///{other}"), "--days", "0.2")
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_watch_that_the_journal_does_not_know_is_said_to_be_made_up(tmp_path, past, capsys):
    status, out, _ = run(capsys, "-c", config(tmp_path, journal=past, watches=5), "--days", "0.5")
    assert status == 0
    assert "2 watches that it does not know change as the median one" in out
    assert "repeated" in out


def test_made_up_changes_are_taken_where_that_is_wished(tmp_path, past, capsys):
    new = config(tmp_path, journal=past)
    lively, quiet = (
        json.loads(run(capsys, "-c", new, "--synthetic", "--rate", rate, "--days", "1", "--json")[1])
        for rate in ("10", "1")
    )
    assert lively["history"] == {}
    assert lively["new"][0]["made_up"] == 3
    assert lively["new"][0]["delays"]["changes"] > 5 * quiet["new"][0]["delays"]["changes"] > 0


def test_labels_are_shown_each(tmp_path, past, capsys):
    _, out, _ = run(capsys, "-c", config(tmp_path, journal=past, labels=True), "--days", "0.5")
    shown = [line.split() for line in out.splitlines() if line.startswith("  desk")]
    assert [line[:2] for line in shown] == [["desk", "1"], ["desk", "0"], ["desk", "2"]]  # the slowest first
    assert shown[2][2:] == ["-", "-"]


def test_what_cannot_be_met_stands_last(tmp_path, capsys):
    new = config(tmp_path, watches=30, more="max_interval = 60.0")
    *_, last = run(capsys, "-c", new, "--days", "0.2", "--synthetic")[1].splitlines()
    assert last.startswith(
        "new, helius: max_interval 60 s is not met: 30 of 30 watches were left unread for longer, up to "
    )
    *_, last = run(capsys, "-c", config(tmp_path), "--days", "0.2", "--synthetic")[1].splitlines()
    assert last == "everything that is wished for can be met"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[providers.helius]\ntype = 'helius'\nwatch = []", "needs a key"),
        (
            "[providers.helius]\napi_key_env = 'X'\ncost = 20\nwatch = [{ account = '" + solana(0) + "' }]",
            "no call could ever",
        ),
        ("journal = 'sqlite:///x.db'", "no provider is configured"),
        ("nonsense = 1", "unknown key `nonsense`"),
    ],
)
@pytest.mark.parametrize("which", ["-c", "--old"])
def test_a_bad_config_is_refused_with_what_to_do(tmp_path, capsys, text, words, which):
    bad = tmp_path / "bad.toml"
    bad.write_text(text)
    arguments = ["-c", str(bad)] if which == "-c" else ["-c", config(tmp_path), "--old", str(bad)]
    status, out, err = run(capsys, *arguments, "--synthetic", "--days", "0.1")
    assert (status, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(
    "flags",
    [("--days", "0"), ("--days", "nan"), ("--days", "400"), ("--latency", "-1"), ("--rate", "inf"), ("--seed", "x")],
)
def test_a_bad_number_is_refused(tmp_path, capsys, flags):
    status, out, err = run(capsys, "-c", config(tmp_path), *flags)
    assert (status, out) == (2, "")
    assert flags[0] in err


def test_what_is_rehearsed_is_the_same_each_time(tmp_path, past, capsys):
    new = config(tmp_path, journal=past)
    one, two, other = (run(capsys, "-c", new, "--days", "1", "--seed", seed, "--json")[1] for seed in ("1", "1", "2"))
    assert one == two != other
