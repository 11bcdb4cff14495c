"""`watcher fleet`: who is in the group, who polls what, how fresh that is, and what nobody polls."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from watcher.app.daemon import journal_of, wall
from watcher.app.exit_status import Exit
from watcher.app.fleet import fleet_of
from watcher.app.settings import Settings
from watcher.journal.kafka import KafkaJournal
from watcher.journal.kafka.group_admin import SETTLED, GroupDescription, GroupMember
from watcher.journal.kafka.group_assignor import ASSIGNOR
from watcher.model.events import ProviderHealth
from watcher.model.partitions import partition_of
from watcher.model.times import parse_rfc3339
from watcher.redaction import safe_text
from watcher.redaction.safe_text import print_line


class MemberStatus(msgspec.Struct, frozen=True):
    member: str
    """Its name; of a dynamic one its instance."""
    member_id: str
    host: str
    partitions: list[int]
    providers: list[str]
    """What it polls."""
    config: str | None
    """Hash of its provider tables; None in the midst of a join."""


class PolledProvider(msgspec.Struct, frozen=True):
    provider: str
    partition: int
    owner: str | None
    """None: nobody polls it."""
    since: str | None
    """The first heartbeat of this owner that is kept, RFC 3339."""
    heartbeat_seconds: float | None
    """Age of its last heartbeat."""
    last_success: str | None
    stalest_seconds: float | None
    paused_until: str | None
    budget_used: float | None


class FleetStatus(msgspec.Struct, frozen=True):
    group: str
    state: str
    """In Kafka's words: Stable; Empty or Dead without members; else in the midst of a join."""
    members: list[MemberStatus]
    providers: list[PolledProvider]
    """All that some member or our own config knows."""
    unowned: list[str]


def fleet_status(
    group: str,
    found: GroupDescription,
    heartbeats: Sequence[ProviderHealth],
    partitions: int,
    now: int,
    *,
    configured: Iterable[str] = (),
) -> FleetStatus:
    """`heartbeats`: in the order in which they were sent. `now`: wall-clock microseconds. `configured`: the providers of whoever
    asks. Raises Exit for a group that is no fleet."""
    _require_fleet(group, found)
    owners = {provider: member for member in found.members for provider in _polled(member, partitions)}
    known = sorted(_known(found, configured))
    beats = _last_owners(heartbeats)
    providers = [
        _provider(name, partition_of(name, partitions), owners.get(name), beats.get(name, []), now) for name in known
    ]
    members = sorted((_member(member, partitions) for member in found.members), key=lambda member: member.member)
    return FleetStatus(group, found.state, members, providers, [name for name in known if name not in owners])


def _require_fleet(group: str, found: GroupDescription) -> None:
    if found.protocol not in ("", ASSIGNOR):
        raise Exit(
            2,
            f"group {group} is no fleet: its members use protocol {found.protocol_type!r} with assignor {found.protocol!r}",
        )


def _known(found: GroupDescription, configured: Iterable[str]) -> set[str]:
    """What some member knows. What only we know nobody polls; in the midst of a join nobody can tell."""
    of_members = {name for member in found.members if member.claim is not None for name in member.claim.providers}
    return of_members | set(configured) if found.state in SETTLED else of_members


def _polled(member: GroupMember, partitions: int) -> list[str]:
    """The providers that it knows in the partitions that it was given."""
    if member.claim is None or member.assignment is None:
        return []
    given = member.assignment.partitions
    return sorted(name for name in member.claim.providers if partition_of(name, partitions) in given)


def _member(member: GroupMember, partitions: int) -> MemberStatus:
    return MemberStatus(
        member.instance,
        member.member_id,
        member.host,
        sorted(member.assignment.partitions) if member.assignment else [],
        _polled(member, partitions),
        member.claim.config if member.claim else None,
    )


def _last_owners(heartbeats: Sequence[ProviderHealth]) -> Mapping[str, list[ProviderHealth]]:
    """Provider → the heartbeats of whoever sent the last one, as far back as nobody else did."""
    beats: dict[str, list[ProviderHealth]] = {}
    for beat in heartbeats:
        before = beats.get(beat.provider, [])
        beats[beat.provider] = [*before[:1], beat] if before and before[0].instance == beat.instance else [beat]
    return beats


def _provider(
    name: str, partition: int, owner: GroupMember | None, beats: Sequence[ProviderHealth], now: int
) -> PolledProvider:
    """An owner that has sent no heartbeat yet has no figures: those of the one before would be taken for its own."""
    if owner is None or not beats or beats[-1].instance != owner.instance:
        instance = None if owner is None else owner.instance
        return PolledProvider(name, partition, instance, None, None, None, None, None, None)
    last = beats[-1]
    age = max(0.0, (now - parse_rfc3339(last.time)) / 1e6)
    return PolledProvider(
        name,
        partition,
        owner.instance,
        beats[0].time,
        age,
        last.last_success,
        last.stalest_seconds,
        last.paused_until,
        last.budget_used,
    )


def lines(status: FleetStatus) -> Iterator[str]:
    """For people."""
    yield f"group {status.group}: {status.state}, {len(status.members)} members"
    yield ""
    yield from _table(
        ("member", "host", "partitions", "config"),
        [
            (member.member, member.host, " ".join(map(str, member.partitions)) or "-", member.config or "joining")
            for member in status.members
        ],
    )
    yield ""
    yield from _table(
        ("provider", "partition", "owner", "since", "heartbeat", "stalest", "budget"),
        [
            (
                one.provider,
                str(one.partition),
                one.owner or "NOBODY",
                one.since or "-",
                _seconds(one.heartbeat_seconds),
                _seconds(one.stalest_seconds),
                "-" if one.budget_used is None else f"{one.budget_used:.0%}",
            )
            for one in status.providers
        ],
    )
    if status.unowned:
        yield ""
        why = "the owner of the partition has another config" if status.members else "no member runs"
        yield f"nobody polls {', '.join(status.unowned)}: {why}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _journal(config: Settings, environment: Mapping[str, str]) -> KafkaJournal:
    journal = fleet_of(journal_of(config, environment))
    if journal is None:
        raise Exit(2, "this config makes no fleet: set [kafka] group, with a journal on Kafka")
    return journal


async def show(config: Settings, environment: Mapping[str, str], json: bool) -> None:  # noqa: FBT001 (the command's own flag)
    """`watcher fleet`. Raises Exit, Unavailable, Forbidden."""
    journal = _journal(config, environment)
    try:
        status = fleet_status(
            journal.group,
            await journal.fleet(),
            await journal.heartbeats(),
            journal.partitions,
            wall(),
            configured=config.providers,
        )
    finally:
        await journal.close()
    if json:
        print(safe_text.json_document(status))  # noqa: T201 (each of its lines is fit)
        return
    for line in lines(status):
        print_line(line)


async def leave(config: Settings, environment: Mapping[str, str], member: str) -> None:
    """`watcher fleet leave MEMBER`: a static member that will not come back. Raises Exit, Unavailable, Forbidden."""
    journal = _journal(config, environment)
    try:
        removed = await journal.remove_member(member)
    finally:
        await journal.close()
    if not removed:
        raise Exit(2, f"no member {member!r} in group {journal.group}: `watcher fleet` shows them")
    print_line(f"{member} has left group {journal.group}: the others have its partitions at once")
