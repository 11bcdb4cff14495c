"""One attempt on real sockets: what any server may answer, names that lie, and where nothing is ever sent."""

import contextlib
import ssl

import anyio
import pytest

from tests.loopback import context, made, served
from tests.webhooks.samples import secret, webhook
from watcher.testing.journal_samples import BEGAN
from watcher.webhooks import connections, sender
from watcher.webhooks.connections import NameUnknown, ReceiverTransport, TargetGuard, TargetRefused
from watcher.webhooks.sender import Message, Sender
from watcher.webhooks.signing import key_of, signatures

pytestmark = pytest.mark.anyio
MESSAGE = Message("0f6b", b'{"type":"x"}')


@pytest.fixture
def anyio_backend():
    return "asyncio"


def wall():
    return BEGAN


class Server:
    """Answers what it is told to, and keeps what it was sent."""

    def __init__(self, answer=b"HTTP/1.1 204 No Content\r\n\r\n", *, hangs=False):
        self.answer, self.hangs = answer, hangs
        self.requests, self.connections = [], 0

    async def __call__(self, stream):
        self.connections += 1
        data = b""
        async with stream:
            try:
                while True:
                    while MESSAGE.body not in data:
                        data += await stream.receive()
                    head, _, data = data.partition(b"\r\n\r\n")
                    data = data.removeprefix(MESSAGE.body)
                    self.requests.append(head.decode())
                    await stream.send(self.answer)
                    if self.hangs:
                        await anyio.sleep_forever()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass


async def attempt(server, *, times=1, guard=None, path="/hook", host="127.0.0.1"):
    """What `times` attempts in a row come to."""
    async with served(server) as port:
        hook = webhook(url=f"http://{host}:{port}{path}", allow_private=True)
        guard = guard or TargetGuard(allow_private=True, plain=True)
        async with Sender(hook, ReceiverTransport(guard), wall) as one:
            found = [await one.send(MESSAGE) for _ in range(times)]
    return found if times > 1 else found[0]


async def test_what_is_sent_is_signed_and_has_the_headers_of_the_standard(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server = Server()
    found = await attempt(server)
    assert (found.status, found.problem, found.gone) == (204, None, False)
    (head,) = server.requests
    first, *lines = head.split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    assert first == "POST /hook HTTP/1.1"
    assert fields["host"].startswith("127.0.0.1:")
    assert fields["content-type"] == "application/json"
    assert fields["content-length"] == str(len(MESSAGE.body))
    assert fields["user-agent"].startswith("balance-watcher/")
    assert (fields["webhook-id"], fields["webhook-timestamp"]) == (MESSAGE.id, str(BEGAN // 10**6))
    right = signatures([key_of(secret())], MESSAGE.id, BEGAN // 10**6, MESSAGE.body)
    assert f"webhook-signature: {right}" in lines or f"Webhook-Signature: {right}" in lines


@pytest.mark.parametrize(
    ("answer", "status", "problem", "wait"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, None, None),
        (b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 202, None, None),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope", 200, None, None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, None, None),
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410, "status 410", None),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 500, "status 500", None),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 302, "redirects", None),
        (b"HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n", 302, "redirects", None),
        (b"HTTP/1.1 429 No\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", 429, "status 429", 7.0),
        (b"HTTP/1.1 503 No\r\nretry-after: -7\r\ncontent-length: 0\r\n\r\n", 503, "status 503", None),
        (b"HTTP/1.1 503 No\r\nretry-after: soon\r\ncontent-length: 0\r\n\r\n", 503, "status 503", None),
        (
            b"HTTP/1.1 503 No\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:37 GMT\r\ncontent-length: 0\r\n\r\n",
            *(503, "status 503", 60.0),
        ),
        (b"not HTTP at all\r\n\r\n", None, "broke", None),
        (b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n", 200, None, None),
    ],
)
async def test_each_answer_is_understood(answer, status, problem, wait):
    found = await attempt(Server(answer))
    assert (found.status, found.retry_after) == (status, wait)
    assert found.problem is None if problem is None else problem in found.problem


async def test_a_connection_is_used_again_and_no_cookie_is_kept():
    server = Server(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok")
    found = await attempt(server, times=3)
    assert [one.status for one in found] == [200] * 3
    assert server.connections == 1
    assert "cookie" not in "".join(server.requests).lower()


async def test_a_body_without_end_costs_a_bounded_time_and_counts_as_taken(monkeypatch):
    monkeypatch.setattr(sender, "REST", 0.05)
    hanging = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok", hangs=True)
    found = await attempt(hanging, times=2)
    assert [(one.status, one.problem) for one in found] == [(200, None)] * 2
    assert hanging.connections == 2, "what was not read whole is not used again"
    endless = Server(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"4000\r\n" + bytes(0x4000) + b"\r\n" * 1
    )
    assert (await attempt(endless)).problem is None


async def test_an_answer_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(sender, "WHOLE", 0.1)
    found = await attempt(Server(b"", hangs=True))
    assert (found.status, found.problem) == (None, "no answer in time")
    slow = await attempt(Server(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, hangs=True))
    assert (slow.status, slow.problem) == (None, "no answer in time")


async def test_an_answer_that_comes_byte_by_byte_has_the_same_time_as_any_other(monkeypatch):
    monkeypatch.setattr(sender, "WHOLE", 0.3)

    async def dripping(stream):
        async with stream:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await stream.send(b"HTTP/1.1 204 No Content\r\nx: ")
                while True:  # never so slow that nothing comes for long
                    await stream.send(b"y")
                    await anyio.sleep(0.02)

    with anyio.fail_after(60):
        found = await attempt(dripping)
    assert (found.status, found.problem) == (None, "no answer in time")


async def test_nobody_there_is_said():
    async with Sender(
        webhook(url="http://127.0.0.1:1/", allow_private=True),
        ReceiverTransport(TargetGuard(allow_private=True, plain=True)),
        wall,
    ) as one:
        assert (await one.send(MESSAGE)).problem == "the connection was refused"


class Resolver:
    """A name service that may lie, and says another thing each time."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = []

    def __call__(self, host, _port):
        self.asked.append(host)
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(found, Exception):
            raise found
        return found


async def through(server, resolver, *, allow_private=False, plain=True, name="rebinding.example"):
    guard = TargetGuard(allow_private=allow_private, plain=plain, lookup=resolver)
    return await attempt(server, guard=guard, host=name)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "10.0.0.1", "0.0.0.0", "169.254.169.254", "fe80::1"],
)
async def test_nothing_is_sent_to_what_a_name_should_not_mean(address):
    server = Server()
    found = await through(server, Resolver([address]))
    assert found.problem.startswith("the address is refused: ")
    assert address not in found.problem
    assert server.connections == 0


async def test_link_local_is_refused_where_private_ones_are_allowed():
    found = await through(Server(), Resolver(["169.254.169.254"]), allow_private=True)
    assert "metadata" in found.problem


async def test_a_public_address_over_http_is_refused():
    found = await through(Server(), Resolver(["1.1.1.1"]), allow_private=True)
    assert (
        found.problem
        == "the address is refused: it is a public address, where http can be read on the way: write https://"
    )


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to():
    """DNS rebinding: a second lookup would give another address, and there is none."""
    server, resolver = Server(), Resolver(["127.0.0.1"], ["10.255.255.1"])
    found = await through(server, resolver, allow_private=True)
    assert (found.status, resolver.asked) == (204, ["rebinding.example"])
    assert "host: rebinding.example" in server.requests[0].lower(), "the name is kept for whoever serves many"


async def test_of_several_addresses_only_those_that_may_be_are_tried():
    server = Server()
    assert (await through(server, Resolver(["169.254.169.254", "127.0.0.1"]), allow_private=True)).status == 204
    guard = TargetGuard(allow_private=True, plain=False, lookup=Resolver(["169.254.169.254", "127.0.0.1", "::1"]))
    assert await guard.addresses("x", 1) == ["127.0.0.1", "::1"]
    mixed = await through(server, Resolver(["10.0.0.1", "169.254.0.1"]))
    assert "refused" in mixed.problem
    assert server.connections == 1


async def test_each_new_connection_is_judged_anew():
    server = Server(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    guard = TargetGuard(allow_private=True, plain=True, lookup=resolver)
    first, second = await attempt(server, times=2, guard=guard, host="rebinding.example")
    assert first.status == 204
    assert "refused" in second.problem


async def test_a_name_without_an_address_is_said():
    for answer in ([], OSError("no such name"), UnicodeError("idna")):
        assert (await through(Server(), Resolver(answer))).problem == "the host name cannot be resolved"
    with pytest.raises(NameUnknown):
        await TargetGuard(allow_private=False, plain=False, lookup=Resolver([])).addresses("x", 1)
    with pytest.raises(TargetRefused):
        await TargetGuard(allow_private=False, plain=False, lookup=Resolver(["127.1.1.1"])).addresses("x", 1)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0x7f.1", "2130706433", "127.1"])
def test_however_this_machine_is_written_the_resolver_says_that_it_is_private(host):
    from watcher.webhooks.targets import reach

    assert {reach(one) for one in connections.look_up(host, 80)} == {"private"}


@pytest.mark.parametrize(
    ("name", "problem"), [("receiver.example", None), ("other.example", "its certificate is refused")]
)
async def test_tls_keeps_the_name_that_was_looked_up(tmp_path, monkeypatch, name, problem):
    server_side = context(made(tmp_path, "DNS:receiver.example"))
    monkeypatch.setattr(connections, "_tls", lambda: ssl.create_default_context(cafile=str(tmp_path / "cert.pem")))
    server = Server()
    async with served(server, tls=server_side) as port:
        hook = webhook(url=f"https://{name}:{port}/hook")
        guard = TargetGuard(allow_private=True, plain=False, lookup=Resolver(["127.0.0.1"]))
        async with Sender(hook, ReceiverTransport(guard), wall) as one:
            found = await one.send(MESSAGE)
    assert found.problem == problem
    assert len(server.requests) == (problem is None)


async def test_plain_http_where_tls_is_spoken_and_the_other_way_round(tmp_path):
    async with served(Server()) as port:
        hook = webhook(url=f"https://127.0.0.1:{port}/hook", allow_private=True)
        guard = TargetGuard(allow_private=True, plain=False)
        async with Sender(hook, ReceiverTransport(guard), wall) as one:
            with anyio.fail_after(30):
                found = await one.send(MESSAGE)
    assert found.status is None
    assert found.problem in ("no TLS is spoken there as we know it", "no connection", "no answer in time")
