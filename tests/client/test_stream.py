"""The typed client and `tail` against real relays that come and go."""

import asyncio
import contextlib
import functools
import io
import json
import re

import anyio
import pytest
from structlog.testing import capture_logs
from websockets.utils import accept_key

from tests.kafka_broker import free_port
from tests.relay.stage import PATIENCE, SOLANA, calm, relaying, staged, until
from tests.relay.test_log_change import Successions
from watcher.client.stream import RelayRefused, Stream
from watcher.client.tail import TailColumns, short, tail
from watcher.model.events import HintsHealth, HintSourceHealth
from watcher.model.keys import Scope
from watcher.model.watches import Watched, WatchIndex

pytestmark = pytest.mark.anyio


async def collect(stream, count):
    found = []
    async with contextlib.aclosing(aiter(stream)) as updates:
        with anyio.fail_after(PATIENCE):
            async for update in updates:
                found.append(update)
                if len(found) == count:
                    return found
    return found


async def test_updates_come_decoded_with_their_cursors(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A", "B")
        since = str(stage.relay.flusher.fan_out.cursor)
        for _ in range(3):
            await stage.teller.tell("A", "B")
        found = await collect(Stream(stage.url, since=since, filters={"account": ["B"]}), 3)
        assert [update.event for update in found] == [e for e in stage.teller.told if e.account == "B"]
        rest = await collect(Stream(stage.url, since=found[0].cursor, filters={"account": ["B"]}), 2)
        assert rest == found[1:]


async def test_it_goes_on_by_itself_after_a_restart_and_after_a_cut(tmp_path):
    port = free_port()
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        stream = None
        found = []
        async with anyio.create_task_group() as tasks:

            async def read():
                async for update in stream:
                    found.append(update.event.version)  # noqa: PERF401 - looked at meanwhile

            for life in range(3):
                async with relaying(stage.teller.journal, calm(reconnect=0.0), port=port) as (relay, _):
                    if stream is None:
                        stream = Stream(f"ws://127.0.0.1:{port}/v1/stream", since=str(relay.flusher.fan_out.cursor))
                        tasks.start_soon(read)
                    await stage.teller.tell("A")
                    await until(lambda life=life: len(found) >= 3 * life + 1)
                    for accepted in list(relay.listener.admission.sockets.values()):
                        accepted.dismiss()
                    await stage.teller.tell("A")
                    await until(lambda life=life: len(found) >= 3 * life + 2)
                await stage.teller.tell("A")
            async with relaying(stage.teller.journal, port=port):
                await until(lambda: len(found) >= 9)
            tasks.cancel_scope.cancel()
        assert found == list(range(1, 10))


async def test_a_snapshot_that_nobody_asked_for_is_told_with_its_reason(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        seen = []
        stream = Stream(stage.url, since="00.1", on_snapshot=seen.append)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, stream, 1)
            await until(lambda: seen)
            await stage.teller.tell("A")
        assert (seen[0].reason, [row.account for row in seen[0].rows]) == ("epoch_changed", ["A"])


async def test_another_log_is_a_snapshot_on_the_same_connection_and_the_updates_of_it_follow(tmp_path):
    """Its versions are lower, and it does not know all balances."""
    async with staged(tmp_path) as stage, Successions(stage) as logs:
        await stage.teller.tell("A", "B")
        seen, found, cuts, out = [], [], [], io.StringIO()
        stream = Stream(stage.url, on_snapshot=seen.append, on_cut=cuts.append)
        told = {"filters": {}, "json": False, "since": None, "token": None, "out": out, "colour": False}

        async def read():
            async for update in stream:
                found.append((update.event.account, update.event.version))  # noqa: PERF401 - looked at meanwhile

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(functools.partial(tail, stage.url, **told))
            await until(
                lambda: (
                    sum(bool(each.session.subscriptions) and each.outbox.live for each in stage.relay.connections) == 2
                )
            )
            for _ in range(2):
                await stage.teller.tell("A", "B")
            await until(lambda: len(found) == 4 and out.getvalue().count("\n") == 4)
            await logs.prepare("A")
            await logs.turn()
            await until(lambda: seen and out.getvalue().count("\n") == 5)
            await logs.teller.tell("A", "B")
            await logs.teller.tell("B")
            await until(lambda: len(found) == 6 and out.getvalue().count("\n") == 7)
            tasks.cancel_scope.cancel()
        assert [(each.reason, [(row.account, row.version) for row in each.rows]) for each in seen] == [
            ("epoch_changed", [("A", 0)])
        ]
        assert found[-2:] == [("A", 1), ("B", 1)]
        assert stream.cursor == f"{logs.epochs[1]}.3"
        assert out.getvalue().splitlines()[4].startswith("-- gap (epoch_changed): 1 balances stand at ")
        assert (cuts, stage.relay.stats.accepted) == ([], 2)


async def test_who_is_cancelled_leaves_no_socket_open_though_the_relay_has_gone_silent():
    subscribed, gone = anyio.Event(), anyio.Event()

    async def silent(reader, writer):
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", await reader.readuntil(b"\r\n\r\n"))[1].decode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key).encode()
        )
        await reader.read(1)
        subscribed.set()
        await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server, anyio.create_task_group() as tasks:
        port = server.sockets[0].getsockname()[1]
        tasks.start_soon(collect, Stream(f"ws://127.0.0.1:{port}/v1/stream"), 1)
        with anyio.fail_after(PATIENCE):
            await subscribed.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), anyio.fail_after(PATIENCE):
                await gone.wait()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"token": "wrong"}, "unauthorized"),
        ({}, "unauthorized"),
        ({"token": "secret", "since": "nonsense"}, "bad_cursor"),
        ({"token": "secret", "filters": {"wallet": ["x"]}}, "bad_request"),
    ],
)
async def test_it_raises_only_where_trying_again_is_no_use(tmp_path, options, code):
    async with staged(tmp_path, environ={"T": "secret"}, tokens_env="T") as stage:
        with pytest.raises(RelayRefused) as refused:
            await collect(Stream(stage.url, **options), 1)
        assert refused.value.code == code


async def test_tail_writes_a_line_a_change(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        since = str(stage.relay.flusher.fan_out.cursor)
        await stage.teller.tell("A", amount="2000")
        await stage.teller.tell("A", amount="500")
        for as_json in (False, True):
            out = io.StringIO()
            async with anyio.create_task_group() as tasks:

                async def run(out=out, as_json=as_json):
                    await tail(stage.url, filters={}, json=as_json, since=since, token=None, out=out, colour=False)

                tasks.start_soon(run)
                await until(lambda out=out: out.getvalue().count("\n") >= 2)
                tasks.cancel_scope.cancel()
            lines = out.getvalue().splitlines()
            if as_json:
                assert [json.loads(line)["event"]["amount"] for line in lines] == ["2000", "500"]
            else:
                assert lines[0].endswith("1000  →  2000  ▲ +1000")
                assert lines[1].endswith("2000  →   500  ▼ -1500")


@pytest.mark.parametrize("as_json", [False, True])
async def test_tail_says_beside_the_changes_that_a_provider_is_in_trouble_and_when_it_is_over(tmp_path, as_json):
    out = io.StringIO()

    async def run(url):
        await tail(url, filters={}, json=as_json, since=None, token=None, out=out, colour=False)

    with capture_logs() as logs:
        async with staged(tmp_path, calm(heartbeat=0.05, sweep=0.02)) as stage, anyio.create_task_group() as tasks:
            await stage.teller.tell("A")
            tasks.start_soon(run, stage.url)
            failing = {
                "state": "failing",
                "reason": "no answer in time (2 in a row)\x1b[2J",
                "since": "2026-01-25T14:43:57Z",
            }
            for parts, lines in (({}, 0), (failing, 1), (failing, 1), ({}, 2)):
                await stage.teller.beat("jupiter", **parts)
                await until(lambda lines=lines: sum(one["event"].startswith("provider.") for one in logs) >= lines)
            tasks.cancel_scope.cancel()
    trouble, over = [one for one in logs if one["event"].startswith("provider.")]
    assert (trouble["event"], trouble["provider"], trouble["state"]) == ("provider.trouble", "jupiter", "failing")
    assert trouble["reason"].startswith("no answer in time (2 in a row)")
    assert "\x1b" not in trouble["reason"]
    assert over["event"] == "provider.recovered"
    assert over["log_level"] == trouble["log_level"], "`tail` shows no less of the end than of the trouble"
    assert out.getvalue() == ""


async def test_tail_tells_whoever_asks_for_more_which_source_of_hints_comes_and_goes_and_what_they_do(tmp_path):
    def hints(connected):
        one = HintSourceHealth(
            source="sol\x1b[2J", type="solana", connected=connected, since="t", per_second=2.54, precision=0.917
        )
        return HintsHealth(sources=(one,), hinted_delay=0.82, unhinted_delay=None)

    with capture_logs() as logs:
        async with staged(tmp_path, calm(heartbeat=0.05, sweep=0.02)) as stage, anyio.create_task_group() as tasks:
            await stage.teller.tell("A")
            tasks.start_soon(following(stage, io.StringIO()))
            for connected, lines in ((True, 2), (True, 2), (False, 3)):
                await stage.teller.beat("jupiter", hints=hints(connected))
                await until(lambda lines=lines: sum(one["event"].startswith("hints.") for one in logs) >= lines)
            tasks.cancel_scope.cancel()
    there, figures, away = [one for one in logs if one["event"].startswith("hints.")]
    assert {one["log_level"] for one in (there, figures, away)} == {"info"}
    assert (there["event"], there["provider"], there["since"]) == ("hints.connected", "jupiter", "t")
    assert figures["event"] == "hints.figures"
    assert figures["sources"].endswith(" 2.5 a second, 92% right")
    assert (figures["hinted"], figures["unhinted"]) == ("0.8 s", None)
    assert away["event"] == "hints.away"
    assert not any("\x1b" in str(one.values()) for one in logs)


async def test_columns_stay_and_colour_is_not_the_only_sign(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        (event,) = await stage.teller.tell("A", amount="5")
        plain, coloured = TailColumns(colour=False).line(event), TailColumns(colour=True).line(event)
        assert "▼ -995" in plain
        assert "\x1b[31m▼ -995\x1b[0m" in coloured
        assert short("3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa") == "3emsAV…PKFVaa"


def following(stage, out, **options):
    given = {"filters": {}, "json": False, "since": None, "token": None, "out": out, "colour": False}
    return functools.partial(tail, stage.url, **given | options)


async def test_tail_shows_the_label_beside_the_account_and_takes_a_filter_by_it(tmp_path):
    watches = [
        WatchIndex([Watched(Scope("jupiter", SOLANA, "A"), "Cold storage"), Watched(Scope("jupiter"), tags=("x",))])
    ]
    async with staged(tmp_path, watches=watches) as stage:
        await stage.teller.tell("A", "B")
        since = str(stage.relay.flusher.fan_out.cursor)
        await stage.teller.tell("A", "B")
        for options, labels in (
            ({"filters": {"label": ["Cold storage"]}}, ["Cold storage"]),
            ({"filters": {"tag": ["x"]}}, ["Cold storage", None]),
        ):
            for as_json in (False, True):
                out = io.StringIO()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(following(stage, out, since=since, json=as_json, **options))
                    await until(lambda out=out, labels=labels: out.getvalue().count("\n") >= len(labels))
                    tasks.cancel_scope.cancel()
                lines = out.getvalue().splitlines()
                if as_json:
                    assert [json.loads(line).get("label") for line in lines] == labels
                    assert not any("label" in json.loads(line)["event"] for line in lines)
                else:
                    assert ["Cold storage A" in line for line in lines] == [label is not None for label in labels]


async def test_tail_says_on_stderr_that_its_filter_matches_nothing_and_what_is_near(tmp_path):
    watches = [WatchIndex([Watched(Scope("helius")), Watched(Scope("jupiter"))])]
    async with staged(tmp_path, watches=watches) as stage:
        out = io.StringIO()
        with capture_logs() as lines:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(following(stage, out, filters={"provider": ["hellius"]}))
                await until(lambda: lines)
                tasks.cancel_scope.cancel()
        assert lines == [
            {
                "event": "tail.nothing_matches",
                "log_level": "warning",
                "text": "no provider hellius: did you mean helius?",
            }
        ]
        assert out.getvalue() == ""


async def test_that_nothing_matches_is_told_once_however_often_it_comes_again(tmp_path):
    async with staged(tmp_path, watches=[WatchIndex([Watched(Scope("jupiter"))])]) as stage:
        said = []
        stream = Stream(stage.url, filters={"provider": ["x"]}, on_nothing=said.append)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, stream, 1)
            for accepted in (1, 2):
                await until(lambda want=accepted: stage.relay.stats.accepted == want and stream.subscribed)
                for socket in list(stage.relay.listener.admission.sockets.values()):
                    socket.dismiss()
            tasks.cancel_scope.cancel()
        assert said == ["no provider x: there is jupiter"]
