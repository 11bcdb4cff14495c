"""The pubsub of an Ethereum node, as geth's: `eth_subscribe` with `logs`, and an ERC-20 `Transfer` for each move."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from watcher.sandbox.json_rpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from watcher.sandbox.push_session import ChainEvent, PushSubscription

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
MOST_POSITIONS = 4
MOST_CHOICES = 1000
"""Of topics in one position, and of addresses."""
NOT_FOUND = -32000
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_TOPIC = re.compile(r"0x[0-9a-fA-F]{64}")


class _Filter(msgspec.Struct):
    address: str | list[str] | None = None
    topics: list[str | list[str] | None] | None = None


class NodeLogFilter(msgspec.Struct, frozen=True):
    """Which logs. An empty set matches everything."""

    addresses: frozenset[str]
    topics: tuple[frozenset[str], ...]
    level: str = ""

    def results(self, event: ChainEvent) -> Iterator[Any]:
        """A second time comes as after a reorganisation: the log is taken back, and is there again."""
        log = transfer_log(event)
        if self._matches(log):
            if event.again:
                yield {**log, "removed": True}
            yield log

    def _matches(self, log: Mapping[str, Any]) -> bool:
        found = log["topics"]
        return (
            (not self.addresses or log["address"] in self.addresses)
            and len(self.topics) <= len(found)
            and all(not choice or topic in choice for choice, topic in zip(self.topics, found, strict=False))
        )


def transfer_log(event: ChainEvent) -> dict[str, Any]:
    """From or to somebody whom no watch knows."""
    key = event.balance.key
    holder, other = _topic(key.account), f"0x{event.bytes32('other')[12:].hex():0>64}"
    parties = [other, holder] if event.incoming else [holder, other]
    return {
        "address": key.token,
        "topics": [TRANSFER, *parties],
        "data": f"0x{abs(event.amount - event.before):064x}",
        "blockNumber": hex(event.slot),
        "transactionHash": f"0x{event.bytes32('transaction').hex()}",
        "transactionIndex": "0x0",
        "blockHash": f"0x{event.bytes32('block').hex()}",
        "logIndex": "0x0",
        "removed": False,
    }


def _topic(address: str) -> str:
    return f"0x{address.removeprefix('0x'):0>64}"


class EvmDialect:
    levels: Mapping[str, int] = {"": 0}
    ending = frozenset({"eth_unsubscribe"})

    def __init__(self, chain: int) -> None:
        self.constants: Mapping[str, Any] = {"eth_chainId": hex(chain), "net_version": str(chain)}

    def subscribe(self, method: str, params: list[Any] | dict[str, Any]) -> PushSubscription | None:
        if method != "eth_subscribe":
            return None
        if not isinstance(params, list) or not params or len(params) > 2:
            raise RpcError(INVALID_PARAMS, "missing value for required argument 0")
        if params[0] != "logs":
            raise RpcError(METHOD_NOT_FOUND, f'no "{params[0]}" subscription in eth namespace')
        return _log_filter(params[1] if len(params) == 2 else {})

    def identifier(self, number: int) -> int | str:
        return f"0x{number:032x}"

    def given(self, params: list[Any] | dict[str, Any]) -> Any:
        return params[0] if isinstance(params, list) and len(params) == 1 else None

    def notification(
        self, _subscription: PushSubscription, identifier: int | str, result: Any
    ) -> tuple[str, dict[str, Any]]:
        return "eth_subscription", {"subscription": identifier, "result": result}

    def unknown(self) -> RpcError:
        return RpcError(NOT_FOUND, "subscription not found")


def _log_filter(given: Any) -> NodeLogFilter:
    try:
        asked = msgspec.convert(given, _Filter)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_PARAMS, f"invalid argument 1: {error}") from None
    topics = [_choice(position, _TOPIC, "topics") for position in asked.topics or ()]
    if len(topics) > MOST_POSITIONS:
        raise RpcError(INVALID_PARAMS, "exceed max topics")
    return NodeLogFilter(_choice(asked.address, _ADDRESS, "addresses"), tuple(topics))


def _choice(given: str | list[str] | None, shape: re.Pattern[str], what: str) -> frozenset[str]:
    choice = [given] if isinstance(given, str) else given or []
    if len(choice) > MOST_CHOICES:
        raise RpcError(INVALID_PARAMS, f"exceed max {what}")
    if wrong := [one for one in choice if not shape.fullmatch(one)]:
        raise RpcError(INVALID_PARAMS, f"invalid argument 1: {wrong[0]} is none of the {what}")
    return frozenset(one.lower() for one in choice)
