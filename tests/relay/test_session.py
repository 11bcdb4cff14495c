"""The conversation to the letter, without a socket: messages in, answers and things to do out."""

import hashlib
import json

import pytest

from watcher.model.keys import Filter
from watcher.model.log import Bounds, Cursor
from watcher.relay.http.auth import EVERYTHING, KnownToken, Tokens
from watcher.relay.messages import METHODS, CloseReason, StreamLimits
from watcher.relay.session import (
    ROW_BURST,
    ROWS_PER_SECOND,
    Authorized,
    OpenSubscription,
    SendFrame,
    Session,
    SubscriptionChanged,
)

EVM = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
WALL = 1_769_351_037_000_000


def tokens(**known):
    return Tokens([KnownToken(hashlib.sha256(token.encode()).digest(), rights) for token, rights in known.items()])


def payload(frame):
    """What stands in an unmasked frame."""
    assert frame[0] == 0x81
    start = 2 if frame[1] < 126 else 4 if frame[1] == 126 else 10
    return json.loads(frame[start:])


class Talk:
    """A session whose clock the test moves."""

    def __init__(self, known=None, rights=None, limits=None):
        self.now = 100.0
        self.session = Session(known, rights, limits or StreamLimits(), self.now)
        self.count = 0

    def say(self, message):
        self.now += 1.0
        return self.session.receive(message, self.now, WALL)

    def ask(self, method, **params):
        self.count += 1
        return self.say(json.dumps({"id": self.count, "method": method, "params": params}))

    def answer(self, method, **params):
        (action,) = self.ask(method, **params)
        return payload(action.frame)

    def error(self, method, **params):
        return self.answer(method, **params)["error"]["code"]

    def opened(self, **params):
        (asked,) = self.ask("subscribe", **params)
        start = asked.cursor or Cursor("ab", (7,))
        return payload(self.session.subscribed(asked, start, recovered=False, rows=0, reason=None))["result"]


def test_welcome_tells_the_log_the_limits_and_whether_a_token_is_needed():
    bounds = Bounds(Cursor("ab", (3, 4)), Cursor("ab", (10, 11)))
    message = payload(Talk().session.welcome("c1", bounds, WALL, 15.0))
    assert next(iter(message)) == "type"
    assert message == {
        "type": "welcome",
        "connection_id": "c1",
        "server_time": "2026-01-25T14:23:57.000000Z",
        "heartbeat_ms": 15000,
        "epoch": "ab",
        "head": "ab.10-11",
        "oldest_cursor": "ab.3-4",
        "auth": "none",
        "limits": {
            "message_bytes": 65536,
            "messages_per_second": 5,
            "burst": 20,
            "filter_values": 1024,
            "subscriptions": 32,
            "connections": 10000,
        },
    }


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "1", "null", '"x"', "[" * 60000, '{"id":1', '{"method":"ping"}', '{"id":1.5,"method":"ping"}',
     '{"id":null,"method":"ping"}', '{"id":true,"method":"ping"}', '{"id":{},"method":"ping"}', "\ud800", "NaN", "{}",
     '{"id":1,"method":"ping","params":{"a":' + "[" * 25_000 + "]" * 25_000 + "}}"],
    ids=lambda message: message[:20].encode(errors="replace").decode(),
)  # fmt: skip
def test_what_has_no_usable_id_is_answered_by_an_error_push(message):
    (action,) = Talk().say(message)
    pushed = payload(action.frame)
    assert list(pushed) == ["type", "code", "message", "temporary"]
    assert (pushed["type"], pushed["code"], pushed["temporary"]) == ("error", "bad_request", False)


@pytest.mark.parametrize("spelt", ["7", "-1", '"a"', '"\\u00e9"', "123456789012345678901234567890", '""'])
def test_an_id_comes_back_as_it_was_spelt(spelt):
    (action,) = Talk().say(f'{{"id":{spelt},"method":"ping"}}')
    assert action.frame.endswith(f'{{"id":{spelt},"result":{{"time":"2026-01-25T14:23:57.000000Z"}}}}'.encode())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"id":1}', "bad_request"),
        ('{"id":1,"method":5}', "bad_request"),
        ('{"id":1,"method":"ping","params":[]}', "bad_request"),
        ('{"id":1,"method":"ping","params":null}', "bad_request"),
        ('{"id":1,"method":"fly"}', "unknown_method"),
        ('{"id":1,"method":"auth"}', "bad_request"),
        ('{"id":1,"method":"auth","params":{"token":5}}', "bad_request"),
        ('{"id":1,"method":"unsubscribe"}', "bad_request"),
        ('{"id":1,"method":"unsubscribe","params":{"subscription_id":"9"}}', "not_found"),
    ],
)
def test_a_wrong_command_is_answered_with_its_error(message, code):
    (action,) = Talk().say(message)
    answer = payload(action.frame)
    assert (answer["id"], answer["error"]["code"], answer["error"]["temporary"]) == (1, code, False)


@pytest.mark.parametrize("method", METHODS)
def test_every_command_of_the_protocol_is_known(method):
    answer = Talk().answer(method, token=1, filter=1)
    assert answer.get("error", {}).get("code") in (None, "bad_request")


def test_a_binary_message_closes_with_1003():
    assert Talk().say(b"{}") == [CloseReason(1003, "bad_request")]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"filter": []}, "bad_request"),
        ({"filter": None}, "bad_request"),
        ({"filter": {"wallet": ["a"]}}, "bad_request"),
        ({"filter": {"account": []}}, "bad_request"),
        ({"filter": {"account": "a"}}, "bad_request"),
        ({"filter": {"account": ["a", 1]}}, "bad_request"),
        ({"filter": {"account": None}}, "bad_request"),
        ({"delivery": "some"}, "bad_request"),
        ({"delivery": None}, "bad_request"),
        ({"delivery": ["all"]}, "bad_request"),
        ({"on_gap": "weep"}, "bad_request"),
        ({"snapshot": 1}, "bad_request"),
        ({"snapshot": None}, "bad_request"),
        ({"crossed": 1}, "bad_request"),
        ({"crossed": None}, "bad_request"),
        ({"crossed": "true"}, "bad_request"),
        ({"interval_ms": -1}, "bad_request"),
        ({"interval_ms": 60001}, "bad_request"),
        ({"interval_ms": 1.0}, "bad_request"),
        ({"interval_ms": True}, "bad_request"),
        ({"interval_ms": "5"}, "bad_request"),
        ({"cursor": ""}, "bad_cursor"),
        ({"cursor": None}, "bad_cursor"),
        ({"cursor": 5}, "bad_cursor"),
        ({"cursor": "AB.1"}, "bad_cursor"),
        ({"cursor": "ab.-1"}, "bad_cursor"),
        ({"cursor": "ab.1-"}, "bad_cursor"),
        ({"cursor": "ab.x", "on_gap": "error"}, "bad_cursor"),
        ({"filter": {"account": [f"a{n}" for n in range(1025)]}}, "filter_limit"),
    ],
)
def test_a_wrong_subscription_is_refused_by_name(params, code):
    assert Talk().error("subscribe", **params) == code


def test_a_subscription_has_defaults():
    (asked,) = Talk().ask("subscribe")
    assert (asked.cursor, asked.snapshot, asked.subscription.without_gaps, asked.subscription.delivery) == (
        None,
        True,
        False,
        "all",
    )
    assert asked.subscription.wanted == Filter()


def test_interval_bounds_and_cursors_are_accepted_as_written():
    (asked,) = Talk().ask("subscribe", delivery="conflate", interval_ms=60000, cursor="ab.1-2", on_gap="error")
    assert (asked.subscription.interval_seconds, asked.cursor, asked.subscription.without_gaps) == (
        60.0,
        Cursor("ab", (1, 2)),
        True,
    )


def test_filter_values_are_canonical_sorted_and_unique():
    result = Talk().opened(filter={"account": ["b", EVM, "a", EVM.lower(), "0x1"], "provider": ["z", "a"]})
    felt = "0x" + "1".rjust(64, "0")
    assert result["filter"] == {"provider": ["a", "z"], "account": sorted([EVM.lower(), felt, "a", "b"])}


def test_a_result_holds_what_the_protocol_names():
    talk = Talk()
    (asked,) = talk.ask("subscribe", delivery="conflate")
    result = payload(talk.session.subscribed(asked, Cursor("ab", (7,)), recovered=False, rows=3, reason="expired"))[
        "result"
    ]
    assert result == {
        "subscription_id": "1",
        "filter": {},
        "recovered": False,
        "cursor": "ab.7",
        "snapshot_rows": 3,
        "delivery": "conflate",
        "matches": True,
        "reason": "expired",
    }


def test_filter_values_are_counted_over_the_whole_connection():
    talk = Talk()
    first = talk.opened(filter={"account": [f"a{n}" for n in range(1000)]})
    assert talk.error("subscribe", filter={"token": [f"t{n}" for n in range(25)]}) == "filter_limit"
    talk.opened(filter={"token": [f"t{n}" for n in range(24)]})
    talk.ask("unsubscribe", subscription_id=first["subscription_id"])
    talk.opened(filter={"token": [f"t{n}" for n in range(1000)]})


def test_a_connection_has_32_subscriptions_those_still_opening_included():
    talk = Talk()
    for _ in range(32):
        talk.ask("subscribe")
    assert talk.error("subscribe") == "subscription_limit"


def test_subscriptions_are_listed_and_ended():
    talk = Talk()
    talk.opened(filter={"provider": ["helius"]})
    talk.opened(delivery="conflate")
    assert talk.answer("list_subscriptions")["result"] == {
        "subscriptions": [
            {"subscription_id": "1", "filter": {"provider": ["helius"]}, "delivery": "all"},
            {"subscription_id": "2", "filter": {}, "delivery": "conflate"},
        ]
    }
    gone, answer = talk.ask("unsubscribe", subscription_id="1")
    assert isinstance(gone, SubscriptionChanged)
    assert payload(answer.frame)["result"] == {"subscription_id": "1"}
    assert talk.error("unsubscribe", subscription_id="1") == "not_found"


def test_a_log_that_cannot_be_read_on_ends_what_stands_and_asked_for_an_error_then():
    talk = Talk()
    talk.opened(on_gap="error")
    talk.opened()
    talk.ask("subscribe", on_gap="error")  # still opening: it learns from the log that is there then
    (push,) = talk.session.end_without_gaps("epoch_changed")
    assert payload(push) == {
        "type": "error",
        "code": "unrecoverable_cursor",
        "message": "subscription 1 ended: the log cannot be read on: epoch_changed",
        "temporary": False,
    }
    assert list(talk.session.subscriptions) == ["2", "3"]


def test_a_failed_subscription_gives_its_place_back():
    talk = Talk()
    (asked,) = talk.ask("subscribe")
    answer = payload(talk.session.not_subscribed(asked, "internal", "later"))
    assert answer["error"] == {"code": "internal", "message": "later", "temporary": True}
    assert talk.session.subscriptions == {}


def test_a_burst_of_20_then_5_a_second_and_a_refused_message_takes_no_token():
    talk = Talk()
    say = '{"id":1,"method":"ping"}'
    burst = [talk.session.receive(say, 100.0, WALL) for _ in range(25)]
    codes = [payload(action.frame).get("error", {}).get("code") for (action,) in burst]
    assert codes == [None] * 20 + ["rate_limited"] * 5
    assert payload(burst[-1][0].frame)["error"]["temporary"] is True
    after = [talk.session.receive(say, 100.2, WALL) for _ in range(2)]
    assert ["result" in payload(action.frame) for (action,) in after] == [True, False]


def test_the_100th_refusal_for_rate_closes_with_4101():
    talk = Talk()
    actions = [talk.session.receive("x", 100.0, WALL) for _ in range(120)]
    assert [len(each) for each in actions[:119]] == [1] * 119
    assert actions[119][1] == CloseReason(4101, "rate_limited")


def test_a_token_is_asked_for_and_heartbeats_wait_for_it():
    talk = Talk(tokens(secret=EVERYTHING))
    assert talk.session.auth == "required"
    begun, answer = talk.ask("auth", token="secret")
    assert begun == Authorized()
    assert payload(answer.frame)["result"] == {"auth": "ok"}
    assert isinstance(talk.ask("subscribe")[0], OpenSubscription)


def test_a_bad_token_or_a_command_before_auth_closes_with_4001():
    for method, params in [
        ("auth", {"token": "wrong"}),
        ("auth", {"token": "geheimé"}),
        ("subscribe", {}),
        ("fly", {}),
    ]:
        answer, close = Talk(tokens(secret=EVERYTHING)).ask(method, **params)
        assert payload(answer.frame)["error"]["code"] == "unauthorized"
        assert close == CloseReason(4001, "unauthorized")


def test_rubbish_before_auth_is_answered_and_opens_nothing():
    talk = Talk(tokens(secret=EVERYTHING))
    (answer,) = talk.say("{")
    assert isinstance(answer, SendFrame)
    assert talk.session.rights is None


def test_a_token_in_the_header_needs_no_auth():
    talk = Talk(tokens(secret=EVERYTHING), EVERYTHING)
    assert talk.session.auth == "ok"
    assert isinstance(talk.ask("subscribe")[0], OpenSubscription)


def test_a_failed_refresh_leaves_the_former_rights():
    talk = Talk(tokens(secret=EVERYTHING), EVERYTHING)
    assert talk.error("auth", token="wrong") == "unauthorized"
    assert isinstance(talk.ask("subscribe")[0], OpenSubscription)


def test_where_no_token_is_asked_for_auth_says_so():
    assert Talk().answer("auth", token="any")["result"] == {"auth": "none"}


def test_what_a_subscription_sees_is_the_intersection_with_the_rights():
    bound = Filter(provider=("helius",), account=("a", "b"))
    talk = Talk(tokens(secret=bound), bound)
    assert talk.opened()["filter"] == {"provider": ["helius"], "account": ["a", "b"]}
    assert talk.opened(filter={"account": ["b", "c"]})["filter"] == {"provider": ["helius"], "account": ["b"]}
    assert talk.error("subscribe", filter={"account": ["c"]}) == "forbidden"
    assert talk.error("subscribe", filter={"provider": ["ondo"]}) == "forbidden"


def test_a_refresh_that_allows_less_narrows_what_runs_and_one_that_allows_more_does_not_widen_it():
    talk = Talk(tokens(wide=EVERYTHING, narrow=Filter(account=("a",))), EVERYTHING)
    talk.opened(filter={"account": ["a", "b"]})
    talk.opened(filter={"account": ["b"]})
    first, second, ended, answer = talk.ask("auth", token="narrow")
    assert isinstance(first, SubscriptionChanged)
    assert isinstance(second, SubscriptionChanged)
    assert payload(ended.frame)["code"] == "forbidden"
    assert payload(answer.frame)["result"] == {"auth": "ok"}
    talk.ask("auth", token="wide")
    listed = talk.answer("list_subscriptions")["result"]["subscriptions"]
    assert [each["filter"] for each in listed] == [{"account": ["a"]}]


def test_who_has_asked_for_too_many_balances_and_events_is_told_to_come_back_and_may_still_stream():
    talk = Talk()
    talk.opened()
    talk.session.charge(ROW_BURST + 10 * ROWS_PER_SECOND, talk.now)
    for params in ({}, {"cursor": "ab.3"}, {"cursor": "ab.3", "snapshot": False}):
        error = talk.answer("subscribe", **params)["error"]
        assert (error["code"], error["temporary"]) == ("rate_limited", True)
    talk.opened(snapshot=False)
    assert len(talk.session.subscriptions) == 2
    talk.now += 10
    talk.opened()


def test_crossings_are_asked_for_and_said_to_come_and_otherwise_not_a_word():
    plain, asking = Talk().opened(), Talk().opened(crossed=True)
    assert asking.pop("crossed") is True
    assert asking == plain
    (asked,) = Talk().ask("subscribe", crossed=False)
    assert not asked.subscription.crossed
