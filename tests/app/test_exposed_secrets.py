"""What of a config others could read is told, each once, and what nobody can is not."""

import errno
import os
import struct
from pathlib import Path

import pytest

from tests.app.test_settings import HELIUS
from tests.webhooks.samples import secret
from watcher.app import settings
from watcher.app.exposed_secrets import ACL, GROUP, USER, exposed, here, readers
from watcher.app.hint_sources import hint_sources
from watcher.app.provider_sources import sources
from watcher.app.webhook_runs import webhooks_of

NOBODY = 0xFFFFFFFF
"""The id of an entry that names nobody."""


@pytest.fixture
def file(tmp_path):
    """A file with these rights."""

    def made(name, mode):
        path = tmp_path / name
        path.write_text("canary")
        path.chmod(mode)
        return str(path)

    return made


def told(config, relay=None, kafka=None, **environment):
    tables = {"relay": relay or {}} | ({} if kafka is None else {"journal": "kafka://localhost:9092", "kafka": kafka})
    config = settings.parse({**config, **tables})
    return list(exposed(config, sources(config, environment), hint_sources(config, environment, polls=True)))


def keyed(**more):
    return {"providers": {"helius": {name: value for name, value in {**HELIUS, **more}.items() if value is not None}}}


def test_each_file_with_a_secret_that_others_can_read_is_told_with_what_to_do(file):
    names = ("api_key", "tokens", "relay-key", "password", "kafka-key")
    key, tokens, relay_key, password, kafka_key = files = [file(name, 0o644) for name in names]
    lines = told(
        keyed(api_key_env=None, api_key_file=key),
        {"tokens_file": tokens, "certificate": "x", "key": relay_key},
        {"sasl_password_file": password, "ssl_keyfile": kafka_key},
    )
    assert [line.rpartition(" ")[2] for line in lines] == files
    assert lines[0].startswith(
        f"[providers.helius] api_key_file: {key} can be read by its group and everyone (mode 0644"
    )
    assert all(f"chmod 600 {name}" in line for name, line in zip(files, lines, strict=True))
    for name in files:
        os.chmod(name, 0o600)  # noqa: PTH101
    assert not told(keyed(api_key_env=None, api_key_file=key), {"tokens_file": tokens})


def test_the_files_and_the_plain_address_of_a_source_of_hints_are_told(file):
    secret = file("secret", 0o644)
    url = Path(file("url", 0o604))
    url.write_text("wss://node.example/canary-key")
    hints = [
        {"type": "ethereum", "url_file": str(url)},
        {"type": "tokenkit", "secret_file": secret},
        {"type": "starknet", "url_env": "PLAIN"},
        {"type": "solana", "url_env": "HERE"},
    ]
    environment = {
        "HELIUS_API_KEY": "canary-1",
        "PLAIN": "ws://node.example/canary-two",
        "HERE": "ws://127.0.0.1:1/canary-3",
    }
    lines = told({**keyed(), "hints": hints}, **environment)
    assert [line.split(":")[0] for line in lines] == [
        "[[hints]] ethereum url_file",
        "[[hints]] tokenkit secret_file",
        "[[hints]] starknet",
    ]
    assert lines[2].endswith("write wss://")
    assert "canary" not in "".join(lines)


def test_the_files_and_the_plain_address_of_a_webhook_are_told(file):
    signs, place = Path(file("signs", 0o644)), Path(file("place", 0o604))
    signs.write_text(secret())
    place.write_text("http://hooks.example/canary-path")
    tables = [
        {"name": "plain", "url_file": str(place), "secret_file": str(signs), "allow_private": True},
        {"url": "http://localhost:1/x", "secret_env": "SIGNS", "allow_private": True},
        {"url": "https://hooks.example/x", "secret_env": "SIGNS"},
    ]
    config, environment = settings.parse({"webhook": tables}), {"SIGNS": secret()}
    lines = list(exposed(config, [], [], webhooks_of(config, environment, polls=True)))
    assert [line.split(":")[0] for line in lines] == [
        "[[webhook]] plain secret_file",
        "[[webhook]] plain url_file",
        "[[webhook]] plain",
    ]
    assert "chmod 600" in lines[0]
    assert lines[2].endswith("write https://")
    assert "canary" not in "".join(lines)


def test_the_database_and_the_files_beside_it_are_told(file, tmp_path):
    for name, mode in (("x.db", 0o640), ("x.db-wal", 0o604), ("x.db-shm", 0o600)):
        file(name, mode)
    lines = told({"journal": f"sqlite:///{tmp_path / 'x.db'}", **keyed(api_key_env="KEY")}, KEY="canary-1")
    assert ["its group (mode 0640" in lines[0], "everyone (mode 0604" in lines[1], len(lines)] == [True, True, 2]


def test_a_link_is_judged_by_the_file_behind_it_and_a_missing_one_not_at_all(file, tmp_path):
    (tmp_path / "link").symlink_to(file("private", 0o600))
    assert readers(tmp_path / "link") == ""
    assert readers(tmp_path / "missing") == ""


def listed(path, *readers):
    """The path, with an access list: these (tag, id) may read it, its group may not."""
    entries = [(0x01, 4, NOBODY), *((tag, 4, who) for tag, who in readers), (0x04, 0, NOBODY), (0x10, 4, NOBODY)]
    packed = b"".join(struct.pack("<HHI", *entry) for entry in sorted([*entries, (0x20, 0, NOBODY)]))
    try:
        os.setxattr(path, ACL, struct.pack("<I", 2) + packed)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this file system keeps no access lists")
    return Path(path)


def test_a_credential_that_systemd_gives_us_alone_is_not_told_and_other_access_lists_are(file):
    ours = listed(file("helius", 0o400), (USER, os.geteuid()))
    assert ours.stat().st_mode & 0o777 == 0o440  # which looks like the group's
    assert readers(ours) == ""
    assert "others of its access list (mode 0440" in readers(listed(file("lent", 0o400), (USER, 54321)))
    assert "others of its access list" in readers(listed(file("shared", 0o400), (GROUP, 54321)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_file_that_is_somebody_elses_is_told(file):
    path = file("key", 0o600)
    os.chown(path, 12345, 12345)
    assert readers(Path(path)) == ("its owner (mode 0600, owner 12345)")


@pytest.mark.parametrize(
    ("url", "key", "told_of"),
    [
        ("http://balances.example/x", "KEY", True),
        ("http://10.0.0.5:8080", "KEY", True),
        ("http://localhost.example", "KEY", True),
        ("http://127.0.0.1.example", "KEY", True),
        ("https://balances.example", "KEY", False),
        ("http://127.0.0.1:9100/helius", "KEY", False),
        ("http://[::1]:9100", "KEY", False),
        ("http://LOCALHOST:9100", "KEY", False),
    ],
)
def test_a_key_in_plain_http_beyond_loopback_is_told(url, key, told_of):
    lines = told(keyed(base_url=url, api_key_env=key), KEY="canary-1")
    assert bool(lines) == told_of
    assert all("plain HTTP" in line and "canary" not in line for line in lines)


def test_plain_http_without_a_key_is_nobodys_business():
    jupiter = {"base_url": "http://10.0.0.5", "watch": [{"account": HELIUS["watch"][0]["account"]}]}
    assert told({"providers": {"jupiter": jupiter}}) == []


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        *((host, True) for host in ("127.8.9.1", "::1", "::ffff:127.0.0.1", "a.localhost", "localhost.")),
        *((host, False) for host in ("0.0.0.0", "::", "::ffff:10.0.0.1", "notlocalhost", "")),
    ],
)
def test_which_hosts_are_this_very_machine(host, is_here):
    assert here(host) is is_here
