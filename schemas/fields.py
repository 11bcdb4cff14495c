"""What each published field means, what its values look like, and one of them. One word means one thing everywhere: a
line is found by the field's name, or by `Struct.field` where a struct says more."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from watcher.ledger.rules import MOST_RECENT_AMOUNTS
from watcher.model.alerts import crossing_id
from watcher.model.amounts import SYMBOL
from watcher.model.events import event_id
from watcher.model.keys import Key
from watcher.relay.http.hint_routes import MOST_HINTS

EPOCH = "0f3c9a1be27d4586"
HELIUS = Key("helius", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa",
             "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")  # fmt: skip
BEFORE, NOW = "2026-01-25T14:43:57.000001Z", "2026-01-25T14:44:27.250000Z"
CLOSED = "2026-01-24"

COMPOSED = object()
"""The example is made of those of the field's own fields."""
LEFT_OUT = object()
"""The field stands only where it has something to say: the example goes without it."""


class Field(NamedTuple):
    meaning: str
    example: Any
    rules: Mapping[str, Any] = MappingProxyType({})
    """Of JSON Schema, for the values that are not null; of a list, for each of its values."""


TIME = {"format": "date-time"}
DECIMAL = {"pattern": r"^(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$"}
CHANGE = {"pattern": r"^-?(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?)$"}  # never zero: it is a change
COUNT = {"minimum": 0}
CURSOR = {"pattern": r"^[0-9a-f]+\.[0-9]+(-[0-9]+)*$"}
PROVIDER = {"pattern": "^[A-Za-z0-9_-]+$"}

FIELDS = {
    # A balance.
    "provider": Field("the provider's table in the config, by its name", HELIUS.provider, PROVIDER),
    "chain": Field("the chain's CAIP-2 id", HELIUS.chain),
    "account": Field("whose balance it is, in the chain's canonical spelling", HELIUS.account),
    "token": Field("mint or contract, canonical; `native`, or `unknown` where nobody named it", HELIUS.token),
    "kind": Field("which of the account's amounts; `total` everywhere but at bloXroute", "total"),
    "symbol": Field("the provider's own text, for display only; null: it gave none", "USDC", {"maxLength": SYMBOL}),
    "amount": Field("the balance, an exact decimal; compare it as a number, never as a float", "9863", DECIMAL),
    "unit": Field("of all amounts beside it: `base` (integers) or `decimal` (token units)", "base"),
    "decimals": Field("digits that turn base units into token units; null: the provider did not say", 6, {"minimum": 0, "maximum": 255}),
    "version": Field("counts the key's changes by one; 0: it has never changed", 1, COUNT),
    "slot": Field("the chain position that the provider gave", 354112027, COUNT),
    "as_of": Field("the provider's own time for the value", None, TIME),
    "observed_at": Field("when the answer came that told this amount", NOW, TIME),
    "label": Field("the watch's label in the config; null: it has none", "Treasury"),
    "tags": Field("the watches' tags in the config", ["cold", "eu"]),
    "watched": Field("false: no watch of this config reads the balance any more", True),
    "Update.label": Field("what the config calls the balance now", LEFT_OUT),
    "Crossed.label": Field("what the config calls the balance now", LEFT_OUT),
    # A hint.
    "Hint.account": Field("whose balances to read soon, in any usual spelling", HELIUS.account, {"minLength": 1}),
    "Hint.chain": Field("only there: a CAIP-2 id, or a name that the config takes; null: on any", LEFT_OUT),
    "Hint.token": Field("only this mint or contract, in any usual spelling; null: any", LEFT_OUT),
    "Hints.hints": Field("up to a thousand", COMPOSED, {"maxItems": MOST_HINTS}),
    "accepted": Field("of so many the balances are read soon", 1, COUNT),
    "unknown": Field("of so many nothing is watched that you may see", 0, COUNT),
    # A change.
    "id": Field("your own, an integer or a string; the answer repeats it as you spelt it", 1),
    "BalanceChanged.id": Field(
        "unique over all logs for ever, and always the same for this change",
        event_id(EPOCH, HELIUS, 1), {"pattern": "^[0-9a-f]{32}$"},
    ),
    "BalanceChanged.version": Field("1 for the first change of the key, then +1 each, no gaps", 1, {"minimum": 1}),
    "previous_amount": Field("the amount before: that of the key's event before, or of its baseline", "9864", DECIMAL),
    "delta": Field("`amount` - `previous_amount`, exact, never zero", "-1", CHANGE),
    "previous_observed_at": Field("the change happened after this and not later than `observed_at`", BEFORE, TIME),
    # A crossing.
    "Crossing.id": Field(
        "unique over all logs for ever, and always the same for this crossing",
        crossing_id(EPOCH, "gas-low", HELIUS, 1, "below"), {"pattern": "^[0-9a-f]{32}$"},
    ),
    "alert": Field("its name in the config", "gas-low", {"maxLength": 64}),
    "direction": Field("`below` or `above`: the alert fired; `cleared`: it may fire anew", "below"),
    "threshold": Field("the alert's `below` or `above`, in the unit of the amounts; of a `cleared` one too", "10000", DECIMAL),
    "Crossing.amount": Field("the balance, in the unit of its changes", "9863", DECIMAL),
    "Crossing.previous_amount": Field(
        "the amount before; null: no change led here: it was the key's first reading, or the alert was new or edited",
        "9864", DECIMAL,
    ),
    "Crossing.version": Field("of the change that made it; 0: the first reading lay beyond already", 1, COUNT),
    "Crossing.observed_at": Field("when the answer came that showed it", NOW, TIME),
    # A balance at a past time.
    "day": Field("the day that ended: it tells of its end, 24:00 UTC", CLOSED, {"format": "date"}),
    "balance": Field("what was held then", COMPOSED),
    "status": Field("`certain`; `changing`: from `previous_amount` to `amount` about then; `unseen`: nobody read it since `last_seen`", "certain"),
    "PastBalance.amount": Field("the balance; `changing`: the one that it became", "9863", DECIMAL),
    "PastBalance.previous_amount": Field("`changing`: the amount before; left out otherwise", LEFT_OUT, DECIMAL),
    "between": Field("`changing`: when the amount before was last seen, and when the new one first; left out otherwise", LEFT_OUT, TIME),
    "last_seen": Field("`unseen`: when the amount was last seen; left out otherwise", LEFT_OUT, TIME),
    # A state, beyond the balance.
    "order": Field("what the writer compares answers by: the greatest seen. Not for readers", 354112027, COUNT),
    "recent_amounts": Field(
        "amounts that were replaced within `settle` seconds, oldest first, each with when (microseconds since 1970). "
        "Not for readers", COMPOSED, {"maxItems": MOST_RECENT_AMOUNTS},
    ),
    "RecentAmount.amount": Field("an amount that the key had", "9864", DECIMAL),
    "replaced_at": Field("microseconds since 1970", 1769352267250000, COUNT),
    "absent_without_order": Field("the amount is 0 by absence, without a slot. Not for readers", LEFT_OUT),
    "first_observed_at": Field("when the balance was first known; left out: at `observed_at`, or nobody noted it", BEFORE, TIME),
    # The health of a provider.
    "time": Field("when this was said", NOW, TIME),
    "instance": Field("the process that asks this provider", "0f6c"),
    "watches": Field("how many watches it reads there", 1, COUNT),
    "last_success": Field("when an answer last told balances; null: none yet", NOW, TIME),
    "stalest_seconds": Field("age of the watch whose last good answer is oldest; null: one had none yet", 2.5, COUNT),
    "paused_until": Field("nothing is asked before this; null: not paused", None, TIME),
    "budget_used": Field("share of the binding limit that is used", 0.386, {"minimum": 0, "maximum": 1}),
    "state": Field(
        "`ok`; `waiting`: nothing was asked or answered yet; `paused`: it is left alone for a while; `refused`: it will "
        "not answer us; `failing`: its answers do not come, or do not count", "ok",
    ),
    "ProviderHealth.reason": Field("why it is not `ok`, in our words; null: it is", None, {"maxLength": 200}),
    "ProviderStatus.reason": Field("why it is not `ok`, in our words; null: it is", None, {"maxLength": 200}),
    "since": Field("since when it has this `state`", BEFORE, TIME),
    "unread": Field("alerts on balances that it has not read for as long as `unread_for` says; the first twenty", COMPOSED),
    "UnreadAlert.alert": Field("its name in the config", "gas is not read", {"maxLength": 64}),
    "ProviderStatus.unread": Field("alerts on balances that it has not read for as long as `unread_for` says; left out: none, or not yours to know", LEFT_OUT),
    "UnreadAlert.since": Field("since when the first of them has been unread for so long", BEFORE, TIME),
    "UnreadAlert.balances": Field("how many are: balances, and listings", 2, {"minimum": 1}),
    "hints": Field("what hints do for it; null: no source tells of it, and none ever did", COMPOSED),
    "sources": Field("those that tell of its watches, or have hinted one of them", COMPOSED),
    "hinted_delay": Field("median seconds from a hint to the read that showed the change; null: none yet", 0.8, COUNT),
    "unhinted_delay": Field("the same without a hint: half of the gap to the read before", 12.5, COUNT),
    "source": Field("its name in the config; `http` and `kafka` are the doors for hints of others, `http:NAME` one token", "solana"),
    "HintSourceHealth.type": Field("what it speaks: `solana`, `ethereum`, `starknet`, `tokenkit`, `http` or `kafka`", "solana"),
    "connected": Field("false: it is away, and the schedule goes on alone", True),
    "HintSourceHealth.since": Field("since when it is there, or away; null: from the start", BEFORE, TIME),
    "per_second": Field("hints over the last minute, for whatever provider", 2.5, COUNT),
    "precision": Field("share of its hints that a change followed, beyond chance; null: none was judged yet", 0.92, {"minimum": 0, "maximum": 1}),
    # The stream.
    "type": Field("the push's name", None),
    "connection_id": Field("names the connection in the relay's log", "0123456789abcdef"),
    "server_time": Field("the relay's clock", NOW, TIME),
    "heartbeat_ms": Field("milliseconds from one heartbeat to the next", 15000, {"minimum": 1}),
    "epoch": Field("names the log", EPOCH, {"pattern": "^[0-9a-f]+$"}),
    "head": Field("where the log ended just now. Do not keep it: nothing was sent to you yet", f"{EPOCH}.42", CURSOR),
    "cursor": Field("everything that matches before it was sent to you: keep the last one", f"{EPOCH}.42", CURSOR),
    "SubscribeResult.cursor": Field("where the data begins", f"{EPOCH}.42", CURSOR),
    "SubscribeParams.cursor": Field("go on behind it: the last one that a push gave you", LEFT_OUT, CURSOR),
    "oldest_cursor": Field("the oldest one that can still be resumed from", f"{EPOCH}.1", CURSOR),
    "auth": Field("`none`: no token is asked for; `required`: send `auth` within 5 s; `ok`: you may ask", "ok"),
    "limits": Field("what the relay allows a connection", COMPOSED),
    "message_bytes": Field("bytes of one message of yours", 65536, {"minimum": 1}),
    "messages_per_second": Field("messages of yours, for as long as it goes on", 5, {"minimum": 1}),
    "burst": Field("messages of yours at once", 20, {"minimum": 1}),
    "filter_values": Field("values in the filters of all your subscriptions", 1024, {"minimum": 1}),
    "subscriptions": Field("those that stand", COMPOSED),
    "StreamLimits.subscriptions": Field("subscriptions of a connection", 32, {"minimum": 1}),
    "connections": Field("connections that the relay has room for", 10000, {"minimum": 1}),
    "subscription_id": Field("names the subscription on this connection", "1"),
    "page": Field("counts from 1; a page 1 begins a new snapshot", 1, {"minimum": 1}),
    "last": Field("true: the snapshot is complete, and counts from now on", True),
    "reason": Field("why the log could not be followed from your cursor", LEFT_OUT),
    "data": Field("at most 500 balances", COMPOSED),
    "event": Field("the change, byte for byte as it stands in the journal", COMPOSED),
    "Crossed.event": Field("the crossing, byte for byte as it stands in the journal", COMPOSED),
    "crossed": Field("true: crossings of alerts come too; left out: they do not", LEFT_OUT),
    "sent": Field("updates and crossings sent on this connection", 7, COUNT),
    "conflated": Field("updates that a later one replaced, since you asked for `conflate`", 0, COUNT),
    "lag_ms": Field("age of the oldest change that matches and was not sent yet", 0, COUNT),
    "providers": Field("health of each provider that you may see, by its name", COMPOSED),
    "reconnect_after_ms": Field("wait so long before you come again", 1000, COUNT),
    "code": Field("what is wrong, for programs", "unrecoverable_cursor"),
    "message": Field("what is wrong, for people", "the log cannot be read from there: expired"),
    "temporary": Field("true: the same may succeed later", False),
    # Commands and results.
    "method": Field("the command's name", None),
    "params": Field("what the command takes; may be left out where nothing of it is required", COMPOSED),
    "result": Field("what the command gives", COMPOSED),
    "error": Field("why it was not done", COMPOSED),
    "AuthParams.token": Field("a token of the relay", "TOKEN"),
    "filter": Field("what you want: AND over the fields, OR within one", {"account": [HELIUS.account]}),
    "SubscribeResult.filter": Field("your filter as it was understood, canonical", {"account": [HELIUS.account]}),
    "delivery": Field("`all`: every change; `conflate`: the latest of each balance when you are slow", "all"),
    "snapshot": Field("send the state first; counts only without a cursor", True),
    "on_gap": Field("when the cursor is too old: a `snapshot`, or an `error`", LEFT_OUT),
    "interval_ms": Field("with `conflate`: each balance comes at most once in so many milliseconds", LEFT_OUT),
    "recovered": Field("true: the stream goes on behind your cursor, and nothing is missing", False),
    "snapshot_rows": Field("balances that the snapshot will have", 1, COUNT),
    "matches": Field("false: no balance and no watch matches the filter now", True),
    "note": Field("where nothing matches: what of the filter is not known, and what is nearest", LEFT_OUT),
    "Filter.provider": Field("names of providers", ["helius"]),
    "Filter.chain": Field("CAIP-2 ids", [HELIUS.chain]),
    "Filter.account": Field("accounts, in any usual spelling", [HELIUS.account]),
    "Filter.token": Field("tokens, in any usual spelling", [HELIUS.token]),
    "Filter.label": Field("labels of watches", ["Treasury"]),
    "Filter.tag": Field("tags of watches", ["cold"]),
}  # fmt: skip


WORDS = {
    "bad_request": "the message, or a value in it, is not what the protocol has; the text says which",
    "unknown_method": "there is no such command",
    "unauthorized": "no token, or none of this relay; the connection is closed unless it had rights before",
    "forbidden": "the token allows nothing of what was asked for",
    "bad_cursor": "not a cursor of such a log: send back one that a push gave you, as it was",
    "unrecoverable_cursor": "the log cannot be read on from there, and you asked for an error then",
    "not_found": "this connection has no such subscription",
    "filter_limit": "more filter values than `limits` says",
    "subscription_limit": "more subscriptions than `limits` says",
    "rate_limited": "more messages, or more rows, than a connection may ask for at a time: later",
    "internal": "the journal does not answer: later",
    "epoch_changed": "it is another log",
    "ahead": "the cursor is beyond the end of the log: it was put back to an earlier time",
    "expired": "events behind the cursor are kept no longer",
}
"""What the codes of errors mean, and the reasons of snapshots."""


def word(name: str) -> str:
    """Raises LookupError for a code that nobody has explained."""
    if name not in WORDS:
        raise LookupError(f"the word {name} is published: say in schemas/fields.py what it means")
    return WORDS[name]


def field(owner: str, name: str) -> Field:
    """The line for a field of the struct `owner`. Raises LookupError for one that nobody has explained."""
    found = FIELDS.get(f"{owner}.{name}") or FIELDS.get(name)
    if found is None:
        raise LookupError(f"the field {owner}.{name} is published: say in schemas/fields.py what it means")
    return found


def example(record: Any) -> Any:
    """One value of that type as it stands on the wire: of a struct, a dict (a list, if it is array-like)."""
    return _of_type(msgspec.inspect.type_info(record), None)


def _of_type(info: msgspec.inspect.Type, name: str | None) -> Any:
    match info:
        case msgspec.inspect.StructType():
            return _of_struct(info)
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            return [_of_type(item, name)]
        case msgspec.inspect.UnionType(types=(msgspec.inspect.StructType() as struct, msgspec.inspect.NoneType())):
            return _of_struct(struct)
        case msgspec.inspect.DictType(value_type=value):
            return {HELIUS.provider: _of_type(value, name)}
    raise TypeError(f"no example can be composed of {info} ({name}): write one into schemas/fields.py")


def _of_struct(info: msgspec.inspect.StructType) -> Any:
    owner = info.cls.__name__
    values = {} if info.tag is None else {str(info.tag_field): info.tag}
    for each in info.fields:
        shown = field(owner, each.encode_name).example
        if shown is COMPOSED:
            values[each.encode_name] = _of_type(each.type, each.encode_name)
        elif shown is not LEFT_OUT:
            values[each.encode_name] = shown
    return list(values.values()) if info.array_like else values
