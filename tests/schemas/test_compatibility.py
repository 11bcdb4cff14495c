"""A change that breaks readers, or clients, of a version that was published is refused; each kind of break is planted."""

import copy
import json

import pytest

from schemas import asyncapi
from schemas.compatibility import breaks
from tests.schemas.contract import SCHEMAS

PUBLISHED = sorted((SCHEMAS / "published").glob("asyncapi-*.json"))
CHANGED = ("components", "schemas", "BalanceChanged")
SUBSCRIBE = ("components", "schemas", "SubscribeParams")
NULL = {"type": "null"}
TEXT = {"type": "string"}
CODE = ("components", "schemas", "Error", "properties", "code", "anyOf", 0, "enum")


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_who_reads_by_a_published_version_can_go_on(path):
    assert breaks(json.loads(path.read_bytes()), asyncapi.document()) == []


def test_the_version_of_now_is_published():
    assert SCHEMAS / "published" / f"asyncapi-{asyncapi.VERSION}.json" in PUBLISHED


def at(node, place):
    for name in place:
        node = node[name]
    return node


def put(*place, value):
    def change(document):
        *before, last = place
        at(document, before)[last] = value

    return change


def gone(*place):
    def change(document):
        *before, last = place
        del at(document, before)[last]

    return change


def optional(*place):
    def change(document):
        *before, last = place
        at(document, before)["required"].remove(last)

    return change


def required(*place):
    def change(document):
        *before, last = place
        at(document, before)["required"].append(last)

    return change


def also(*place, value):
    def change(document):
        at(document, place).append(value)

    return change


def less(*place, value):
    def change(document):
        at(document, place).remove(value)

    return change


def headers(name):
    return ("components", "messages", f"{name}.json", "headers")


def of(place, field):
    return (*place, "properties", field)


def without_message(name, operation, part=()):
    def change(document):
        messages = at(document, ("operations", operation, *part, "messages"))
        messages[:] = [each for each in messages if not each["$ref"].endswith(f"/{name}")]

    return change


BREAKS = {
    "a field less": (gone(*of(CHANGED, "slot")), "balance-changed.v1.json.payload.slot is gone"),
    "a field that may be left out": (optional(*CHANGED, "slot"), "payload.slot may be left out now"),
    "a field that may be null": (put(*of(CHANGED, "amount"), value={"anyOf": [TEXT, NULL]}), "the type was string, is null or string"),
    "another type": (put(*of(CHANGED, "version"), value=TEXT), "payload.version: the type was integer, is string"),
    "an integer with a fraction": (put(*of(CHANGED, "version" ), value={"type": "number"}), "the type was integer, is number"),
    "a word more where words are fixed": (also(*of(CHANGED, "kind"), "enum", value="staked"), "may be staked"),
    "any word where words were fixed": (put(*of(CHANGED, "unit"), value=TEXT), "may be any"),
    "another tag": (put("components", "schemas", "Live", "properties", "type", "const", value="alive"), "may be alive"),
    "amounts of another form": (gone(*of(CHANGED, "amount"), "pattern"), "payload.amount: the pattern was"),
    "a time of another form": (put(*of(CHANGED, "observed_at"), "format", value="date"), "the format was date-time, is date"),
    "a wider range": (put(*of(CHANGED, "version"), "minimum", value=0), "payload.version: minimum was 1, is 0"),
    "a longer text": (gone(*of(CHANGED, "symbol"), "anyOf", 0, "maxLength"), "maxLength was 64, is None"),
    "a longer list": (put(*of(("components", "schemas", "BalanceState"), "recent_amounts"), "maxItems", value=99), "maxItems was 32"),
    "a longer tuple": (also("components", "schemas", "RecentAmount", "items", value=TEXT), "an array of another shape"),
    "another type within a tuple": (put("components", "schemas", "RecentAmount", "items", 1, value=TEXT), "recent_amounts[][1]: the type"),
    "a field less within a list": (gone(*of(("components", "schemas", "BalanceRow"), "amount")), "snapshot.payload.data[].amount is gone"),
    "a field less within a map": (gone(*of(("components", "schemas", "ProviderStatus"), "budget_used")), "providers.*.budget_used is gone"),
    "a header less": (gone(*of(headers("balance-changed.v1"), "ce_id")), "headers.ce_id is gone"),
    "a header that may be left out": (optional(*headers("balance-changed.v1"), "ce_id"), "headers.ce_id may be left out now"),
    "another type of event": (put(*of(headers("balance-changed.v1"), "ce_type"), "const", value="x"), "headers.ce_type: the values"),
    "another key": (put("components", "messages", "balance-state.v1.json", "bindings", "kafka", "key", value=TEXT), "state.v1.json.key: the pattern"),
    "a topic of another name": (put("channels", "state", "address", value="balances.state.v2"), "balances.state.v1 is gone"),
    "a topic that is deleted from": (put("channels", "state", "bindings", "kafka", "topicConfiguration", "cleanup.policy", value=["delete"]), "cleanup.policy was"),
    "an encoding less": (gone("components", "messages", "balance-changed.v1.msgpack"), "message balance-changed.v1.msgpack is gone"),
    "another encoding": (put("components", "messages", "live", "contentType", value="application/cbor"), "contentType was application/json"),
    "a push less": (without_message("live", "stream.push"), "the message #/channels/stream/messages/live is gone"),
    "a command less": (gone("operations", "stream.ping"), "operation stream.ping is gone"),
    "no errors": (without_message("error.result", "stream.ping", ("reply",)), "messages/error.result is gone"),
    "a param that must be given": (required(*SUBSCRIBE, "cursor"), "subscribe.payload.params.cursor is required now"),
    "a param less": (gone(*of(SUBSCRIBE, "interval_ms")), "subscribe.payload.params.interval_ms is gone"),
    "a word less in a param": (less(*of(SUBSCRIBE, "delivery"), "enum", value="conflate"), "params.delivery: the values"),
    "a narrower param": (put(*of(SUBSCRIBE, "interval_ms"), "maximum", value=1000), "maximum was 60000, is 1000"),
    "a param of another type": (put(*of(SUBSCRIBE, "snapshot"), value=TEXT), "params.snapshot: the type was boolean, is string"),
    "a param with a new form": (put(*of(("components", "schemas", "AuthParams"), "token"), "pattern", value="^x"), "params.token: the pattern"),
}  # fmt: skip
ALLOWED = {
    "a field more that need not be there": put(*of(CHANGED, "memo"), value=TEXT),
    "a field more that is always there": lambda document: (
        put(*of(CHANGED, "memo"), value=TEXT)(document),
        required(*CHANGED, "memo")(document),
    ),
    "a field that is always there now": required("components", "schemas", "Heartbeat", "cursor"),
    "a field that is never null now": put(*of(CHANGED, "slot"), value={"type": "integer", "minimum": 0}),
    "a word more where there may be any": also(*CODE, value="teapot"),
    "a narrower range": put(*of(CHANGED, "decimals"), "anyOf", 0, "maximum", value=18),
    "a word less in a record": less(*of(CHANGED, "kind"), "enum", value="unsettled"),
    "a header more": put(*of(headers("balance-state.v1"), "ce_type"), value=TEXT),
    "a push more": put("components", "messages", "renamed", value={}),
    "a param more": put(*of(SUBSCRIBE, "label"), value=TEXT),
    "a word more in a param": also(*of(SUBSCRIBE, "delivery"), "enum", value="latest"),
    "a wider param": put(*of(SUBSCRIBE, "interval_ms"), "maximum", value=90_000),
    "a param that need not be given": optional("components", "schemas", "AuthParams", "token"),
    "a reason in other words": put(*of(CHANGED, "slot"), "description", value="where the chain stood"),
}


@pytest.fixture(scope="module")
def now():
    return asyncapi.document()


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_readers_or_clients_is_refused(now, name):
    change, why = BREAKS[name]
    after = copy.deepcopy(now)
    change(after)
    assert any(why in line for line in breaks(now, after)), breaks(now, after)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_breaks_nobody_is_allowed(now, name):
    after = copy.deepcopy(now)
    ALLOWED[name](after)
    assert after != now
    assert breaks(now, after) == []
