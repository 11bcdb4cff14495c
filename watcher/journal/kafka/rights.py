# mypy: disallow-untyped-calls=False
"""Which right it is that we have not: what a broker refuses is read from its answers, whatever the client makes of them.

The client drops some refusals, asks again for ever after others, and none of its errors says which operation was meant.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.types import Array, Schema

TOPIC = TopicAuthorizationFailedError.errno
GROUP = GroupAuthorizationFailedError.errno
CLUSTER = ClusterAuthorizationFailedError.errno
TRANSACTION = TransactionalIdAuthorizationFailed.errno

OPERATIONS = {
    TOPIC: {
        0: "WRITE",
        1: "READ",
        2: "DESCRIBE",
        3: "DESCRIBE",
        19: "CREATE",
        24: "WRITE",
        32: "DESCRIBE_CONFIGS",
        33: "ALTER_CONFIGS",
    },
    GROUP: {10: "DESCRIBE", 11: "READ", 12: "READ", 13: "READ", 14: "READ", 15: "DESCRIBE"},
    TRANSACTION: {0: "WRITE", 10: "DESCRIBE", 22: "WRITE", 24: "WRITE", 26: "WRITE"},
    CLUSTER: {0: "IDEMPOTENT_WRITE", 19: "CREATE", 22: "IDEMPOTENT_WRITE"},
}
"""Error code → key of the request → the right that it takes, in Kafka's words."""
NAMES = {
    TOPIC: ("topic", ("topic", "topics", "resource_name")),
    GROUP: ("group", ("group", "group_id", "groups", "coordinator_key")),
    TRANSACTION: ("transactional id", ("transactional_id", "coordinator_key")),
}
"""Error code → what is named, and the fields that name it."""


class Refusal(NamedTuple):
    """One error code that means a missing right, and what stands around it."""

    code: int
    name: str | None
    """Of a topic."""


class DeniedRights:
    """What the cluster has refused, in the order in which it did."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""
        """The last ones, in Kafka's words: "WRITE on topic balances.state.v1"."""

    def since(self, count: int) -> str:
        """The last one, if there was any since there were so many; else ""."""
        return self.last if self.count > count else ""

    def see(self, request: Any, versions: Any, response: Any) -> None:
        """An answer has come. `versions`: of the requests that the broker knows, as its connection has them."""
        if refusals := list(_refusals(response)):
            sent = request.prepare(versions)
            found = dict.fromkeys(_right(sent, refusal) for refusal in refusals)
            self.count += 1
            self.last = ", ".join(found)


def _right(request: Any, refusal: Refusal) -> str:
    operation = OPERATIONS[refusal.code].get(request.API_KEY, f"request {request.API_KEY}")
    if refusal.code not in NAMES:
        return f"{operation} on the cluster"
    kind, fields = NAMES[refusal.code]
    named = refusal.name if refusal.code == TOPIC else None
    values = (getattr(request, field, None) for field in fields)
    name = named or next((value for value in values if value), "")
    return f"{operation} on {kind} {name if isinstance(name, str) else ', '.join(map(str, name))}"


def _refusals(response: Any) -> Iterator[Refusal]:
    schema = response.SCHEMA
    return _in(schema, [getattr(response, name) for name in schema.names], None)


def _in(schema: Schema, values: Any, topic: str | None) -> Iterator[Refusal]:
    """An answer is a tree of tuples; the topic that a tuple names is that of all below it."""
    fields = dict(zip(schema.names, values, strict=True))
    for name in NAMES[TOPIC][1]:
        if isinstance(fields.get(name), str):
            topic = fields[name]
    if (code := fields.get("error_code")) in OPERATIONS:
        yield Refusal(code, topic)
    for field, value in zip(schema.fields, values, strict=True):
        if isinstance(field, Array) and isinstance(field.array_of, Schema):
            for one in value or ():
                yield from _in(field.array_of, one, topic)
