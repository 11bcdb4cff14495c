"""What the members of a fleet tell one another, through the user data of Kafka's group protocol.

At a join each member tells a claim. One of them, the leader, makes an assignment for each of all claims. aiokafka gives an
assignor no generation, so the assignments are counted here: a member that was frozen still claims what it has lost, and is
known by the lower number.

The name of the assignor never changes, since members that name different ones cannot join one group: the version stands in
the data. Fields are only ever added at the end, with a default; the version grows when one changes its meaning.
"""

from typing import Annotated, TypeVar

import msgspec

VERSION = 1
WEIGHTIEST = 1e9
"""Requests a second: whoever allows more, by limits that mean "none", weighs as much. More in a claim is nonsense."""


class ClaimError(ValueError):
    """The bytes are no claim, or no assignment, of a version that this member knows."""


class MemberClaim(msgspec.Struct, frozen=True, array_like=True):
    """What a member tells when it joins."""

    version: int
    instance: str
    """The process, as heartbeats and owners name it; of a static member its name."""
    providers: dict[str, Annotated[float, msgspec.Meta(ge=0.0, le=WEIGHTIEST)]]
    """Provider → requests a second that its limits allow: its weight."""
    config: str
    """Hash of the provider tables, 16 hex digits."""
    owned: list[int]
    """Partitions that it was given last, without those it has lost since."""
    epoch: int
    """The number of the assignment that gave them; 0: there was none yet."""


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """What a member is given."""

    version: int
    epoch: int
    """One more than the greatest of all claims."""
    config: str
    """That of the claim that it was made from. A static member that comes back is given the former assignment, and knows by
    this that its config has changed since."""
    partitions: dict[int, bool]
    """Partition → another live member has held it: wait for its release. False: nobody else has; fence at once."""
    unowned: list[str]
    """Providers of this member that nobody polls: the owner of their partition does not know them."""


def encode(message: MemberClaim | Assignment) -> bytes:
    """As user data of the group protocol."""
    return msgspec.msgpack.encode(message)


def decode_claim(data: bytes) -> MemberClaim:
    """Raises ClaimError."""
    return _decode(data, MemberClaim)


def decode_assignment(data: bytes) -> Assignment:
    """Raises ClaimError."""
    return _decode(data, Assignment)


_Kind = TypeVar("_Kind", MemberClaim, Assignment)


def _decode(data: bytes, kind: type[_Kind]) -> _Kind:
    try:
        message = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as reason:
        raise ClaimError(f"not a {kind.__name__} of this fleet: {reason}") from reason
    if message.version != VERSION:
        raise ClaimError(f"a {kind.__name__} of version {message.version}; this member knows {VERSION}")
    return message
