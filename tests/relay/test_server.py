"""The protocol over real sockets and a real journal."""

import asyncio
import json
import socket
import ssl

import anyio
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.relay.stage import PATIENCE, Subscriber, Teller, calm, relaying, staged, until, wall
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.relay.http.routes import Readiness
from watcher.relay.settings import RelaySettings
from watcher.runtime.config_section import SettingsError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path, readiness=lambda: Readiness(journal="ok")) as stage:
        yield stage


@pytest.fixture
async def beating(tmp_path):
    """With heartbeats, which may come between any two messages."""
    async with staged(tmp_path, calm(heartbeat=0.2, sweep=0.02)) as stage:
        yield stage


def versions(updates):
    return [(each["event"]["account"], each["event"]["version"]) for each in updates]


async def test_a_snapshot_runs_into_the_stream_without_a_seam(stage):
    await stage.teller.tell("A", "B")
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        welcome = await one.next()
        assert welcome["type"] == "welcome"
        result = await one.subscribe()
        assert (result["recovered"], result["snapshot_rows"], result["cursor"]) == (False, 2, welcome["head"])
        assert "reason" not in result
        page = await one.next()
        assert list(page) == ["type", "subscription_id", "cursor", "page", "last", "data"]
        assert (page["type"], page["page"], page["last"], page["cursor"]) == ("snapshot", 1, True, result["cursor"])
        assert [(row["account"], row["version"], row["amount"]) for row in page["data"]] == [
            ("A", 1, "1001"),
            ("B", 0, "1000"),
        ]
        assert list(page["data"][0]) == (
            [
                "provider",
                "chain",
                "account",
                "token",
                "kind",
                "symbol",
                "amount",
                "unit",
                "decimals",
                "version",
                "slot",
                "as_of",
                "observed_at",
                "label",
                "tags",
                "watched",
            ]
        )
        await stage.teller.tell("A", "B", "C")
        await stage.teller.tell("C")
        assert versions(await one.updates(3)) == [("A", 2), ("B", 1), ("C", 1)]


async def test_an_update_carries_the_journals_own_bytes_and_its_type_comes_first(stage):
    await stage.teller.tell("A")
    async with stage.connect() as client:
        await client.recv()
        await client.send('{"id":1,"method":"subscribe","params":{"snapshot":false}}')
        await client.recv()
        await stage.teller.tell("A")
        raw = await client.recv()
    (told,) = stage.teller.told
    import sqlite3

    with sqlite3.connect(stage.path) as database:
        ((data,),) = database.execute("SELECT data FROM event").fetchall()
    database.close()
    assert raw.startswith('{"type":"update","cursor":"')
    assert raw.endswith(f',"event":{data.decode()}}}')
    assert json.loads(raw)["event"]["id"] == told.id


async def test_pages_hold_500_rows_with_one_cursor_and_an_empty_snapshot_is_one_page(stage):
    await stage.teller.tell(*(f"a{n}" for n in range(1000)))
    await stage.teller.tell("more")
    async with stage.subscriber() as one:
        result = await one.subscribe()
        pages = [await one.push("snapshot") for _ in range(3)]
        assert [(p["page"], p["last"], len(p["data"])) for p in pages] == [
            (1, False, 500),
            (2, False, 500),
            (3, True, 1),
        ]
        assert {p["cursor"] for p in pages} == {result["cursor"]}
        empty = await one.subscribe(filter={"account": ["nobody"]})
        page = await one.push("snapshot")
        assert (page["subscription_id"], page["page"], page["last"], page["data"]) == (
            empty["subscription_id"],
            1,
            True,
            [],
        )


async def test_a_cursor_resumes_exclusively_and_without_a_snapshot(stage):
    await stage.teller.tell("A")
    for _ in range(5):
        await stage.teller.tell("A")
    async with stage.subscriber() as one:
        welcome = await one.next()
        await one.subscribe(cursor=welcome["oldest_cursor"])
        cursors = [each["cursor"] for each in await one.updates(5)]
    async with stage.subscriber() as two:
        result = await two.subscribe(cursor=cursors[2])
        assert (result["recovered"], result["snapshot_rows"], result["cursor"]) == (True, 0, cursors[2])
        await stage.teller.tell("A")
        assert versions(await two.updates(3)) == [("A", 4), ("A", 5), ("A", 6)]
        assert not [each for each in two.pushes if each["type"] == "snapshot"]


@pytest.mark.parametrize(
    ("change", "reason"), [(lambda c: "00" + c, "epoch_changed"), (lambda c: c[:-1] + "99", "ahead")]
)
async def test_an_unrecoverable_cursor_is_a_snapshot_with_the_reason_or_an_error(stage, change, reason):
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        cursor = change((await one.next())["head"])
        error = (await one.ask("subscribe", cursor=cursor, on_gap="error"))["error"]
        assert error["code"] == "unrecoverable_cursor"
        assert reason in error["message"]
        result = await one.subscribe(cursor=cursor, snapshot=False)
        assert (result["recovered"], result["reason"], result["snapshot_rows"]) == (False, reason, 1)
        assert (await one.push("snapshot"))["last"]


async def test_a_cursor_with_another_number_of_positions_is_a_bad_one(stage):
    async with stage.subscriber() as one:
        cursor = (await one.next())["head"] + "-1"
        assert (await one.ask("subscribe", cursor=cursor))["error"]["code"] == "bad_cursor"


async def test_without_snapshot_and_cursor_the_data_begins_at_the_head(stage):
    await stage.teller.tell("A")
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        head = (await one.next())["head"]
        result = await one.subscribe(snapshot=False)
        assert (result["cursor"], result["recovered"], result["snapshot_rows"]) == (head, False, 0)
        await stage.teller.tell("A")
        assert versions(await one.updates(1)) == [("A", 2)]


async def test_an_event_comes_once_however_many_live_subscriptions_match_it(stage):
    await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        await one.subscribe(snapshot=False, filter={"account": ["A"]})
        await one.subscribe(snapshot=False)
        await one.subscribe(snapshot=False, filter={"account": ["A", "B"]})
        await stage.teller.tell("A", "B")
        await stage.teller.tell("B")
        assert versions(await one.updates(3)) == [("A", 1), ("B", 1), ("B", 2)]


async def test_a_second_subscription_replays_its_own_and_the_first_misses_nothing(stage):
    await stage.teller.tell("A", "B")
    for _ in range(3):
        await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        oldest = (await one.next())["oldest_cursor"]
        await one.subscribe(snapshot=False, filter={"account": ["A"]})
        second = await one.subscribe(cursor=oldest, filter={"account": ["B"]})
        assert second["cursor"] == oldest
        await stage.teller.tell("A", "B")
        found = versions(await one.updates(5))
        assert found == [("B", 1), ("B", 2), ("B", 3), ("A", 4), ("B", 4)]


async def test_after_the_answer_to_unsubscribe_nothing_more_comes(beating):
    stage = beating
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        result = await one.subscribe(snapshot=False)
        await stage.teller.tell("A")
        await one.updates(1)
        assert (await one.ask("unsubscribe", subscription_id=result["subscription_id"]))["result"]
        await stage.teller.tell("A")
        await until(lambda: str(stage.relay.flusher.fan_out.cursor).endswith(".3"))
        beats = [await one.next() for _ in range(3)]
        assert {(beat["type"], beat["sent"]) for beat in beats} == {("heartbeat", 1)}


async def test_a_heartbeat_tells_the_watermark_though_nothing_matches(beating):
    stage = beating
    await stage.teller.tell("A")
    await stage.teller.beat("jupiter", last_success="2026-01-25T14:43:57.000000Z")
    async with stage.subscriber() as one:
        await one.subscribe(snapshot=False, filter={"account": ["nobody"]})
        one.pushes.clear()  # one of before the answer names no place
        await stage.teller.tell("A")
        while (beat := await one.push("heartbeat"))["cursor"].split(".")[1] != "2" or not beat["providers"]:
            pass
        assert list(beat) == ["type", "cursor", "sent", "conflated", "lag_ms", "time", "providers"]
        assert (beat["sent"], beat["conflated"], beat["lag_ms"]) == (0, 0, 0)
        assert beat["providers"] == {
            "jupiter": {
                "last_success": "2026-01-25T14:43:57.000000Z",
                "paused_until": None,
                "budget_used": 0.25,
                "state": "ok",
                "reason": None,
                "since": None,
                "hints": None,
            }
        }


async def test_a_heartbeat_comes_soon_after_a_client_and_at_once_when_a_provider_is_in_another_state(tmp_path):
    """The usual ones are an hour apart here."""
    async with staged(tmp_path, calm(first_heartbeat=0.05, news=0.3, sweep=0.02)) as stage:
        await stage.teller.tell("A")
        await stage.teller.beat("jupiter")
        async with stage.subscriber() as one:
            await one.subscribe()
            while "jupiter" not in (beat := await one.push("heartbeat"))["providers"]:
                pass
            assert beat["providers"]["jupiter"]["state"] == "ok"
            failing = {"state": "failing", "reason": "no answer in time (2 in a row)", "since": beat["time"]}
            await stage.teller.beat("jupiter", **failing)
            beat = await one.push("heartbeat")
            assert beat["providers"]["jupiter"].items() >= failing.items()
            came = stage.relay.flusher.time()
            for _ in range(5):  # it flaps: a state is published as it stands when the pause is over
                await stage.teller.beat("jupiter")
                await stage.teller.beat("jupiter", **failing)
            await stage.teller.beat("jupiter")
            count = 1
            while (await one.push("heartbeat"))["providers"]["jupiter"]["state"] != "ok":
                count += 1
            assert stage.relay.flusher.time() - came >= 0.25 * (count - 1)


async def test_conflation_by_interval_sends_the_latest_and_keeps_the_watermark_below_it(beating):
    stage = beating
    await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        await one.subscribe(snapshot=False, delivery="conflate", interval_ms=60_000)
        await stage.teller.tell("A")
        first = await one.push("update")
        for _ in range(4):
            await stage.teller.tell("A")
        while (beat := await one.next())["conflated"] < 3:
            assert beat["type"] == "heartbeat"
        assert (beat["type"], beat["sent"], beat["cursor"].split(".")[1]) == ("heartbeat", 1, "5")
        stage.later(60.0)
        second = await one.push("update")
        assert versions([first, second]) == [("A", 1), ("A", 5)]
        assert first["cursor"].endswith(".2")
        while (beat := await one.push("heartbeat"))["cursor"] != second["cursor"]:
            pass
        assert (beat["conflated"], beat["sent"]) == (3, 2)
        await until(lambda: stage.relay.stats.conflated == 3)
    await until(lambda: not stage.relay.stats.connections)
    await stage.teller.tell("A")
    assert stage.relay.stats.conflated == 3  # those of a connection that is gone still count


async def test_two_relays_on_one_journal_share_cursors(stage):
    await stage.teller.tell("A")
    await stage.teller.tell("A")
    async with stage.subscriber() as one, relaying(stage.teller.journal) as (_, port):
        await one.subscribe(cursor=(await one.next())["oldest_cursor"])
        (update,) = await one.updates(1)
        async with connect(f"ws://127.0.0.1:{port}/v1/stream", open_timeout=PATIENCE) as other:
            await other.recv()
            await other.send(json.dumps({"id": 1, "method": "subscribe", "params": {"cursor": update["cursor"]}}))
            assert json.loads(await other.recv())["result"]["recovered"] is True
            await stage.teller.tell("A")
            assert json.loads(await other.recv())["event"]["version"] == 2


async def test_the_subprotocol_is_chosen_when_offered(stage):
    async with stage.connect(subprotocols=["other", "balances.v1.json"]) as client:
        assert client.subprotocol == "balances.v1.json"
    async with stage.connect() as client:
        assert client.subprotocol is None


async def test_compression_is_never_agreed_to(stage):
    async with stage.connect(compression="deflate") as client:
        assert client.protocol.extensions == []


async def test_the_same_port_answers_plain_http(stage):
    await stage.teller.tell("A", "B")
    async with stage.http() as http:
        page = await http.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"following": True, "journal": "ok", "ready": True})
        assert (await http.get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
        answer = (await http.get("/v1/balances", params={"account": "B", "provider": "jupiter", "token": ""})).json()
        assert list(answer) == ["cursor", "data"]
        assert [row["account"] for row in answer["data"]] == ["B"]
        assert (await http.get("/v1/balances?wallet=B")).status_code == 400
        assert (await http.get("/nothing")).status_code == 404
        assert (await http.get("/v1/stream")).status_code == 426
        assert (await http.post("/healthz")).status_code == 405
        head = await http.head("/")
        assert (head.status_code, head.content) == (200, b"")


async def test_readiness_says_no(tmp_path):
    async with (
        staged(tmp_path, readiness=lambda: Readiness(ready=False, journal="starting")) as stage,
        stage.http() as http,
    ):
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["journal"]) == (503, "failing")


async def test_the_first_connection_too_many_is_told_before_the_upgrade_and_health_still_answers(tmp_path):
    async with staged(tmp_path, max_connections=2) as stage:
        async with stage.subscriber() as one, stage.subscriber() as two:
            assert (await one.next())["limits"]["connections"] == 2
            await two.next()
            with pytest.raises(InvalidStatus) as refused:
                await stage.connect()
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"].isdigit()
            async with stage.http() as http:
                assert (await http.get("/healthz")).status_code == 200
        await until(lambda: not stage.relay.stats.connections)
        async with stage.subscriber() as three:
            await three.next()


async def test_an_upgrade_that_is_not_complete_in_time_is_dropped(tmp_path):
    async with staged(tmp_path, calm(upgrade=0.1)) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n")
        with anyio.fail_after(PATIENCE), pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_pages_of_other_origins_may_not_connect(tmp_path):
    async with staged(tmp_path, origins=["https://desk.example"]) as stage:
        for origin in ("https://desk.example", f"http://127.0.0.1:{stage.port}"):
            async with stage.connect(origin=origin) as client:
                assert json.loads(await client.recv())["type"] == "welcome"
        for origin in ("https://evil.example", "null", "https://desk.example.evil.example", "http://127.0.0.1:1"):
            with pytest.raises(InvalidStatus) as refused:
                await stage.connect(origin=origin)
            assert refused.value.response.status_code == 403


async def test_a_name_that_was_made_to_point_here_gets_nothing(tmp_path):
    """DNS rebinding: the page's origin and the Host header agree, and neither is ours."""
    async with staged(tmp_path, origins=["https://desk.example"]) as stage:
        async with stage.http() as http:
            for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/balances", "/v1/stream"):
                answer = await http.get(path, headers={"Host": f"evil.example:{stage.port}"})
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
                assert "origins" in answer.json()["error"]["message"]
            for host in ("localhost", "127.0.0.1:9000", "[::1]:8765", "desk.example"):
                assert (await http.get("/v1/balances", headers={"Host": host})).status_code == 200
        for host, status in (("evil.example", 403), ("desk.example", 101), (f"localhost:{stage.port}", 101)):
            assert await _upgrade(stage.port, host) == status
        assert stage.relay.stats.refused == {"host": 7}


async def _upgrade(port, host):
    """The status that a page from that host gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: %b\r\nOrigin: http://%b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n" % ((host.encode(),) * 2)
    )
    with anyio.fail_after(PATIENCE):
        status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def test_behind_tokens_the_host_does_not_matter(tmp_path):
    async with (
        staged(tmp_path, environ={"T": "secret"}, tokens_env="T") as stage,
        stage.http(headers={"Host": "desk.example"}) as http,
    ):
        assert (await http.get("/v1/balances")).status_code == 401
        assert (await http.get("/v1/balances", headers={"Authorization": "Bearer secret"})).status_code == 200


async def test_a_token_opens_the_stream_by_header_or_by_auth(tmp_path):
    async with staged(tmp_path, environ={"T": "secret"}, tokens_env="T") as stage:
        await stage.teller.tell("A")
        async with stage.subscriber(additional_headers={"Authorization": "Bearer secret"}) as one:
            assert (await one.next())["auth"] == "ok"
            assert (await one.subscribe())["snapshot_rows"] == 1
        async with stage.subscriber() as two:
            assert (await two.next())["auth"] == "required"
            assert (await two.ask("auth", token="secret"))["result"] == {"auth": "ok"}
            assert (await two.subscribe())["snapshot_rows"] == 1


async def test_who_does_not_authorize_in_time_is_closed_with_4102(tmp_path):
    async with (
        staged(tmp_path, calm(sweep=0.02), environ={"T": "x"}, tokens_env="T") as stage,
        stage.subscriber() as one,
    ):
        await one.push("welcome")
        stage.later(3600.0)
        assert await one.closed() == (4102, "auth_timeout")
        assert stage.relay.stats.dropped == {"auth_timeout": 1}


async def test_a_bound_token_sees_only_what_it_is_bound_to(tmp_path):
    import hashlib

    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[[token]]\nsha256 = "{hashlib.sha256(b"desk").hexdigest()}"\naccount = ["A"]\nprovider = ["jupiter"]\n'
    )
    async with staged(tmp_path, calm(heartbeat=0.2, sweep=0.02), tokens_file=str(path)) as stage:
        await stage.teller.beat("helius")
        await stage.teller.beat("jupiter")
        await stage.teller.tell("A", "B")
        async with stage.subscriber(additional_headers={"Authorization": "Bearer desk"}) as one:
            result = await one.subscribe()
            assert (result["snapshot_rows"], result["filter"]) == (1, {"provider": ["jupiter"], "account": ["A"]})
            await stage.teller.tell("A", "B")
            await stage.teller.tell("B")
            assert versions(await one.updates(1)) == [("A", 1)]
            while not (beat := await one.push("heartbeat"))["providers"]:
                pass
            assert list(beat["providers"]) == ["jupiter"]
            assert (await one.ask("subscribe", filter={"account": ["B"]}))["error"]["code"] == "forbidden"
        headers = {"Authorization": "Bearer desk"}
        async with stage.http(headers=headers) as http:
            assert [row["account"] for row in (await http.get("/v1/balances")).json()["data"]] == ["A"]
            assert (await http.get("/v1/balances?account=B")).status_code == 403


async def test_no_way_around_the_token(tmp_path):
    async with staged(tmp_path, environ={"T": "secret,geheimé"}, tokens_env="T") as stage:
        await stage.teller.tell("A")
        tries = [
            "Bearer wrong",
            "Bearer",
            "bearer secretx",
            "Basic c2VjcmV0",
            "secret",
            "Bearer secret, Bearer x",
            "Bearer \xff",
        ]
        for value in tries:
            with pytest.raises(InvalidStatus) as refused:
                await stage.connect(additional_headers={"Authorization": value})
            assert refused.value.response.status_code == 401
        with pytest.raises(InvalidStatus):
            await stage.connect(additional_headers=[("Authorization", "Bearer secret")] * 2)
        async with stage.http() as http:
            for path in (
                "/metrics",
                "/v1/balances",
                "/v1/history",
                "/v1/balances?token=secret",
                "/metrics?token=secret",
            ):
                for headers in ({}, *({"Authorization": value.encode("latin-1")} for value in tries)):
                    answer = await http.get(path, headers=headers)
                    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            for path in ("/healthz", "/readyz", "/"):
                assert (await http.get(path)).status_code == 200
            for path in ("/v1/balances/", "//v1/balances", "/v1/../v1/balances", "/V1/balances", "/%761/balances"):
                assert (await http.get(path)).status_code in (401, 404)
            good = await http.get("/v1/balances", headers={"Authorization": "Bearer geheimé".encode()})
            assert good.status_code == 200


@pytest.mark.parametrize("method", ["subscribe", "ping", "list_subscriptions", "unsubscribe", "fly"])
async def test_a_command_before_auth_closes_with_4001(tmp_path, method):
    async with staged(tmp_path, environ={"T": "x"}, tokens_env="T") as stage, stage.subscriber() as one:
        assert (await one.ask(method))["error"]["code"] == "unauthorized"
        assert await one.closed() == (4001, "unauthorized")


def test_a_public_address_needs_tokens():
    from watcher.relay.http import sockets

    for host in ("0.0.0.0", "::", ""):
        with pytest.raises(SettingsError, match="no tokens are set"):
            sockets.listen(RelaySettings(host=host, port=0), guarded=False)
    for host, guarded in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        for listener in sockets.listen(RelaySettings(host=host, port=0), guarded=guarded):
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert listener.proto == socket.IPPROTO_TCP
            listener.close()


def test_a_taken_port_is_an_os_error():
    from watcher.relay.http import sockets

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        sockets.listen(RelaySettings(port=taken.getsockname()[1]), guarded=False)


async def test_at_shutdown_everybody_is_told_and_closed_with_1012(tmp_path):
    async with staged(tmp_path) as stage:
        socket_ = await stage.connect()
        await socket_.recv()
    assert json.loads(await socket_.recv()) == {"type": "shutdown", "reconnect_after_ms": 1000}
    await socket_.wait_closed()
    assert socket_.close_code == 1012


async def test_a_log_that_was_replaced_is_opened_anew_and_who_stays_or_comes_again_learns_why(tmp_path):
    """While there is none it is waited for, and that is said once."""
    async with staged(tmp_path) as stage, stage.subscriber() as one, stage.http() as http:
        await one.next()
        await stage.teller.tell("A")
        await stage.teller.tell("A")
        await one.subscribe()
        cursor = (await one.push("snapshot"))["cursor"]
        assert (await http.get("/readyz")).status_code == 200
        with capture_logs() as logs:
            aside = tmp_path / "aside"
            aside.mkdir()
            for file in tmp_path.glob(f"{stage.path.name}*"):
                file.rename(aside / file.name)
            await until(lambda: stage.relay.stats.log_errors >= 3)
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/v1/balances")).status_code == 503
            successor = Teller(SqliteJournal(stage.path, encoding="json", retention=1e6, clock=wall))
            await successor.writer.open()
            await successor.tell("B")
            assert (await one.push("snapshot"))["reason"] == "epoch_changed"
            await until(lambda: stage.relay.follower.following)
        said = [record["event"] for record in logs if record["event"] not in ("relay.dropped", "journal.made")]
        assert said == ["relay.journal_unavailable", "relay.journal_back", "relay.log_changed"]
        async with stage.subscriber() as two:
            opened = await two.subscribe(cursor=cursor)
            assert (opened["recovered"], opened["reason"]) == (False, "epoch_changed")
            assert [row["account"] for row in (await two.push("snapshot"))["data"]] == ["B"]
            await successor.tell("B")
            assert (await two.push("update"))["event"]["account"] == "B"
        await successor.writer.close()


async def test_tls(tmp_path):
    made = await anyio.run_process(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl to make a certificate with")
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    async with staged(tmp_path, calm(heartbeat=0.2, sweep=0.02), certificate=certificate, key=key) as stage:
        await stage.teller.tell(*(f"a{n}" for n in range(900)))
        context = ssl.create_default_context(cafile=certificate)
        async with connect(stage.url.replace("ws:", "wss:"), ssl=context, open_timeout=PATIENCE) as client:
            one = Subscriber(client)
            assert (await one.subscribe())["snapshot_rows"] == 900
            assert [(await one.push("snapshot"))["page"] for _ in range(2)] == [1, 2]
            await stage.teller.tell("a1")
            await one.push("update")


def test_a_wrong_certificate_is_one_clear_line(tmp_path):
    from watcher.relay.http import sockets

    settings = RelaySettings(certificate=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match="cannot be read"):
        sockets.tls(settings)
    (tmp_path / "key.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match="cannot be used"):
        sockets.tls(settings)
    with pytest.raises(SettingsError, match="belong together"):
        RelaySettings(certificate="x").check()
