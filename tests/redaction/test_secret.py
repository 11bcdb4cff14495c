"""A secret is read in one way, hidden by being read, and shown by nobody; one that cannot be used says so by its name."""

import copy
import json
import os
import pickle
import re

import msgspec
import pytest

from watcher.app import settings
from watcher.app.provider_sources import Source, sources
from watcher.journal.kafka.settings import KafkaSettings, security
from watcher.providers.protocol import Credentials
from watcher.redaction import secret
from watcher.redaction.redactor import SECRETS, WITHHELD
from watcher.redaction.secret import LONGEST, Secret, of_file, of_variable, several, without_user
from watcher.relay.http import auth
from watcher.relay.settings import RelaySettings
from watcher.runtime.config_section import SettingsError

KEY = "canary-9f0c3b77aa41d2e8"
HELIUS = {"type": "helius", "watch": [{"account": "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"}]}


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    for name, nothing in (("_secrets", []), ("_windows", frozenset()), ("_allowed", frozenset())):
        monkeypatch.setattr(SECRETS, name, nothing)


def built(environment=None, **table):
    (source,) = sources(settings.parse({"providers": {"helius": HELIUS | table}}), environment or {})
    return source


def test_only_reveal_gives_it():
    one = Secret(KEY)
    assert one.reveal() == KEY
    struct = Source(built({"K": KEY}, api_key_env="K").provider, one)
    for shown in (repr(one), str(one), f"{one}", f"{one:>30}", f"{one!r}", "%s" % one, repr([one]), repr(struct)):  # noqa: UP031
        assert "canary" not in shown
        assert SECRETS.redacted(shown) != WITHHELD
    assert json.dumps({"key": one}, default=repr) == '{"key": "***"}'
    for writes in (msgspec.json.encode, pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as raised:
            writes({"key": one})
        assert "canary" not in str(raised.value)
    assert (one == Secret(KEY), one == Secret(KEY + "x"), one == KEY, len({one, Secret(KEY)})) == (
        True,
        False,
        False,
        1,
    )
    assert "canary" not in repr(Credentials(headers={"x": KEY}))


def of_provider(text, tmp_path):
    assert built({"K": text}, api_key_env="K").secret.reveal() == KEY


def of_providers_file(text, tmp_path):
    (tmp_path / "key").write_text(text, encoding="utf-8")
    assert built(api_key_file=str(tmp_path / "key")).secret.reveal() == KEY


def of_kafka(text, tmp_path):
    options = KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_env="P")
    assert security(options, {"P": text})["sasl_plain_password"] == KEY


def of_kafkas_file(text, tmp_path):
    (tmp_path / "key").write_text(text, encoding="utf-8")
    named = str(tmp_path / "key")
    options = KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_file=named)
    assert security(options, {})["sasl_plain_password"] == KEY


def of_kafkas_certificate(text, tmp_path):
    security(KafkaSettings(security_protocol="SSL", ssl_key_password_env="P"), {"P": text})


def of_relay(text, tmp_path):
    assert auth.load(RelaySettings(tokens_env="T"), {"T": f"other-one,{text},"}).rights(KEY.encode()) is not None


@pytest.mark.parametrize("text", [KEY, f"  {KEY}\r\n", f"\ufeff{KEY}\n"])
@pytest.mark.parametrize(
    "read", [of_provider, of_providers_file, of_kafka, of_kafkas_file, of_kafkas_certificate, of_relay]
)
def test_every_section_reads_it_alike_and_hides_it_by_that(read, text, tmp_path):
    if read is of_relay:
        text = text.lstrip("\ufeff")
    assert not SECRETS.leaks(KEY)
    read(text, tmp_path)
    assert SECRETS.redacted(f"x {KEY[3:11]} y") == WITHHELD


UNFIT = {
    "typographic quote": (f"{KEY}\u2019", "U+2019 right single quotation mark"),
    "typographic quotes around": (f"\u201c{KEY}\u201d", "U+201C"),
    "umlaut": (f"{KEY}é", "U+00E9"),
    "ellipsis": (f"{KEY[:9]}…{KEY[9:]}", "U+2026"),
    "cyrillic": (KEY.replace("a", "\u0430"), "U+0430"),
    "zero width": (f"{KEY}\u200b{KEY}", "cannot be seen (U+200B"),
    "control": (f"{KEY}\x07{KEY}", "cannot be seen (U+0007"),
    "two lines": (f"{KEY}\n{KEY}", "more than one line"),
    "header smuggled": (f"{KEY}\r\nX-Evil: 1", "more than one line"),
    "no UTF-8": (f"{KEY}\udcff", "is not UTF-8"),
    "quotes": (f'"{KEY}"', "quotation marks"),
    "single quotes": (f"'{KEY}'", "quotation marks"),
    "bearer": (f"Bearer {KEY}", "begins with `Bearer`"),
    "header": (f"x-api-key: {KEY}", "begins with `x-api-key:`"),
    "assignment": (f"HELIUS_KEY={KEY}", "begins with `HELIUS_KEY=`"),
    "export": (f"export HELIUS_KEY={KEY}", "begins with `export HELIUS_KEY=`"),
    "address": (f"https://mainnet.helius-rpc.com/?api-key={KEY}", "a whole address"),
    "long": (KEY * 400, "more than 8192 bytes"),
}


@pytest.mark.parametrize(("text", "says"), UNFIT.values(), ids=UNFIT)
def test_a_key_that_cannot_be_right_is_one_line_that_names_its_place_and_not_the_key(text, says, tmp_path):
    complaints = []
    with pytest.raises(SettingsError) as raised:
        built({"HELIUS_KEY": text}, api_key_env="HELIUS_KEY")
    complaints.append(str(raised.value))
    assert "[providers.helius]: api_key_env names HELIUS_KEY" in complaints[0]
    if "\udcff" not in text:
        path = tmp_path / "helius.key"
        path.write_text(text, encoding="utf-8", newline="")
        with pytest.raises(SettingsError) as raised:
            built(api_key_file=str(path))
        complaints.append(str(raised.value))
        assert str(path) in complaints[1]
    for complaint in complaints:
        assert says in complaint
        assert "canary" not in complaint
        assert "\n" not in complaint
        assert SECRETS.scrubbed(complaint) == complaint
    if len(text) < 100:
        assert "long" in says or SECRETS.leaks(KEY[2:12])


@pytest.mark.parametrize(
    "text",
    [
        "MGY5ZjhiMWUtYWFhYTowMTIzNDU2Nzg5YWJjZGVmMDEy",
        "MGY5ZjhiMWUtYWFhYTowMTIzNDU2Nzg5YWJjZGVmMDE=",
        "Y2FuYXJ5Zmlyc3Q=Y2FuYXJ5c2Vjb25k",
        "canary_first=canary_second",
        "Basic Y2FuYXJ5OmNhbmFyeQ==",
        "id:canary/+#%&?~",
        "bearer-canary-1",
        "BearerCanary",
    ],
)
def test_what_a_header_can_carry_is_a_key_and_a_token(text):
    assert secret.key(text) is None
    assert secret.token(text) is None


@pytest.mark.parametrize("text", ["\u201ctoken-1\u201d", '"token-1"', "Bearer token-1", "tok\u200ben", "tok\nen"])
def test_a_token_that_no_header_can_carry_is_refused(text):
    with pytest.raises(SettingsError, match=r"\[relay\] tokens_env names TOKENS, which "):
        auth.load(RelaySettings(tokens_env="TOKENS"), {"TOKENS": f"fine,{text}"})
    with pytest.raises(SettingsError, match="--token-env names TOKENS, which "):
        of_variable("--token-env", "TOKENS", {"TOKENS": text}, secret.token)


def test_a_password_may_be_written_in_any_letters():
    options = KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_env="P")
    for password in ("pässwörd 5€", '"quoted"', "a=b,c"):
        assert security(options, {"P": password})["sasl_plain_password"] == password
    with pytest.raises(SettingsError, match="P, which holds a character that cannot be seen"):
        security(options, {"P": "pass\x00word"})


def test_a_secret_that_is_named_twice_is_refused():
    with pytest.raises(SettingsError, match=r"\[providers.helius\]: api_key_env and api_key_file are both given: keep"):
        built({"K": KEY}, api_key_env="K", api_key_file="k")
    options = KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password_env="P")
    with pytest.raises(
        SettingsError, match=r"\[kafka\] sasl_password_env and sasl_password_file are both given: keep one"
    ):
        security(msgspec.structs.replace(options, sasl_password_file="p"), {"P": KEY})


def test_what_stands_where_a_name_belongs_is_not_told(tmp_path):
    for name in (KEY, "8d3f2c1a77aa4b0e9c110123456789ab", "a/b", ""):
        with pytest.raises(SettingsError) as raised:
            of_variable("[x] api_key_env", name, {})
        assert not name or name not in str(raised.value)
        assert "write the name of a variable" in str(raised.value)
    for name in (KEY, f"eyJhbGciOiJIUzI1NiJ9.{KEY}.c2ln", f"MGY5ZjhiMWUtYWFhYTow/{KEY}+YWJjZA==", f"a/{KEY * 500}"):
        with pytest.raises(SettingsError) as raised:
            of_file("[x] api_key_file", name)
        assert "canary" not in str(raised.value)
    for name in ("helius.key", "keys/helius", f"{tmp_path}/{'k' * 40}", f"./{'k' * 40}", f"tests/{'k' * 40}"):
        with pytest.raises(SettingsError, match=re.escape(name)):
            of_file("[x] api_key_file", name)
    with pytest.raises(SettingsError, match="as in --token-env MY_KEY, and export"):
        of_variable("--token-env", KEY, {})
    with pytest.raises(SettingsError, match="MY_KEY, which is not set: export MY_KEY="):
        of_variable("[x] api_key_env", "MY_KEY", {})
    with pytest.raises(SettingsError, match="MY_KEY, which is empty"):
        of_variable("[x] api_key_env", "MY_KEY", {"MY_KEY": " \n"})


def test_a_file_that_is_no_key_is_told_by_its_path(tmp_path):
    def complaint(content=None):
        path = tmp_path / "key.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError) as raised:
            of_file("[x] api_key_file", str(path))
        assert str(path) in str(raised.value)
        return str(raised.value)

    assert "cannot be read: No such file" in complaint()
    assert "is empty" in complaint(b"\xef\xbb\xbf \r\n")
    assert "not UTF-8" in complaint(KEY.encode("utf-16"))
    assert "not UTF-8" in complaint(b"\xff" + KEY.encode())
    assert f"more than {LONGEST} bytes" in complaint(b"x" * (LONGEST + 1))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(SettingsError, match="which is no regular file"):
            of_file("[x] api_key_file", str(path))
    with pytest.raises(SettingsError, match="no file"):
        of_file("[x] api_key_file", "a/\0")


def test_a_short_secret_is_blotted_out_and_a_tiny_one_is_warned_of(capsys):
    assert of_variable("[x] k", "K", {"K": "four"}).reveal() == "four"
    assert SECRETS.redacted("on all fours") == "on all ***s"
    assert of_variable("[x] k", "K", {"K": "a"}).reveal() == "a"
    assert SECRETS.redacted("a banana") == "a banana"
    assert "secret.short" in capsys.readouterr().out


def test_thousands_of_tokens_are_read_in_no_time():
    tokens = [f"token-{number:05d}-{number * 7919:x}" for number in range(3000)]
    found = several("[relay] tokens_env", "T", {"T": ",".join(tokens)})
    assert [one.reveal() for one in found] == tokens
    assert SECRETS.leaks(tokens[2999])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ws://127.0.0.1:8765/v1/stream", "ws://127.0.0.1:8765/v1/stream"),
        (f"wss://me:{KEY}@desk.example/v1", "wss://***@desk.example/v1"),
        (f"wss://{KEY}@desk.example", "wss://***@desk.example"),
        (f"wss://a@b:{KEY}@desk.example", "wss://***@desk.example"),
        (f"ws://h/v1?token={KEY}", "ws://h/v1?***"),
        (f"ws://h/v1#t={KEY}", "ws://h/v1?***"),
        (f"kafka://u:{KEY}@a:9092,u:{KEY}@b:9092", "kafka://***@b:9092"),
    ],
)
def test_an_address_is_told_without_its_user_and_query(address, shown):
    assert without_user(address) == shown
    assert SECRETS.leaks(KEY) == (KEY in address)


def test_no_address_of_the_config_holds_a_user_or_a_key():
    with pytest.raises(SettingsError, match="base_url holds a user or a password"):
        built({"K": KEY}, api_key_env="K", base_url=f"https://me:{KEY}@h.example/x")
    with pytest.raises(SettingsError, match="leave out what follows"):
        built({"K": KEY}, api_key_env="K", base_url=f"https://h.example/?api-key={KEY}")
    assert built({"K": KEY}, api_key_env="K", base_url="https://h.example/@x").provider.base_url.endswith("/@x")
    for journal, says in (
        (f"kafka://me:{KEY}@a:9092", "sasl_password_env"),
        (f"kafka://a:9092?password={KEY}", "sasl_password_env"),
        (f"postgres://me:{KEY}@a/b", "kafka://HOST:PORT"),
    ):
        with pytest.raises(SettingsError) as raised:
            settings.parse({"journal": journal})
        assert "canary" not in str(raised.value)
        assert says in str(raised.value)
    with pytest.raises(SettingsError) as refused:
        RelaySettings(origins=[f"https://me:{KEY}@desk.example"]).check()
    assert "canary" not in str(refused.value)
