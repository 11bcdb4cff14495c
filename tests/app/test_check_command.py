"""`watcher check`: everything that `run` needs is looked at, and all that is wrong is told at once."""

import contextlib
import json
import os
import resource
import socket
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest

from tests.app.test_check import ACCOUNT, FELT, HELIUS
from tests.e2e.harness import toml
from tests.polling import solana
from watcher.app.check.command import Wish, check
from watcher.app.check.report import Document
from watcher.app.exit_status import Exit
from watcher.app.file_descriptors import OURS
from watcher.journal import Batch
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.addresses import SOLANA, on_curve
from watcher.redaction.redactor import WITHHELD
from watcher.testing.journal_samples import baseline

KEYS = {"HELIUS_API_KEY": "canary-of-check-6d1f"}
OTHER_KEY, KEY_OF_CAPITALS = "sk-canary-7f6e5d4c3b2a", "CANARYA1B2C3D4E5F6G7H8J9"


@pytest.fixture
def judged(tmp_path, monkeypatch, capsys):
    """A config, checked in a folder of its own: (status, document)."""
    monkeypatch.chdir(tmp_path)

    def judged(environment=KEYS, text=None, **more):
        path = tmp_path / "watcher.toml"
        table = {"journal": f"sqlite:///{tmp_path / 'x.db'}", "relay": {"port": 0}, "providers": {"helius": HELIUS}}
        path.write_text(toml(table | more) if text is None else text)
        status = 0
        try:
            anyio.run(check, path, environment, Wish(offline=True, json=True))
        except Exit as end:
            status = end.status
        said = capsys.readouterr().out
        document = msgspec.json.decode(said, type=Document)
        assert (document.status, document.ok) == (status, status == 0)
        assert "canary" not in said
        assert KEY_OF_CAPITALS not in said
        return status, document

    return judged


def of(document, severity, where):
    return [one for one in document.findings if (one.severity, one.where) == (severity, where)]


def test_a_right_config_is_told_with_its_plan(judged):
    status, document = judged()
    assert status == 0
    assert [one.severity for one in document.findings if one.where != "providers.helius"] == ["info", "info"]
    (plan,) = document.providers
    assert (plan.provider, plan.interval, plan.binding_limit.per, plan.asked) == ("helius", 2.592, 2_592_000.0, 0)


def test_a_source_of_hints_that_tells_of_nothing_watched_is_warned_of(judged):
    node = {"type": "ethereum", "url_env": "NODE"}
    status, document = judged(KEYS | {"NODE": "wss://node.example/canary-1"}, hints=[node, node | {"name": "other"}])
    assert status == 0
    for name in ("ethereum", "other"):
        (warning,) = of(document, "warning", f"hints.{name}")
        assert "eip155:1" in warning.what
    assert of(document, "warning", "hints.solana") == []
    status, document = judged(hints=[node])
    assert status == 2
    (error,) = of(document, "error", "hints.ethereum")
    assert "NODE" in error.what


def test_subscriptions_that_do_not_suffice_are_warned_of(judged):
    table = {**HELIUS, "watch": [{"account": solana(n)} for n in range(5)]}
    node = {"type": "solana", "url_env": "NODE"}
    for most, lines in ((3, 1), (5, 0)):
        _, document = judged(
            KEYS | {"NODE": "wss://node.example/canary-1"},
            providers={"helius": table},
            hints=[node | {"max_subscriptions": most}],
        )
        assert len(of(document, "warning", "hints.solana")) == lines


def test_of_a_whole_chain_no_source_can_tell_and_more_subscriptions_would_not_help(judged):
    for watch in ([{"chain": SOLANA}, {"chain": SOLANA, "account": solana(1)}], [{"chain": SOLANA}]):
        _, document = judged(
            KEYS | {"NODE": "wss://node.example/canary-1"},
            providers={"ondo": {"api_key_env": "HELIUS_API_KEY", "watch": watch}},
            hints=[{"type": "solana", "url_env": "NODE"}],
        )
        (warning,) = of(document, "warning", "hints.solana")
        assert "1 watch of a whole chain" in warning.what


def test_an_age_that_tokenkit_is_always_allowed_is_warned_of_where_hints_bring_reads_forward(judged):
    pair = {"api_key_env": "HELIUS_API_KEY", "watch": [{"account": FELT, "token": FELT}]}
    node = {"type": "starknet", "url_env": "NODE"}
    for age, hints, lines in ((30, [node], 1), (30, [], 0), (0, [node], 0), (None, [node], 0)):
        table = pair if age is None else pair | {"max_age": age}
        keys = KEYS | {"NODE": "wss://node.example/canary-1"}
        _, document = judged(keys, providers={"tokenkit": table}, hints=hints)
        assert len(of(document, "warning", "providers.tokenkit.max_age")) == lines


def test_what_a_source_can_tell_of_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = {"api_key_env": "HELIUS_API_KEY", "watch": [{"account": FELT, "token": FELT}]}
    hints = [{"type": "solana", "url_env": "NODE"}, {"type": "tokenkit", "secret_env": "NODE"}]
    table = {"journal": f"sqlite:///{tmp_path / 'x.db'}", "relay": {"port": 0}, "hints": hints}
    (path := tmp_path / "watcher.toml").write_text(toml(table | {"providers": {"helius": HELIUS, "tokenkit": pair}}))
    anyio.run(check, path, KEYS | {"NODE": "wss://node.example/canary-1"}, Wish(offline=True))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hints")]
    assert lines == [
        "hints solana (solana): can tell of 1 of 2 watches (helius 1)",
        "hints tokenkit (tokenkit): can tell of 1 of 2 watches (tokenkit 1); its webhooks are to be sent to /v1/hooks/tokenkit",
    ]


def test_alerts_are_counted_and_one_that_speaks_of_nothing_is_warned_of(judged):
    account = HELIUS["watch"][0]["account"]
    low = {"below": "5", "account": account}
    tables = [
        low | {"name": "low"},
        low | {"name": "other", "provider": "jupiter"},
        {"name": "silent", "unread_for": 60},
    ]
    status, document = judged(alert=tables)
    assert status == 0
    assert [(one.alert, one.watches) for one in document.alerts] == [("low", 1), ("other", 0), ("silent", 1)]
    (warning,) = of(document, "warning", "alert[1]")
    assert "'other' speaks of nothing that is watched" in warning.what
    assert of(document, "warning", "alert[0]") == of(document, "warning", "alert[2]") == []


def test_decimals_that_a_known_balance_does_not_have_are_warned_of(judged, tmp_path, capsys):
    row = baseline("a", 5)  # of 6 decimals
    alert = {"name": "low", "below": "5", "account": row.state.account}

    async def commit():
        writer = SqliteJournal(tmp_path / "x.db", encoding="json", retention=1e9, clock=lambda: 0).writer(0)
        await writer.open()
        await writer.commit(Batch([row]))
        await writer.close()

    anyio.run(commit)
    capsys.readouterr()
    tables = [alert | {"decimals": row.state.decimals}, alert | {"name": "wrong", "decimals": 18}]
    _, document = judged(alert=tables)
    assert of(document, "warning", "alert[0].decimals") == []
    (warning,) = of(document, "warning", "alert[1].decimals")
    assert f"has {row.state.decimals}" in warning.what


def test_everything_that_is_wrong_is_told_at_once(judged, tmp_path):
    (tmp_path / "tokens.toml").write_text("[[token]]\nsha256 = 'short'\n")
    relay = {"port": 0, "tokens_file": "tokens.toml", "certificate": "none.crt", "key": "none.key"}
    tables = {"helius": HELIUS, "second": {**HELIUS, "api_key_env": "MISSING"}, "ondo": {"api_key_file": "none"}}
    status, document = judged(relay=relay, journal="sqlite:///none/x.db", providers=tables)
    assert status == 2
    told = {one.where: one for one in document.findings if one.severity == "error"}
    assert {*told} == {"relay.tokens_file", "relay.certificate", "journal", "providers.second", "providers.ondo"}
    assert all(one.what and one.next_step for one in told.values()), told


def test_several_wrong_keys_of_the_file_are_told_in_one_document(judged):
    status, document = judged(retention=0, encoding="xml", relay={"prot": 1})
    assert status == 2
    assert {one.where for one in document.findings} == {"retention", "encoding", "relay.prot"}
    assert document.providers == []


def test_a_file_that_is_no_toml_is_a_finding_too(judged):
    status, document = judged(text="journal = ")
    assert status == 2
    assert "not valid TOML" in document.findings[0].what


@pytest.mark.parametrize("pasted", [OTHER_KEY, KEY_OF_CAPITALS])
def test_a_key_in_the_place_of_a_variables_name_is_never_shown(judged, pasted):
    status, document = judged(providers={"helius": {**HELIUS, "api_key_env": pasted}})
    assert status == 2
    (finding,) = document.findings[:1]
    assert "it may be the key itself" in finding.what
    assert finding.next_step.startswith("write the name of a variable")


def test_a_key_that_is_like_our_words_hides_them_and_leaves_a_document(judged):
    status, document = judged({"HELIUS_API_KEY": "there-is-no-database"})
    assert status == 0
    assert WITHHELD in {finding.what for finding in document.findings}


def test_a_busy_port_is_a_warning_since_the_daemon_itself_may_hold_it(judged):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, document = judged(relay={"port": taken.getsockname()[1]})
    assert status == 0
    (finding,) = of(document, "warning", "relay.port")
    assert "in use" in finding.what


def test_an_address_that_is_not_ours_is_an_error(judged):
    status, document = judged(relay={"port": 0, "host": "192.0.2.1", "tokens_env": "HELIUS_API_KEY"})
    assert status == 69
    assert of(document, "error", "relay.port")


@pytest.mark.parametrize(
    ("journal", "severity", "says"),
    [
        ("sqlite:///none/x.db", "error", "there is no folder none"),
        ("sqlite:///folder", "error", "is a folder"),
        ("sqlite:///foreign.db", "error", "another program's database"),
        ("sqlite:///damaged.db", "error", "is damaged"),
        ("sqlite:///old.db", "info", "is of format 1"),
        ("sqlite:///held.db", "warning", "locked by another process"),
        ("sqlite:///new.db", "info", "there is no database"),
        ("sqlite:///var/balances.db", "info", "`run` makes folder and file"),
        ("sqlite:///var/balances.db", "info", "path is relative: started in "),
    ],
)
def test_the_journal_is_looked_at_as_run_would(judged, tmp_path, journal, severity, says):
    (tmp_path / "folder").mkdir()
    (tmp_path / "damaged.db").write_bytes(b"no database at all" * 100)
    with contextlib.ExitStack() as open_files:
        for name, statements in (
            ("foreign.db", "CREATE TABLE t (x);"),
            ("old.db", f"PRAGMA application_id = {0x62616C77}; PRAGMA user_version = 1; CREATE TABLE meta (x);"),
            ("held.db", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE t (x);"),
        ):
            file = open_files.enter_context(contextlib.closing(sqlite3.connect(tmp_path / name, isolation_level=None)))
            file.executescript(statements) if name != "held.db" else [*map(file.execute, statements.split(";"))]
        before = {path: path.read_bytes() for path in tmp_path.glob("*.db")}
        status, document = judged(journal=journal)
        assert before == {path: path.read_bytes() for path in before}
    assert [one for one in of(document, severity, "journal") if says in f"{one.what}: {one.next_step}"], document
    assert status == {"error": 2 if "another" in says else 69}.get(severity, 0)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(judged, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    status, document = judged(journal="sqlite:///closed/x.db")
    assert status == 69
    assert "cannot be written" in of(document, "error", "journal")[0].what


AUTHORITY = """[ca]
default_ca = d
[d]
new_certs_dir = .
database = index
rand_serial = yes
default_md = sha256
policy = p
[p]
commonName = supplied
"""


def certificate(folder, name, days):
    """A certificate by itself that is over in so many days, and its key, PEM."""
    (folder / "ca.conf").write_text(AUTHORITY)
    (folder / "index").write_text("")
    until = datetime.now(UTC) + timedelta(days=days)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]
    dates = ["-startdate", "20200101000000Z", "-enddate", f"{until:%Y%m%d%H%M%SZ}"]
    for command in (
        ["openssl", "req", "-new", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr"],
        ["openssl", "ca", "-batch", "-selfsign", "-config", "ca.conf", "-notext", *dates, "-keyfile", f"{name}.key",
         "-in", f"{name}.csr", "-out", f"{name}.crt"],
    ):  # fmt: skip
        if subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode:
            pytest.skip("no openssl to make a certificate with")


@pytest.mark.parametrize(
    ("pair", "severity", "says"),
    [
        (("good", "good"), None, ""),
        (("over", "over"), "error", "has expired"),
        (("late", "late"), "warning", "expires in"),
        (("good", "late"), "error", "key values mismatch"),
        (("none", "none"), "error", "No such file"),
    ],
)
def test_a_certificate_is_tried_in_a_handshake(judged, tmp_path, pair, severity, says):
    for name, days in (("good", 90), ("late", 2), ("over", -2)):
        certificate(tmp_path, name, days)
    status, document = judged(relay={"port": 0, "certificate": f"{pair[0]}.crt", "key": f"{pair[1]}.key"})
    told = [one for one in document.findings if one.where == "relay.certificate"]
    if severity is None:
        assert told == []
        return
    (finding,) = told
    assert (finding.severity, status) == (severity, 2 if severity == "error" else 0)
    assert says in finding.what


@pytest.mark.parametrize(
    ("limits", "severity", "said"),
    [
        ((1024, 1024), "warning", "allows the relay 621 connections, and [relay] max_connections asks for 10,000"),
        ((200, 200), "error", "allows the relay 0 connections"),
        ((11_220, 20_000), None, ""),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, ""),
    ],
)
def test_a_limit_of_open_files_that_is_too_low_is_told(judged, monkeypatch, limits, severity, said):
    assert OURS
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    _, document = judged()
    found = [one for one in document.findings if "open files" in one.what]
    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all(said in one.what for one in found)


def test_a_watch_that_is_written_twice_is_named_by_its_places(judged):
    pair = {"account": FELT, "token": "0x1"}
    watches = [pair, {"account": FELT}, {"account": FELT, "token": "0x0001"}]
    table = {"api_key_env": "HELIUS_API_KEY", "watch": watches}
    _, document = judged(providers={"tokenkit": table})
    (finding,) = of(document, "warning", "providers.tokenkit.watch[2]")
    assert "watch[0] asks for already" in finding.what


def test_a_wallet_that_helius_is_given_is_pointed_out(judged):
    derived = "5Q544fKrFoe6tsEbD7S8EmxGTJYAKtTVhAW5Q5pge4j1"  # by a program of Raydium's
    watches = [{"account": ACCOUNT}, {"account": derived}]
    assert [on_curve(ACCOUNT), on_curve(derived)] == [True, False]
    _, document = judged(providers={"helius": {**HELIUS, "watch": watches}})
    assert of(document, "info", "providers.helius.watch[0].account")
    assert not of(document, "info", "providers.helius.watch[1].account")


def test_public_keys_of_rfc_8032_lie_on_the_curve():
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    for digits in (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    ):
        number, text = int(digits, 16), ""
        while number:
            number, rest = divmod(number, 58)
            text = alphabet[rest] + text
        assert on_curve(text)


def test_the_document_is_what_the_readme_shows(judged):
    _, document = judged()
    assert {*json.loads(msgspec.json.encode(document))} == {"ok", "status", "findings", "providers"}
    assert document.findings[0].__struct_fields__ == ("severity", "where", "what", "next_step")


def test_offline_no_broker_is_asked_and_that_is_said(judged):
    status, document = judged(journal="kafka://127.0.0.1:9")
    assert status == 0
    (finding,) = of(document, "info", "journal")
    assert (finding.what, finding.next_step) == ("the broker is not asked for its topics", "leave --offline out")
