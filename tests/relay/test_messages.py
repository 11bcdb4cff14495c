"""The bytes on the wire, to the letter: what a client of any age has learnt to read."""

import re
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from watcher.model.alerts import Crossing
from watcher.model.events import BalanceState, HintsHealth, HintSourceHealth
from watcher.model.keys import Filter, Key, Scope
from watcher.model.log import Bounds, Cursor, EventType, Published
from watcher.model.watches import Watched, WatchIndex
from watcher.relay import messages, wire
from watcher.relay.messages import (
    METHODS,
    AuthResult,
    Command,
    Heartbeat,
    Lagging,
    ListResult,
    Live,
    PingResult,
    ProviderStatus,
    Shutdown,
    SnapshotPage,
    StreamLimits,
    SubscribeParams,
    SubscribeResult,
    SubscriptionInfo,
    UnsubscribeResult,
    retry_after,
)
from watcher.relay.session import Session

WALL = 1_769_351_037_000_000
STATE = BalanceState(
    provider="helius",
    chain="solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
    account="A",
    token="native",
    kind="total",
    symbol=None,
    version=3,
    amount="1003",
    unit="base",
    decimals=None,
    slot=7,
    as_of=None,
    observed_at="2026-01-25T14:23:57.000000Z",
    order=7,
)
ROW = (
    '{"provider":"helius","chain":"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp","account":"A","token":"native",'
    '"kind":"total","symbol":null,"amount":"1003","unit":"base","decimals":null,"version":3,"slot":7,"as_of":null,'
    '"observed_at":"2026-01-25T14:23:57.000000Z","label":"Cold \\"1\\"","tags":["a","b"],"watched":true}'
)
HINTS = HintsHealth(
    sources=(
        HintSourceHealth(source="sol", type="solana", connected=True, since=None, per_second=2.5, precision=None),
    ),
    hinted_delay=0.5,
    unhinted_delay=None,
)
WATCHES = WatchIndex([Watched(Scope("helius"), 'Cold "1"', ("b", "a"))])
EVENT = (
    '{"id":"33ce8e6f2ce8ac5ff9ac5f64b16a1f2c","provider":"helius","chain":"eip155:1","account":"A","token":"native",'
    '"kind":"total","symbol":null,"version":1,"previous_amount":"1","amount":"3","delta":"2","unit":"base",'
    '"decimals":6,"slot":null,"as_of":null,"previous_observed_at":"2026-01-25T14:23:57.000000Z",'
    '"observed_at":"2026-01-25T14:23:58.000000Z"}'
)
CROSSING = (
    '{"id":"5b0f1c0a5a0e4d53a4a2f6f5f6a1a9c7","alert":"low \\"1\\"","direction":"below","threshold":"2","amount":"1",'
    '"previous_amount":"3","provider":"helius","chain":"eip155:1","account":"A","token":"native","kind":"total",'
    '"version":2,"observed_at":"2026-01-25T14:23:58.000000Z"}'
)
PUSHES = {
    "welcome": (
        '{"type":"welcome","connection_id":"0123456789abcdef","server_time":"2026-01-25T14:23:57.000000Z",'
        '"heartbeat_ms":15000,"epoch":"ab","head":"ab.10-11","oldest_cursor":"ab.3-4","auth":"none",'
        '"limits":{"message_bytes":65536,"messages_per_second":5,"burst":20,"filter_values":1024,"subscriptions":32,'
        '"connections":10000}}'
    ),
    "snapshot": f'{{"type":"snapshot","subscription_id":"1","cursor":"ab.7","page":1,"last":false,"data":[{ROW},{ROW}]}}',
    "snapshot unasked": (
        '{"type":"snapshot","subscription_id":"1","cursor":"ab.7","page":1,"last":false,"reason":"epoch_changed",'
        f'"data":[{ROW}]}}'
    ),
    "snapshot unasked, page 2": '{"type":"snapshot","subscription_id":"1","cursor":"ab.7","page":2,"last":true,"data":[]}',
    "update": f'{{"type":"update","cursor":"ab.8","event":{EVENT}}}',
    "update with a label": f'{{"type":"update","cursor":"ab.8","label":"Cold \\"1\\"","event":{EVENT}}}',
    "crossed": f'{{"type":"crossed","cursor":"ab.9","event":{CROSSING}}}',
    "crossed with a label": f'{{"type":"crossed","cursor":"ab.9","label":"Cold \\"1\\"","event":{CROSSING}}}',
    "heartbeat": (
        '{"type":"heartbeat","cursor":"ab.8","sent":0,"conflated":0,"lag_ms":0,"time":"2026-01-25T14:23:57.000000Z",'
        '"providers":{"helius":{"last_success":null,"paused_until":null,"budget_used":0.25,"state":"ok","reason":null,"since":"2026-01-25T14:23:57.000000Z",'
        '"hints":{"sources":[{"source":"sol","type":"solana","connected":true,"since":null,"per_second":2.5,"precision":null}],'
        '"hinted_delay":0.5,"unhinted_delay":null},"unread":[]}}}'
    ),
    "lagging": '{"type":"lagging","cursor":"ab.8"}',
    "live": '{"type":"live","cursor":"ab.9"}',
    "shutdown": '{"type":"shutdown","reconnect_after_ms":1000}',
    "error": '{"type":"error","code":"bad_request","message":"not a JSON object with id, method and params","temporary":false}',
}
FILTER = '{"provider":["helius"]}'
REPLIES = {
    "auth": '{"auth":"ok"}',
    "subscribe": (
        f'{{"subscription_id":"1","filter":{FILTER},"recovered":false,"cursor":"ab.7","snapshot_rows":3,"delivery":"all","matches":true}}'
    ),
    "subscribe with a gap": (
        '{"subscription_id":"1","filter":{},"recovered":false,"cursor":"ab.7","snapshot_rows":3,"delivery":"conflate",'
        '"matches":false,"note":"no provider x","reason":"expired"}'
    ),
    "subscribe with crossings": (
        f'{{"subscription_id":"1","filter":{FILTER},"recovered":false,"cursor":"ab.7","snapshot_rows":3,"delivery":"all","matches":true,"crossed":true}}'
    ),
    "unsubscribe": '{"subscription_id":"1"}',
    "list_subscriptions with crossings": (
        f'{{"subscriptions":[{{"subscription_id":"1","filter":{FILTER},"delivery":"all","crossed":true}}]}}'
    ),
    "list_subscriptions": f'{{"subscriptions":[{{"subscription_id":"1","filter":{FILTER},"delivery":"all"}}]}}',
    "ping": '{"time":"2026-01-25T14:23:57.000000Z"}',
}
ERROR = '{"code":"rate_limited","message":"later","temporary":true}'
IDS = ["7", "-1", '"a"', '"\\u00e9"', "123456789012345678901234567890", '""']


def page(number, last, states, reason=UNSET):
    return wire.push(
        SnapshotPage(
            subscription_id="1", cursor="ab.7", page=number, last=last, reason=reason, data=wire.rows(states, WATCHES)
        )
    )


def event(text, kind: EventType = "changed"):
    return Published(Key("helius", "eip155:1", "A", "native"), 1, text.encode(), 0, 7, 0, kind)


def pushes():
    """Every push, as the relay makes it."""
    session = Session(None, None, StreamLimits(), 0.0)
    bounds = Bounds(Cursor("ab", (3, 4)), Cursor("ab", (10, 11)))
    return {
        "welcome": session.welcome("0123456789abcdef", bounds, WALL, 15.0),
        "snapshot": page(1, False, [STATE, STATE]),
        "snapshot unasked": page(1, False, [STATE], "epoch_changed"),
        "snapshot unasked, page 2": page(2, True, []),
        "update": wire.event("ab.8", event(EVENT)),
        "update with a label": wire.event("ab.8", event(EVENT), wire.label_of('Cold "1"')),
        "crossed": wire.event("ab.9", event(CROSSING, "crossed")),
        "crossed with a label": wire.event("ab.9", event(CROSSING, "crossed"), wire.label_of('Cold "1"')),
        "heartbeat": wire.push(
            Heartbeat(
                cursor="ab.8",
                sent=0,
                conflated=0,
                lag_ms=0,
                time="2026-01-25T14:23:57.000000Z",
                providers={
                    "helius": ProviderStatus(None, None, 0.25, "ok", None, "2026-01-25T14:23:57.000000Z", HINTS)
                },
            )
        ),
        "lagging": wire.push(Lagging(cursor="ab.8")),
        "live": wire.push(Live(cursor="ab.9")),
        "shutdown": wire.push(Shutdown(reconnect_after_ms=1000)),
        "error": wire.error_reply(None, "bad_request", "not a JSON object with id, method and params"),
    }


def subscribed(wanted, delivery, reason=UNSET, note=UNSET, crossed=UNSET):
    return SubscribeResult(
        subscription_id="1",
        filter=wanted,
        recovered=False,
        cursor="ab.7",
        snapshot_rows=3,
        delivery=delivery,
        matches=note is UNSET,
        note=note,
        reason=reason,
        crossed=crossed,
    )


def results():
    """What every command gives."""
    helius = Filter(provider=("helius",))
    return {
        "auth": AuthResult("ok"),
        "subscribe": subscribed(helius, "all"),
        "subscribe with a gap": subscribed(Filter(), "conflate", "expired", "no provider x"),
        "subscribe with crossings": subscribed(helius, "all", crossed=True),
        "unsubscribe": UnsubscribeResult("1"),
        "list_subscriptions with crossings": ListResult([SubscriptionInfo("1", helius, "all", crossed=True)]),
        "list_subscriptions": ListResult([SubscriptionInfo("1", helius, "all")]),
        "ping": PingResult("2026-01-25T14:23:57.000000Z"),
    }


def framed(text):
    """A whole unmasked text frame of a server."""
    data = text.encode()
    size = bytes((len(data),)) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2)
    return b"\x81" + size + data


@pytest.mark.parametrize("name", PUSHES)
def test_a_push_is_these_bytes(name):
    assert pushes()[name] == framed(PUSHES[name])


@pytest.mark.parametrize("id_", IDS)
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_these_bytes_behind_the_id_as_the_client_spelt_it(name, id_):
    assert wire.reply(id_.encode(), results()[name]) == framed(f'{{"id":{id_},"result":{REPLIES[name]}}}')


@pytest.mark.parametrize("id_", IDS)
def test_an_error_is_these_bytes_behind_the_id_as_the_client_spelt_it(id_):
    frame = wire.error_reply(id_.encode(), "rate_limited", "later", temporary=True)
    assert frame == framed(f'{{"id":{id_},"error":{ERROR}}}')


@pytest.mark.parametrize("name", PUSHES)
def test_a_push_is_read_as_what_it_was_and_nothing_of_it_is_lost(name):
    assert wire.encode(wire.read(PUSHES[name], "subscribe")).decode() == PUSHES[name]


@pytest.mark.parametrize("id_", IDS)
@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_read_as_what_it_was_and_nothing_of_it_is_lost(name, id_):
    text = f'{{"id":{id_},"result":{REPLIES[name]}}}'
    assert wire.encode(wire.read(text, name.split()[0])).decode() == text
    text = f'{{"id":{id_},"error":{ERROR}}}'
    assert wire.encode(wire.read(text, name.split()[0])).decode() == text


def test_a_push_of_an_unknown_type_is_its_cursor_and_one_of_a_known_type_is_whole_or_an_error():
    assert wire.read('{"type":"new","id":1,"cursor":"ab.7"}', "ping") == wire.Unknown("ab.7")
    assert wire.read('{"type":"new"}', "ping") == wire.Unknown(UNSET)
    with pytest.raises(msgspec.DecodeError):
        wire.read('{"type":"welcome","cursor":"ab.7"}', "ping")


def test_an_error_whose_code_is_new_is_read():
    read = wire.read('{"id":1,"error":{"code":"too_early","message":"later","temporary":true}}', "ping")
    assert (read.error.code, read.error.temporary) == ("too_early", True)


def test_a_snapshot_whose_reason_is_new_is_read():
    push = PUSHES["snapshot unasked"].replace("epoch_changed", "moved")
    assert wire.read(push, "ping").reason == "moved"
    reply = REPLIES["subscribe with a gap"].replace("expired", "moved")
    assert wire.read(f'{{"id":1,"result":{reply}}}', "subscribe").result.reason == "moved"


def test_a_field_that_is_new_is_passed_over():
    assert wire.read('{"type":"live","cursor":"ab.9","since":5}', "ping") == wire.read(PUSHES["live"], "ping")


def test_the_clients_command_is_these_bytes():
    params = SubscribeParams(filter=Filter(provider=("helius",)), snapshot=False, cursor="ab.1")
    text = f'{{"id":1,"method":"subscribe","params":{{"filter":{FILTER},"delivery":"all","snapshot":false,"cursor":"ab.1"}}}}'
    assert wire.encode(Command(1, "subscribe", params)).decode() == text
    assert msgspec.json.decode(text, type=METHODS["subscribe"].command) == Command(1, "subscribe", params)


def test_the_clients_command_asks_for_crossings_by_one_member_more():
    params = SubscribeParams(snapshot=False, crossed=True)
    text = '{"id":1,"method":"subscribe","params":{"filter":{},"delivery":"all","snapshot":false,"crossed":true}}'
    assert wire.encode(Command(1, "subscribe", params)).decode() == text


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (1000, "backing_off"),
        (1003, "backing_off"),
        (1006, "backing_off"),
        (1012, "backing_off"),
        (3999, "backing_off"),
        (4000, "never"),
        (4001, "never"),
        (4099, "never"),
        (4100, "backing_off"),
        (4101, "backing_off"),
        (4102, "backing_off"),
        (4199, "backing_off"),
        (4200, "at_once"),
        (4299, "at_once"),
        (4300, "backing_off"),
    ],
)
def test_the_code_of_a_close_frame_carries_the_rule_for_coming_again(code, rule):
    assert retry_after(code) == rule


@pytest.mark.parametrize(
    ("why", "code", "reason"),
    [
        (messages.BINARY, 1003, "bad_request"),
        (messages.SHUTDOWN, 1012, "shutdown"),
        (messages.JOURNAL_AWAY, 1012, "internal"),
        (messages.UNAUTHORIZED, 4001, "unauthorized"),
        (messages.RATE_LIMITED, 4101, "rate_limited"),
        (messages.AUTH_TIMEOUT, 4102, "auth_timeout"),
        (messages.SLOW_CONSUMER, 4200, "slow_consumer"),
    ],
)
def test_a_close_frame_has_its_code_and_a_word(why, code, reason):
    assert (why.code, why.reason) == (code, reason)


PAGE = resources.files("watcher.relay").joinpath("page.html").read_text()


def test_the_page_handles_pushes_and_sends_commands_that_are_in_the_protocol():
    assert set(re.findall(r"^  on_(\w+)\(", PAGE, re.MULTILINE)) <= set(messages.PUSHES)
    assert set(re.findall(r'this\.send\("(\w+)"', PAGE)) <= set(METHODS)


def test_the_page_comes_again_by_the_same_rule():
    never, at_once = (
        range(int(low), int(high)) for low, high in re.findall(r"code >= (\d+) && event.code < (\d+)", PAGE)
    )
    for code in range(1000, 5000):
        assert (code in never, code in at_once) == (retry_after(code) == "never", retry_after(code) == "at_once")


@pytest.mark.parametrize(
    "kind",
    [
        messages.Welcome,
        messages.StreamLimits,
        messages.SubscribeResult,
        messages.BalanceRow,
        messages.SnapshotPage,
        messages.Update,
        messages.Crossed,
        Crossing,
        messages.Heartbeat,
        messages.Shutdown,
        messages.Error,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_field_is_in_the_guide(kind):
    guide = (Path(__file__).parents[2] / "docs" / "relay.md").read_text()
    named = {word for quoted in re.findall(r"`([a-z_, ]+)`", guide) for word in quoted.split(", ")}
    assert {*kind.__struct_fields__} <= named
