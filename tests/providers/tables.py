"""Providers as the config would make them, and answers as the network would bring them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from watcher.model.readings import Reading
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.providers import registry
from watcher.providers.protocol import Provider, ReadResult, Request, Response

NOW = 1_760_000_007.0
"""Unix seconds; 27 s into its minute."""
LATER = 1_770_000_000.0
"""Unix seconds, after all that TokenKit's documented answers tell of."""


def built(kind: str, *watch: Mapping[str, str], keyed: bool = True, **settings: Any) -> Provider:
    """The provider of a table `[providers.p]`."""
    known = registry.known()
    table = {"type": kind, "watch": list(watch), **settings}
    return registry.build("p", msgspec.convert(table, known[kind].Settings), known, keyed=keyed)


def asked(
    provider: Provider, lane: int = 0, targets: Sequence[Target] | None = None, interval: float = 60.0
) -> Request:
    """The request that a lane makes for its first targets."""
    group, one = lanes(provider)[lane]
    return provider.ask(one, group.targets[: one.batch] if targets is None else targets, interval)


def lanes(provider: Provider) -> list[tuple[TargetGroup, Lane]]:
    """Of all groups, in their order."""
    return [(group, lane) for group in provider.groups for lane in group.lanes]


def answered(
    provider: Provider,
    body: bytes,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    lane: int = 0,
    wall: float = NOW,
) -> ReadResult:
    """What the provider makes of an answer to the lane's request."""
    request = asked(provider, lane)
    return provider.read(request, Response(status, carrying(request, body), wall, headers or {}))


def carrying(request: Request, body: bytes) -> bytes:
    """As a JSON-RPC server answers: under the id of the request, where the answer has the id 1."""
    return body if request.id is None else body.replace(b'"id":"1"', b'"id":"%b"' % request.id.encode())


def amounts(readings: Sequence[Reading]) -> dict[tuple[str, str, str], str | None]:
    """Account, token and kind → amount."""
    return {(one.key.account, one.key.token, one.key.kind): one.amount for one in readings}
