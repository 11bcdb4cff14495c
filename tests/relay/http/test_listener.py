"""The port of a half without a relay: the same guard and the same answers as the relay's own."""

import contextlib
import hashlib
import socket

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute

from tests.relay.stage import PATIENCE, calm, staged
from watcher.relay.http.auth import Guard, load
from watcher.relay.http.listener import Listener
from watcher.relay.http.routes import WITHOUT_RELAY, HttpRoutes, MetricsText, Readiness, Status
from watcher.relay.settings import RelaySettings
from watcher.relay.snapshots import READERS_EACH
from watcher.runtime.config_section import SettingsError

pytestmark = pytest.mark.anyio

TROUBLE = Readiness(
    ready=False,
    journal="disk full at the treasury",
    providers={"jupiter": "ok", "helius": "account 3ems… is not known"},
)


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token):
    return {"headers": {"Authorization": f"Bearer {token}"}}


@pytest.fixture
def tokens_file(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[token]]\nsha256 = "{digest("all")}"\n'
        f'[[token]]\nsha256 = "{digest("jupiter")}"\nprovider = ["jupiter"]\n'
        f'[[token]]\nsha256 = "{digest("helius")}"\nprovider = ["helius"]\n'
        f'[[token]]\nsha256 = "{digest("one")}"\nprovider = ["helius"]\naccount = ["a"]\n'
    )
    return str(path)


def asked(rights, accept):
    """A scrape that shows what was asked for."""
    return MetricsText("text/plain", f"{rights!r} {accept!r}".encode())


@contextlib.asynccontextmanager
async def alone(readiness=lambda: TROUBLE, **settings):
    """A port with nothing behind it, and a client of it."""
    listening = RelaySettings(port=0, **settings)
    status = Status(metrics=asked, readiness=readiness)
    routes = HttpRoutes(WITHOUT_RELAY, Guard(listening, load(listening, {})), status)
    port = Listener(listening, routes, tuning=calm())
    async with anyio.create_task_group() as tasks:
        number = await tasks.start(lambda task_status: port.run(task_status=task_status))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{number}", timeout=PATIENCE) as http:
            yield http
        tasks.cancel_scope.cancel()


async def test_it_answers_health_readiness_and_metrics_and_says_clearly_what_it_has_not():
    async with alone(lambda: Readiness(journal="ok")) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"following": True, "journal": "ok", "ready": True}
        assert "Filter" in (await http.get("/metrics")).text
        assert "'a/b;q=0.5'" in (await http.get("/metrics", headers={"Accept": "a/b;q=0.5"})).text
        for path in ("/", "/v1/balances", "/v1/history", "/v1/stream"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
            assert "--only relay" in answer.text
        assert (await http.post("/metrics", content=b"x" * 1000)).status_code == 405
        assert (await http.head("/metrics")).content == b""
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        assert (await http.get("/v1/stream", headers=upgrade)).status_code == 404


async def test_it_has_the_guard_of_the_relay(tokens_file):
    async with alone() as http:
        for path in ("/healthz", "/readyz", "/metrics"):
            answer = await http.get(path, headers={"Host": "evil.example"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    async with alone(tokens_file=tokens_file) as http:
        assert (await http.get("/healthz", headers={"Host": "any.example"})).status_code == 200
        assert (await http.get("/metrics")).status_code == 401
        assert (await http.get("/metrics", **bearer("wrong"))).status_code == 401
        assert "jupiter" in (await http.get("/metrics", **bearer("jupiter"))).text
    public = RelaySettings(host="0.0.0.0", port=0)
    routes = HttpRoutes(WITHOUT_RELAY, Guard(public, None), Status(metrics=asked, readiness=Readiness))
    port = Listener(public, routes, tuning=calm())
    with pytest.raises(SettingsError, match="no tokens are set"):
        await port.run()


async def test_without_a_token_readiness_is_which_part_and_no_more():
    brief = {"following": True, "journal": "failing", "providers": "failing", "ready": False}
    async with alone() as http:
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, brief)
    fine = {"ready": True, "journal": "ok", "providers": {"jupiter": "ok"}}
    async with alone(lambda: Readiness(**fine)) as http:
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"following": True, **fine, "providers": "ok"})


@pytest.mark.parametrize(
    ("token", "journal", "providers"),
    [
        ("all", TROUBLE.journal, TROUBLE.providers),
        ("jupiter", "failing", {"jupiter": "ok"}),
        ("helius", "failing", {"helius": TROUBLE.providers["helius"]}),
        ("one", "failing", {"helius": "failing"}),
        ("wrong", "failing", "failing"),
    ],
)
async def test_with_a_token_readiness_is_what_the_token_may_see(tokens_file, token, journal, providers):
    async with alone(tokens_file=tokens_file) as http:
        told = (await http.get("/readyz", **bearer(token))).json()
        assert told == {"following": True, "journal": journal, "providers": providers, "ready": False}


async def test_a_heartbeat_tells_of_the_providers_that_the_token_may_see(tmp_path, tokens_file):
    async with staged(tmp_path, calm(heartbeat=0.1, sweep=0.02), tokens_file=tokens_file) as stage:
        for name in ("jupiter", "helius"):
            await stage.teller.beat(name)
        for token, seen in (("all", {"jupiter", "helius"}), ("jupiter", {"jupiter"}), ("one", {"helius"})):
            async with stage.subscriber(additional_headers={"Authorization": f"Bearer {token}"}) as one:
                while set((await one.push("heartbeat"))["providers"]) != seen:
                    pass


async def test_only_so_many_read_the_journal_at_a_time_and_the_others_are_asked_to_come_back(tmp_path):
    """Whoever does not take the answer keeps the place; health is not among them."""
    async with staged(tmp_path) as stage, stage.http() as http:
        await stage.teller.tell(*(f"a{n}" for n in range(4000)))
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(READERS_EACH):
                stream = await opened.enter_async_context(await anyio.connect_tcp("127.0.0.1", stage.port))
                stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await stream.send(b"GET /v1/balances HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await stream.receive(1)  # and nothing more: what the kernel does not hold waits here
            answer = await http.get("/v1/balances")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "rate_limited")
            assert answer.headers["Retry-After"].isdigit()
            assert (await http.get("/healthz")).status_code == 200
        with anyio.fail_after(PATIENCE):
            while (await http.get("/v1/balances")).status_code != 200:
                pass
