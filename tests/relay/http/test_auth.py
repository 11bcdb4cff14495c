"""Tokens, their rights, and which pages may connect."""

import hashlib
import os
import re
from pathlib import Path

import pytest

from watcher.model.keys import Filter
from watcher.relay.http.auth import EVERYTHING, Guard, bearer, is_known_host, known_hosts, load, same_origin
from watcher.relay.settings import RelaySettings
from watcher.runtime.config_section import SettingsError


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def test_tokens_from_the_environment_have_all_rights():
    tokens = load(RelaySettings(tokens_env="T"), {"T": " one, twö ,,"})
    assert tokens.rights(b"one") == EVERYTHING
    assert tokens.rights("twö".encode()) == EVERYTHING
    for wrong in (b"", b"on", b"one ", b"one,", b"ONE", b"\xff\xfe", b" one"):
        assert tokens.rights(wrong) is None


def test_a_pipe_of_tokens_is_not_waited_at(tmp_path):
    os.mkfifo(tmp_path / "tokens")
    with pytest.raises(SettingsError, match="is a pipe"):
        load(RelaySettings(tokens_file=str(tmp_path / "tokens")), {})


def test_tokens_of_a_file_are_bound(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[token]]\nsha256 = "{digest("desk")}"\nprovider = ["helius"]\naccount = ["b", "a"]\n'
        f'[[token]]\nsha256 = "{digest("all").upper()}"\n'
    )
    tokens = load(RelaySettings(tokens_file=str(path)), {})
    assert tokens.rights(b"desk") == Filter(provider=("helius",), account=("a", "b"))
    assert tokens.rights(b"all") == EVERYTHING
    assert tokens.rights(digest("desk").encode()) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "token"),
        ("token = []", "no [[token]]"),
        ('[[token]]\nsha256 = "ab"', "64 hex digits"),
        ('[[token]]\nsha256 = "xyz"', "hex"),
        (f'[[token]]\nsha256 = "{digest("x")}"\naccount = []', "at least one"),
        (f'[[token]]\nsha256 = "{digest("x")}"\nchain = ["solana"]', "chain = 'solana' is not a chain"),
        (f'[[token]]\nsha256 = "{digest("x")}"\nwallet = ["a"]', "wallet"),
        (f'[[token]]\nsha256 = "{digest("x")}"\nhint = "yes"', "hint"),
        (f'[[token]]\nsha256 = "{digest("x")}"\nname = ""', "name of the token 2d711642…: write 1 to 32"),
        (f'[[token]]\nsha256 = "{digest("x")}"\nname = "a\\u001b[31m"', "letters, digits"),
        (f'[[token]]\nsha256 = "{digest("x")}"\nname = "{"n" * 33}"', "1 to 32"),
        (f'[[token]]\nsha256 = "{digest("canary")}"\nname = "canary"', "is a token"),
        (
            f'[[token]]\nsha256 = "{digest("canary")}"\n[[token]]\nsha256 = "{digest("x")}"\nname = "canary"',
            "is a token",
        ),
        (
            f'[[token]]\nsha256 = "{digest("x")}"\nname = "bot"\n[[token]]\nsha256 = "{digest("y")}"\nname = "bot"',
            "two tokens are called bot",
        ),
        (
            f'[[token]]\nsha256 = "{digest("x")}"\n[[token]]\nsha256 = "{digest("y")}"\nname = "{digest("x")[:8]}"',
            "two tokens are called 2d711642",
        ),
        ("[[token", "tokens.toml"),
    ],
)
def test_a_wrong_tokens_file_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="tokens_file") as raised:
        load(RelaySettings(tokens_file=str(path)), {})
    assert says in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_token_of_the_variable_is_no_name_in_the_file_either(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[[token]]\nsha256 = "{digest("x")}"\nname = "canary-4f1b9e"\n')
    with pytest.raises(SettingsError, match="name of the token 2d711642… is a token") as raised:
        load(RelaySettings(tokens_file=str(path), tokens_env="T"), {"T": "one,canary-4f1b9e"})
    assert "canary" not in str(raised.value)


def test_a_token_is_counted_under_its_name_or_the_first_digits_of_its_digest_and_those_of_a_variable_together(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[token]]\nsha256 = "{digest("desk")}"\nname = "Desk_bot-1"\n'
        f'[[token]]\nsha256 = "{digest("all").upper()}"\n'
        f'[[token]]\nsha256 = "{digest("all")}"\n'
        f'[[token]]\nsha256 = "{digest("reader")}"\nname = "desk-reader"\nprovider = ["helius"]\n'
    )
    settings = RelaySettings(tokens_file=str(path), tokens_env="T")
    tokens = load(settings, {"T": "one,two"})
    guard = Guard(settings, tokens)
    found = {name: guard.find(f"Bearer {name}").sender for name in ("desk", "all", "reader", "one", "two")}
    assert found == {"desk": "Desk_bot-1", "all": digest("all")[:8], "reader": "desk-reader", "one": "", "two": ""}
    assert tokens.senders == {"Desk_bot-1", digest("all")[:8]}, "who may not hint is no sender"
    assert guard.find("Bearer other") is None
    assert Guard(RelaySettings(), None).find(None).sender == ""


def test_a_token_that_gets_another_name_keeps_its_streams_and_that_is_a_change(tmp_path):
    path = tmp_path / "tokens.toml"
    settings = RelaySettings(tokens_file=str(path))

    def loaded(lines):
        path.write_text(f'[[token]]\nsha256 = "{digest("desk")}"\n{lines}\n')
        return load(settings, {})

    guard = Guard(settings, loaded(""))
    stream = guard.rights("Bearer desk")
    named = loaded('name = "desk-bot"')
    assert guard.tokens != named
    guard.use(settings, named)
    assert guard.grants(stream)
    assert guard.find("Bearer desk").sender == "desk-bot"


def test_a_missing_tokens_file_and_an_empty_variable_are_errors(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load(RelaySettings(tokens_file=str(tmp_path / "none")), {})
    for environ in ({}, {"T": ""}, {"T": " , "}):
        with pytest.raises(SettingsError, match=r"T, which is (empty|not set)"):
            load(RelaySettings(tokens_env="T"), environ)


@pytest.mark.parametrize(
    ("lines", "may"),
    [
        ("", True),
        ("hint = true", True),
        ("hint = false", False),
        ('provider = ["helius"]', False),
        ('provider = ["helius"]\nhint = true', True),
        ('account = ["a"]\nhint = false', False),
    ],
)
def test_who_is_bound_may_hint_only_where_it_says_so(tmp_path, lines, may):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[[token]]\nsha256 = "{digest("desk")}"\n{lines}\n')
    settings = RelaySettings(tokens_file=str(path))
    guard = Guard(settings, load(settings, {}))
    rights = guard.rights("Bearer desk")
    assert guard.may_hint("Bearer desk") is (rights if may else None)
    assert rights is not None
    for wrong in ("Bearer other", "Basic desk", "", None):
        assert guard.may_hint(wrong) is None


def test_without_tokens_and_with_plain_ones_everybody_who_is_let_in_may_hint():
    assert Guard(RelaySettings(), None).may_hint(None) == EVERYTHING
    settings = RelaySettings(tokens_env="T")
    guard = Guard(settings, load(settings, {"T": "one"}))
    assert guard.may_hint("Bearer one") == EVERYTHING
    assert guard.may_hint(None) is None


def test_a_right_to_hint_that_comes_or_goes_leaves_streams_alone(tmp_path):
    """They are known by their rights, which are what they were."""
    path = tmp_path / "tokens.toml"
    settings = RelaySettings(tokens_file=str(path))

    def loaded(lines):
        path.write_text(f'[[token]]\nsha256 = "{digest("desk")}"\nprovider = ["helius"]\n{lines}\n')
        return load(settings, {})

    before = loaded("")
    guard = Guard(settings, before)
    stream = guard.rights("Bearer desk")
    after = loaded("hint = true")
    assert before != after
    guard.use(settings, after)
    assert guard.grants(stream)
    assert guard.may_hint("Bearer desk") is stream
    guard.use(settings, loaded("hint = false"))
    assert guard.grants(stream)
    assert guard.may_hint("Bearer desk") is None
    guard.use(settings, loaded('account = ["a"]\nhint = true'))
    assert not guard.grants(stream)


def test_without_either_key_no_token_is_asked_for():
    assert load(RelaySettings(), {"WATCHER_TOKENS": "x"}) is None


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", b"abc"),
        ("bearer  abc ", b"abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        ("Bearer tw\xc3\xb6", "twö".encode()),
    ],
)
def test_a_bearer_header_is_read_as_the_bytes_on_the_wire(header, token):
    assert bearer(header) == token


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:8765", "127.0.0.1:8765", True),
        ("https://desk.example", "desk.example", True),
        ("https://desk.example", "desk.example:443", True),
        ("http://[::1]:8765", "[::1]:8765", True),
        ("http://Desk.example", "desk.EXAMPLE", True),
        ("http://127.0.0.1:8766", "127.0.0.1:8765", False),
        ("http://evil.example", "desk.example", False),
        ("http://desk.example.evil.example", "desk.example", False),
        ("null", "desk.example", False),
        ("", "", False),
        ("file://", "", False),
        ("http://", "", False),
        ("http://x:notaport", "x", False),
        ("http://x", "x:99999", False),
    ],
)
def test_same_origin_is_the_same_host_and_port(origin, host, same):
    assert same_origin(origin, host) is same


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8765", True),
        ("127.0.0.1:8765", True),
        ("127.8.9.10", True),
        ("[::1]:8765", True),
        ("[::1]", True),
        ("desk.example", True),
        ("Desk.Example:9000", True),
        ("mybox:8765", True),
        ("evil.example", False),
        ("evil.example:8765", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("desk.example.evil.example", False),
        ("localhost@evil.example", False),
        ("192.168.1.7:8765", False),
        ("0.0.0.0", False),
        ("[::1", False),
        ("::1", False),
        (":8765", False),
        ("", False),
    ],
)
def test_a_host_is_ours_by_name_or_as_a_loopback_address(host, ours):
    settings = RelaySettings(host="MyBox", origins=["https://desk.example", "http://other.example:81"])
    assert is_known_host(host, known_hosts(settings)) is ours


# ── Samples open nothing ─────────────────────────────────────────────────────────────────────────────────────────────

ROOT = Path(__file__).parents[3]
SAMPLES = [*(ROOT / "docs").glob("*.md"), *(ROOT / "config").iterdir(), ROOT / "README.md", ROOT / "docker-compose.yml"]


def test_no_sample_of_a_tokens_file_opens_a_relay(tmp_path):
    blocks = [
        block
        for path in SAMPLES
        for block in re.findall(r"^\[\[token\]\].*?(?=^```|\Z)", path.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert blocks
    for block in blocks:
        (tmp_path / "tokens.toml").write_text(block)
        with pytest.raises(SettingsError, match="64 hex digits"):
            load(RelaySettings(tokens_file=str(tmp_path / "tokens.toml")), {})


def test_no_digest_that_stands_in_docs_or_config_is_one_of_a_token():
    texts = [path.read_text() for path in SAMPLES]
    assert [found for text in texts for found in re.findall(r"(?<!0x)(?<!sha256:)\b[0-9a-f]{64}\b", text)] == []


@pytest.mark.parametrize("token", ["", "\n", "$TOKEN", "test", "test\n"])
def test_a_digest_of_nothing_or_of_a_first_try_is_refused(tmp_path, token):
    (tmp_path / "tokens.toml").write_text(f'[[token]]\nsha256 = "{digest(token)}"\n')
    with pytest.raises(SettingsError, match="make a token by chance"):
        load(RelaySettings(tokens_file=str(tmp_path / "tokens.toml")), {})
