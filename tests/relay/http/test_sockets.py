"""The listening sockets by themselves: what connections inherit, and hosts of several addresses."""

import contextlib
import errno
import socket

import pytest

from tests.kafka_broker import free_port
from watcher.relay.http import sockets
from watcher.relay.settings import RelaySettings
from watcher.runtime.config_section import SettingsError

ELSEWHERE = "203.0.113.7"
"""An address kept for documentation: never on this machine."""


@contextlib.contextmanager
def listening(*, guarded=False, **settings):
    with contextlib.ExitStack() as opened:
        found = sockets.listen(RelaySettings(**{"port": 0, **settings}), guarded=guarded)
        yield [opened.enter_context(each) for each in found]


@pytest.fixture
def resolves(monkeypatch):
    """The resolver is outside: it gives these addresses for any name."""

    def to(*addresses):
        infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)

    return to


def test_a_connection_inherits_a_small_send_buffer_and_a_bound_on_what_is_not_acknowledged():
    with listening() as (listener,), socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * sockets.SEND_BUFFER
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                told = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert told == sockets.UNACKNOWLEDGED
            assert accepted.proto == socket.IPPROTO_TCP


def test_all_addresses_of_a_host_listen_on_one_port(resolves):
    resolves("127.0.0.1", "127.0.0.2", "127.0.0.1")
    with listening(host="mybox") as found:
        assert [each.getsockname()[0] for each in found] == ["127.0.0.1", "127.0.0.2"]
        assert len({each.getsockname()[1] for each in found}) == 1


def test_a_free_port_of_one_address_that_another_has_taken_is_drawn_again(resolves, monkeypatch):
    """The system draws; here the first draw is always the port that somebody has at the other address."""
    resolves("127.0.0.1", "127.0.0.2")
    with socket.create_server(("127.0.0.2", 0)) as other:
        taken, bind, draws = other.getsockname()[1], socket.socket.bind, []

        def drawn(self, address):
            draws.append(address)
            bind(self, (address[0], taken) if len(draws) == 1 else address)

        monkeypatch.setattr(socket.socket, "bind", drawn, raising=False)
        with listening(host="mybox") as found:
            assert {each.getsockname()[1] for each in found} != {taken}
            assert len(draws) == 4


def test_one_address_that_is_not_here_is_passed_over_and_none_is_an_error(resolves):
    resolves(ELSEWHERE, "127.0.0.1")
    with listening(host="mybox", guarded=True) as found:
        assert [each.getsockname()[0] for each in found] == ["127.0.0.1"]
    resolves(ELSEWHERE, "203.0.113.8")
    with pytest.raises(OSError, match="none of the addresses of 'mybox'"), listening(host="mybox", guarded=True):
        pass
    resolves(ELSEWHERE)
    with pytest.raises(OSError, match=f"of {ELSEWHERE} cannot be listened on") as problem, listening(guarded=True):
        pass
    assert problem.value.errno == errno.EADDRNOTAVAIL


def test_a_host_with_one_public_address_needs_tokens(resolves):
    resolves("127.0.0.1", ELSEWHERE)
    with pytest.raises(SettingsError, match="no tokens are set"), listening(host="mybox"):
        pass


def test_a_taken_port_on_one_address_gives_the_other_back(resolves):
    port = free_port()
    with socket.create_server(("127.0.0.2", port)):
        resolves("127.0.0.1", "127.0.0.2")
        with pytest.raises(OSError, match=r"127\.0\.0\.2 cannot be listened on"), listening(host="mybox", port=port):
            pass
        with socket.create_server(("127.0.0.1", port)):  # nobody holds it
            pass


@pytest.mark.parametrize("host", ["no such host", "a" * 64, "a..b"])
def test_a_host_that_is_no_address_is_told_in_one_line(host):
    with pytest.raises(SettingsError, match="is not an address of this machine"), listening(host=host):
        pass
