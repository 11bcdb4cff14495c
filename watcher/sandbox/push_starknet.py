"""The pubsub of a Starknet node, RPC 0.8 and later: `starknet_subscribeEvents`, and a `Transfer` for each move.

Tokens of Cairo 0 put the parties into the data of the event, later ones into its keys: here a token's address decides.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from watcher.sandbox.json_rpc import INVALID_PARAMS, RpcError
from watcher.sandbox.push_session import ChainEvent, PushSubscription

TRANSFER_SELECTOR = "0x99cd8bde557814842a3121e8ddfd433a539b8c9f14bf31ebf108d12e6196e9"
MOST_KEYS = 1024
TOO_MANY_KEYS = 34
INVALID_SUBSCRIPTION = 66
TOO_FAR_BACK = 68
ACCEPTED = "ACCEPTED_ON_L2"
FINALITIES = ("PRE_CONFIRMED", ACCEPTED)
_FELT = re.compile(r"0x(0|[1-9a-f][0-9a-f]{0,62})")
"""As the specification has it: no leading zeros, lower case."""


class _Asked(msgspec.Struct):
    from_address: str | list[str] | None = None
    keys: list[list[str]] | None = None
    block_id: str | dict[str, Any] | None = None
    finality_status: str | None = None


class NodeEventFilter(msgspec.Struct, frozen=True):
    """Which events. An empty set matches everything."""

    addresses: frozenset[str]
    keys: tuple[frozenset[str], ...]
    level: str = ""

    def results(self, event: ChainEvent) -> Iterator[Any]:
        found = transfer_event(event)
        keys = found["keys"]
        if (
            (not self.addresses or found["from_address"] in self.addresses)
            and len(self.keys) <= len(keys)
            and all(not choice or key in choice for choice, key in zip(self.keys, keys, strict=False))
        ):
            yield found


def transfer_event(event: ChainEvent) -> dict[str, Any]:
    """From or to somebody whom no watch knows."""
    key = event.balance.key
    holder, other = _short(key.account), hex(int.from_bytes(event.bytes32("other")[:31], "big"))
    parties = [other, holder] if event.incoming else [holder, other]
    high, low = divmod(abs(event.amount - event.before), 2**128)
    in_data = parties if of_cairo_0(key.token) else []
    return {
        "from_address": _short(key.token),
        "keys": [TRANSFER_SELECTOR, *([] if in_data else parties)],
        "data": [*in_data, hex(low), hex(high)],
        "block_hash": hex(int.from_bytes(event.bytes32("block")[:31], "big")),
        "block_number": event.slot,
        "transaction_hash": hex(int.from_bytes(event.bytes32("transaction")[:31], "big")),
        "finality_status": ACCEPTED,
    }


def of_cairo_0(token: str) -> bool:
    return int(token, 16) % 2 == 0


def _short(felt: str) -> str:
    return hex(int(felt, 16))


class StarknetDialect:
    levels: Mapping[str, int] = {"": 0}
    ending = frozenset({"starknet_unsubscribe"})
    constants: Mapping[str, Any] = {
        "starknet_specVersion": "0.9.0",
        "starknet_chainId": f"0x{b'SN_MAIN'.hex()}",
    }

    def subscribe(self, method: str, params: list[Any] | dict[str, Any]) -> PushSubscription | None:
        return _event_filter(params) if method == "starknet_subscribeEvents" else None

    def identifier(self, number: int) -> int | str:
        return str(number)

    def given(self, params: list[Any] | dict[str, Any]) -> Any:
        if isinstance(params, dict):
            return params.get("subscription_id")
        return params[0] if len(params) == 1 else None

    def notification(
        self, _subscription: PushSubscription, identifier: int | str, result: Any
    ) -> tuple[str, dict[str, Any]]:
        return "starknet_subscriptionEvents", {"subscription_id": identifier, "result": result}

    def unknown(self) -> RpcError:
        return RpcError(INVALID_SUBSCRIPTION, "Invalid subscription id")


def _event_filter(params: list[Any] | dict[str, Any]) -> NodeEventFilter:
    """By name, or in the order of the specification."""
    names = _Asked.__struct_fields__
    given = params if isinstance(params, dict) else dict(zip(names, params, strict=False))
    try:
        asked = msgspec.convert(given, _Asked)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid params: {error}") from None
    if set(given) - set(names) or (not isinstance(params, dict) and len(params) > len(names)):
        raise RpcError(INVALID_PARAMS, "Invalid params: unknown parameter")
    if asked.finality_status not in (None, *FINALITIES):
        raise RpcError(INVALID_PARAMS, "Invalid params: unknown finality status")
    if asked.block_id not in (None, "latest"):
        raise RpcError(TOO_FAR_BACK, "Cannot go back more than 1024 blocks")  # the sandbox keeps no block
    keys = asked.keys or []
    if sum(map(len, keys)) > MOST_KEYS:
        raise RpcError(TOO_MANY_KEYS, "Too many keys provided in a filter")
    addresses = [asked.from_address] if isinstance(asked.from_address, str) else asked.from_address or []
    return NodeEventFilter(_felts(addresses), tuple(_felts(choice) for choice in keys))


def _felts(given: list[str]) -> frozenset[str]:
    if wrong := [one for one in given if not _FELT.fullmatch(one)]:
        raise RpcError(INVALID_PARAMS, f"Invalid params: {wrong[0]} is no felt")
    return frozenset(given)
