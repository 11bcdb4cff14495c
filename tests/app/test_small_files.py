"""Whatever stands where the config names a small file: one line says what is wrong, at once and in little memory."""

import contextlib
import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from tests import loopback
from watcher.app import settings
from watcher.journal.kafka.settings import KafkaSettings, security
from watcher.redaction import secret
from watcher.relay.http import auth, sockets
from watcher.relay.settings import RelaySettings
from watcher.runtime.config_section import SettingsError

NOBODY = 65534
SPACE = 300 * 1024 * 1024
"""Bytes of memory that a reader may take beyond what the process has."""


def relay(**named):
    return RelaySettings(**{name: str(path) for name, path in named.items()})


def kafka(**named):
    security(KafkaSettings(security_protocol="SSL", **{name: str(path) for name, path in named.items()}), {})


READERS = {
    "config": settings.load,
    "reload": settings.load_again,
    "tokens_file": lambda path: auth.load(relay(tokens_file=path), {}),
    "api_key_file": lambda path: secret.read("[x] api_key", {}, env=None, file=str(path)),
    "certificate": lambda path: sockets.tls(relay(certificate=path, key=path.parent / "good")),
    "key": lambda path: sockets.tls(relay(certificate=path.parent / "good", key=path)),
    "ssl_cafile": lambda path: kafka(ssl_cafile=path),
    "ssl_certfile": lambda path: kafka(ssl_certfile=path, ssl_keyfile=path.parent / "good"),
    "ssl_keyfile": lambda path: kafka(ssl_certfile=path.parent / "good", ssl_keyfile=path),
}


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def gibibyte(path):
    """Of zeros, which take no place on the disk."""
    with path.open("wb") as file:
        file.truncate(1 << 30)


def zeros(path):
    """Without an end."""
    path.symlink_to("/dev/zero")


def closed(path):
    path.write_bytes(b"")
    path.chmod(0)


def missing(_):
    pass


@pytest.fixture
def guarded(tmp_path):
    """Who waits for ever is interrupted, and who takes a gigabyte does not get it. A file `good` is there."""
    (tmp_path / "good").write_text("")

    def waited(*_):
        raise AssertionError("it is waited at")

    before = signal.signal(signal.SIGALRM, waited)
    had = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPACE, had[1]))
    signal.alarm(60)
    try:
        yield tmp_path
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, had)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def somebody():
    """Root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


PLANTED = [
    (name, what)
    for name in READERS
    for what in (pipe, folder, gibibyte, zeros, closed, missing)
    if (name, what) != ("config", pipe)  # which is read at the start
]


@pytest.mark.parametrize(("name", "what"), PLANTED)
def test_what_is_no_small_file_is_one_line_that_names_it(guarded, name, what):
    path = guarded / "named.file"
    what(path)
    with somebody() if what is closed else contextlib.nullcontext(), pytest.raises(SettingsError) as raised:
        READERS[name](path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or name.startswith("ssl_")


@pytest.mark.parametrize(
    ("name", "what", "says"),
    [
        ("reload", pipe, "named.file is a pipe, which can be read only once: name a file with -c to reload it"),
        ("tokens_file", pipe, "[relay] tokens_file PATH is a pipe: name a file"),
        ("tokens_file", folder, "cannot be read (Is a directory): look at its name and rights"),
        ("tokens_file", zeros, "cannot be read (it is no regular file): look at its name and rights"),
        ("tokens_file", gibibyte, f"it holds more than {auth.FILE_BYTES} bytes"),
        ("tokens_file", closed, "cannot be read (Permission denied): look at its name and rights"),
        ("api_key_file", pipe, "[x] api_key_file names PATH, which is no regular file"),
        ("api_key_file", gibibyte, f"which holds more than {secret.LONGEST} bytes: that is no key"),
        ("api_key_file", closed, "[x] api_key_file cannot be read: Permission denied: PATH"),
        ("config", zeros, f"it holds more than {settings.FILE_BYTES} bytes"),
        ("config", folder, "PATH cannot be read: [Errno 21] Is a directory: 'PATH'"),
        ("config", missing, "no config file at PATH: name one with -c FILE"),
        ("certificate", pipe, "cannot be read (it is a pipe): look at their names and rights"),
        ("ssl_cafile", pipe, "cannot be used: [Errno 22] it is a pipe: 'PATH'"),
    ],
)
def test_the_line_says_what_is_wrong(guarded, name, what, says):
    path = guarded / "named.file"
    what(path)
    with somebody() if what is closed else contextlib.nullcontext(), pytest.raises(SettingsError) as raised:
        READERS[name](path)
    assert says.replace("PATH", str(path)) in str(raised.value)


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("config", "reload")])
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, name):
    """TOML has `\\u0000`."""
    (tmp_path / "good").write_text("")
    with pytest.raises(SettingsError) as raised:
        READERS[name](tmp_path / "a\0b")
    assert "\n" not in str(raised.value)


def test_a_config_may_come_through_a_pipe_at_the_start(guarded):
    pipe(guarded / "config")
    writing = threading.Thread(target=(guarded / "config").write_text, args=['journal = "sqlite:///of/a.pipe"\n'])
    writing.start()
    assert settings.load(guarded / "config").journal == "sqlite:///of/a.pipe"
    writing.join()


def test_the_pair_of_a_certificate_is_used_as_ever(tmp_path):
    certificate, key = loopback.made(tmp_path, "IP:127.0.0.1")
    assert sockets.tls(relay(certificate=certificate, key=key)) is not None
    kafka(ssl_cafile=certificate, ssl_certfile=certificate, ssl_keyfile=key)
