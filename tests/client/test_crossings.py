"""Crossings in the typed client and in `tail`: once each, whatever is cut, in words that no text from outside can forge."""

import contextlib
import functools
import io
import json

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from tests.kafka_broker import free_port
from tests.relay.stage import PATIENCE, SOLANA, calm, relaying, staged, until, wall
from tests.relay.test_log_change import Successions
from watcher.client import Crossed, Stream, Update
from watcher.client.tail import TailColumns, log_of_providers, tail
from watcher.model.alerts import Crossing
from watcher.model.events import UnreadAlert
from watcher.model.keys import Scope
from watcher.model.watches import Watched, WatchIndex
from watcher.relay.messages import ProviderStatus

pytestmark = pytest.mark.anyio


def names(found):
    return [(type(each).__name__, each.event.version) for each in found]


async def collect(events, count):
    found = []
    async with contextlib.aclosing(events):
        with anyio.fail_after(PATIENCE):
            async for event in events:
                found.append(event)
                if len(found) == count:
                    break
    return found


async def test_events_are_updates_and_crossings_in_order_and_the_plain_iterator_has_updates_alone(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")
        since = str(stage.relay.flusher.fan_out.cursor)
        for _ in range(2):
            await stage.teller.tell("A", crossed=["A"])
        found = await collect(Stream(stage.url, since=since).events(), 4)
        assert names(found) == [(kind, version) for version in (1, 2) for kind in ("Update", "Crossed")]
        assert [each.event for each in found if isinstance(each, Crossed)] == stage.teller.crossed
        assert await collect(aiter(Stream(stage.url, since=since)), 2) == [
            each for each in found if isinstance(each, Update)
        ]
        rest = await collect(Stream(stage.url, since=found[0].cursor).events(), 3)
        assert rest == found[1:], "the cursor of a change stands before its crossing"


async def test_no_alertcomes_twice_or_is_missing_through_cuts_and_restarts(tmp_path):
    port, found = free_port(), []
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A")

        async def read(stream):
            async for event in stream.events():
                found.append((type(event).__name__, event.event.version))  # noqa: PERF401 - looked at meanwhile

        async with anyio.create_task_group() as tasks:
            for life in range(3):
                async with relaying(stage.teller.journal, calm(reconnect=0.0), port=port) as (relay, _):
                    if not life:
                        since = str(relay.flusher.fan_out.cursor)
                        stream = Stream(f"ws://127.0.0.1:{port}/v1/stream", since=since)
                        tasks.start_soon(read, stream)
                    await stage.teller.tell("A", crossed=["A"])
                    await until(lambda life=life: len(found) >= 6 * life + 2)
                    for accepted in list(relay.listener.admission.sockets.values()):
                        accepted.dismiss()
                    await stage.teller.tell("A", crossed=["A"])
                    await until(lambda life=life: len(found) >= 6 * life + 4)
                await stage.teller.tell("A", crossed=["A"])
            async with relaying(stage.teller.journal, port=port):
                await until(lambda: len(found) >= 18)
            tasks.cancel_scope.cancel()
    assert found == [(kind, version) for version in range(1, 10) for kind in ("Update", "Crossed")]


def crossed(version, direction, *, alert="low", account="A"):
    event = Crossing(
        id="0" * 32, alert=alert, direction=direction, threshold="100", amount="99.5", previous_amount="120",
        provider="jupiter", chain=SOLANA, account=account, token="native", kind="total", version=version,
        observed_at="2026-01-25T14:44:27.250000Z",
    )  # fmt: skip
    return Crossed(cursor="ab.1", event=event)


def test_what_came_before_a_cut_is_known_by_alert_balance_version_and_direction():
    stream = Stream("ws://nowhere")
    first = [crossed(0, "below"), crossed(3, "cleared"), crossed(3, "below"), crossed(3, "below", alert="x")]
    first += [crossed(1, "below", account="B")]
    assert [stream._fresh(each) for each in first] == [True] * 5
    assert [stream._fresh(each) for each in first] == [False] * 5
    assert stream._fresh(crossed(4, "below"))
    assert not stream._fresh(crossed(3, "above"))


async def test_crossings_of_another_log_are_new_whatever_their_versions(tmp_path):
    async with staged(tmp_path) as stage, Successions(stage) as logs:
        await stage.teller.tell("A")
        found = []

        async def read(stream):
            async for event in stream.events():
                found.append((type(event).__name__, event.event.version))  # noqa: PERF401 - looked at meanwhile

        async with anyio.create_task_group() as tasks:
            since = str(stage.relay.flusher.fan_out.cursor)
            tasks.start_soon(read, Stream(stage.url, since=since, on_snapshot=lambda _: None))
            for _ in range(2):
                await stage.teller.tell("A", crossed=["A"])
            await until(lambda: len(found) == 4)
            await logs.prepare("A")
            await logs.turn()
            await logs.turned()
            await logs.teller.tell("A", crossed=["A"])
            await until(lambda: len(found) == 6)
            tasks.cancel_scope.cancel()
        assert found[4:] == [("Update", 1), ("Crossed", 1)]


def columns(event, label=msgspec.UNSET, *, colour=False):
    return TailColumns(colour=colour).of(Crossed(cursor="ab.1", event=event, label=label))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "ALERT low below 100: 99.5, was 120"),
        ({"direction": "above", "amount": "101"}, "ALERT low above 100: 101, was 120"),
        ({"direction": "cleared", "amount": "130"}, "CLEARED low: 130, was 120"),
        ({"previous_amount": None, "version": 0}, "ALERT low below 100: 99.5"),
    ],
)
def test_a_line_says_in_words_what_was_crossed_and_colour_is_not_the_only_sign(fields, words):
    event = msgspec.structs.replace(crossed(7, "below").event, **fields)
    assert columns(event) == f"14:44:27.250  jupiter  A  native  {words}"
    assert columns(event, "Hot wallet") == f"14:44:27.250  jupiter  Hot wallet A  native  {words}"
    paint = "\x1b[32m" if event.direction == "cleared" else "\x1b[31m"
    assert columns(event, colour=True).endswith(f"{paint}{words}\x1b[0m")


def test_no_text_from_outside_reaches_the_terminal_as_it_came():
    wild = "\x1b[2J\u202e\n" + "x" * 300
    event = msgspec.structs.replace(
        crossed(7, "below").event, alert=wild, account=wild, token=wild, provider=wild, amount=wild, threshold=wild,
        previous_amount=wild, observed_at=wild, kind="settled",
    )  # fmt: skip
    assert columns(event, wild).isprintable()
    assert "settled" in columns(event)


async def test_alerts_on_what_is_not_read_are_logged_beside_the_stream_and_nothing_of_them_forges_a_line():
    status = ProviderStatus(None, None, 0.0, "ok", None, None)
    unread = msgspec.structs.replace(status, unread=(UnreadAlert("cold\x1b[2J\n", "2026-01-25T14:44:27.250000Z", 3),))
    with capture_logs() as lines:
        log = log_of_providers(None)
        for each in (unread, unread, status):
            log({"jupiter": each})
    assert [(line["event"], line["log_level"], line["provider"], line["balances"]) for line in lines] == [
        ("alert.unread", "warning", "jupiter", 3),
        ("alert.read_again", "warning", "jupiter", 3),
    ]
    assert all(str(line["alert"]).isprintable() for line in lines)


async def test_columns_of_changes_and_crossings_are_the_same_ones(tmp_path):
    async with staged(tmp_path) as stage:
        await stage.teller.tell("A", "A much longer account")
        short, long = await stage.teller.tell("A", "A much longer account", crossed=["A much longer account"])
        lines = TailColumns(colour=False)
        first = lines.line(long)
        assert lines.alert(stage.teller.crossed[0]).startswith(first[: first.index("native") + len("native")])
        assert lines.line(short).index("native") == first.index("native")


async def shown(stage, count, **options):
    """What `tail` has written once there are so many lines."""
    out = io.StringIO()
    given = {"filters": {}, "json": False, "since": None, "token": None, "out": out, "colour": False}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(tail, stage.url, **given | options))
        await until(lambda: out.getvalue().count("\n") >= count)
        tasks.cancel_scope.cancel()
    return out.getvalue().splitlines()


async def test_tail_shows_crossings_among_the_changes_and_its_filter_holds_for_both(tmp_path):
    watches = [WatchIndex([Watched(Scope("jupiter", SOLANA, "A"), "Hot"), Watched(Scope("jupiter"))])]
    async with staged(tmp_path, watches=watches) as stage:
        await stage.teller.tell("A", "B")
        since = str(stage.relay.flusher.fan_out.cursor)
        await stage.teller.tell("A", "B", crossed=["A", "B"], observed_at=wall())
        lines = await shown(stage, 4, since=since)
        assert ["ALERT low below 100: 1001, was 1000" in line for line in lines] == [False, False, True, True]
        assert ["Hot A" in line for line in lines] == [True, False, True, False]
        lines = await shown(stage, 2, since=since, filters={"label": ["Hot"]}, json=True)
        change, alert = map(json.loads, lines)
        assert (change["event"]["account"], "alert" in change["event"]) == ("A", False)
        assert alert["event"] == msgspec.to_builtins(stage.teller.crossed[0])
        assert list(alert) == ["cursor", "label", "event"]
        assert lines[1].encode().endswith(b'"event":%b}' % msgspec.json.encode(stage.teller.crossed[0]))
