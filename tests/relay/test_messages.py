"""The bytes on the wire, to the letter: what a client of any age has learnt to read."""

import pytest

from watcher.model.events import BalanceState
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Cursor
from watcher.relay import wire
from watcher.relay.session import Session
from watcher.relay.settings import RelayTuning, StreamLimits

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
    '"observed_at":"2026-01-25T14:23:57.000000Z"}'
)
EVENT = (
    '{"id":"33ce8e6f2ce8ac5ff9ac5f64b16a1f2c","provider":"helius","chain":"eip155:1","account":"A","token":"native",'
    '"kind":"total","symbol":null,"version":1,"previous_amount":"1","amount":"3","delta":"2","unit":"base",'
    '"decimals":6,"slot":null,"as_of":null,"previous_observed_at":"2026-01-25T14:23:57.000000Z",'
    '"observed_at":"2026-01-25T14:23:58.000000Z"}'
)
PUSHES = {
    "welcome": (
        '{"type":"welcome","connection_id":"0123456789abcdef","server_time":"2026-01-25T14:23:57.000000Z",'
        '"heartbeat_ms":15000,"epoch":"ab","cursor":"ab.10-11","oldest_cursor":"ab.3-4","auth":"none",'
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
    "heartbeat": (
        '{"type":"heartbeat","cursor":"ab.8","sent":0,"conflated":0,"lag_ms":0,"time":"2026-01-25T14:23:57.000000Z",'
        '"providers":{"helius":{"last_success":null,"paused_until":null,"budget_used":0.25}}}'
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
        f'{{"subscription_id":"1","filter":{FILTER},"recovered":false,"cursor":"ab.7","snapshot_rows":3,"delivery":"all"}}'
    ),
    "subscribe with a gap": (
        '{"subscription_id":"1","filter":{},"recovered":false,"cursor":"ab.7","snapshot_rows":3,"delivery":"conflate",'
        '"reason":"expired"}'
    ),
    "unsubscribe": '{"subscription_id":"1"}',
    "list_subscriptions": f'{{"subscriptions":[{{"subscription_id":"1","filter":{FILTER},"delivery":"all"}}]}}',
    "ping": '{"time":"2026-01-25T14:23:57.000000Z"}',
}
ERROR = '{"code":"rate_limited","message":"later","temporary":true}'
IDS = ["7", "-1", '"a"', '"\\u00e9"', "123456789012345678901234567890", '""']


def page(number, last, states, reason=None):
    return wire.page("1", Cursor("ab", (7,)), number, last, states, reason=reason)


def pushes():
    """Every push, as the relay makes it."""
    session = Session(None, None, StreamLimits(), 0.0)
    return {
        "welcome": session.welcome(
            "0123456789abcdef", Bounds(Cursor("ab", (3, 4)), Cursor("ab", (10, 11))), WALL, RelayTuning()
        ),
        "snapshot": page(1, False, [STATE, STATE]),
        "snapshot unasked": page(1, False, [STATE], "epoch_changed"),
        "snapshot unasked, page 2": page(2, True, [], "epoch_changed"),
        "update": wire.update("ab.8", EVENT.encode()),
        "heartbeat": wire.push(
            "heartbeat",
            cursor="ab.8",
            sent=0,
            conflated=0,
            lag_ms=0,
            time="2026-01-25T14:23:57.000000Z",
            providers={"helius": {"last_success": None, "paused_until": None, "budget_used": 0.25}},
        ),
        "lagging": wire.push("lagging", cursor="ab.8"),
        "live": wire.push("live", cursor="ab.9"),
        "shutdown": wire.push("shutdown", reconnect_after_ms=1000),
        "error": wire.refusal(None, "bad_request", "not a JSON object with id, method and params"),
    }


def replies():
    """The result of every command, as the relay makes it."""
    helius = wire.shown(Filter(provider=("helius",)))
    stands = {"recovered": False, "cursor": "ab.7", "snapshot_rows": 3}
    return {
        "auth": {"auth": "ok"},
        "subscribe": {"subscription_id": "1", "filter": helius, **stands, "delivery": "all"},
        "subscribe with a gap": {
            "subscription_id": "1", "filter": wire.shown(Filter()), **stands, "delivery": "conflate", "reason": "expired",
        },
        "unsubscribe": {"subscription_id": "1"},
        "list_subscriptions": {"subscriptions": [{"subscription_id": "1", "filter": helius, "delivery": "all"}]},
        "ping": {"time": "2026-01-25T14:23:57.000000Z"},
    }  # fmt: skip


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
    assert wire.answer(id_.encode(), replies()[name]) == framed(f'{{"id":{id_},"result":{REPLIES[name]}}}')


@pytest.mark.parametrize("id_", IDS)
def test_an_error_is_these_bytes_behind_the_id_as_the_client_spelt_it(id_):
    frame = wire.refusal(id_.encode(), "rate_limited", "later", temporary=True)
    assert frame == framed(f'{{"id":{id_},"error":{ERROR}}}')
