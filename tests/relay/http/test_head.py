"""Heads of requests, as they come from clients, proxies, other protocols and attackers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from watcher.relay.http import head as heads
from watcher.relay.http.head import HttpAnswer

GOOD = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nX: \t\xe9 y \r\n\r\n"


def parsed(head):
    found = heads.parse(head)
    assert isinstance(found, Request), found
    return found


def test_a_head_is_its_method_target_and_fields():
    request = parsed(GOOD)
    assert (request.method, request.path, request.protocol) == ("GET", "/v1/stream", "HTTP/1.1")
    assert (request.headers["host"], request.headers["x"]) == ("localhost", "é y")


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://127.0.0.1/healthz?x=1", "127.0.0.1", "/healthz?x=1"),
        (b"HTTPS://here:8/", "here:8", "/"),
        (b"http://here", "here", "/"),
    ],
)
@pytest.mark.parametrize("others", [b"", b"Host: other\r\n", b"Host: other\r\nhost: another\r\n"])
def test_the_absolute_form_names_the_host(target, host, path, others):
    request = parsed(b"GET " + target + b" HTTP/1.1\r\n" + others + b"\r\n")
    assert (request.headers["Host"], request.path) == (host, path)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTX/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 8192 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 129 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"a" * 1000 + b"\r\n") * 17 + b"\r\n", 431),
    ],
)
def test_each_wrong_head_has_its_status(head, status):
    found = heads.parse(head)
    assert isinstance(found, HttpAnswer)
    assert found.status == status


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"PRI * HTTP/2.0\r\n", 505),
        (b"GET /" + b"a" * 8192, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 16384, 431),
        (b"x" * 33, 400),
        (b"G", None),
        (b"GET / HTT", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", None),
    ],
)
def test_what_no_end_can_mend_is_refused_at_once_and_the_rest_is_waited_for(begun, status):
    assert heads.size(begun) is None
    found = heads.hopeless(begun)
    assert (found and found.status) == status


@given(st.binary(max_size=200), st.integers(0, 60))
def test_a_head_that_we_take_is_one_that_websockets_takes_in_the_same_words(noise, place):
    """The upgrade is read by both: what we have judged must be what it serves."""
    head = GOOD[:place] + noise + GOOD[place:]
    head = head[: heads.size(head)]
    found = heads.parse(head)
    if isinstance(found, HttpAnswer) or heads.has_body(found):
        return
    protocol = ServerProtocol()
    protocol.receive_data(head)
    (theirs,) = protocol.events_received()
    assert theirs.method == found.method
    if theirs.path.startswith("/"):
        assert (theirs.path, list(theirs.headers.raw_items())) == (found.path, list(found.headers.raw_items()))


HEADS = [b"GET / HTTP/1.1", b"GET http://x/ HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 0\r\n", b"\r\n\r\n"]
PARTS = [b"G", b" ", b"\r\n", b":", b"\0", b"\n", b"\xff", *HEADS]


@given(st.lists(st.sampled_from(PARTS), max_size=30))
def test_nothing_that_comes_raises(parts):
    received = b"".join(parts)
    size = heads.size(received)
    if size is None:
        heads.hopeless(received)
    elif isinstance(found := heads.parse(received[:size]), Request):
        heads.has_body(found)
