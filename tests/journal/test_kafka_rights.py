"""Rights: the table of docs/kafka.md is what each part needs, no more and no less, and what is missing is named.

A user is granted exactly what the table says, on a real broker with an authorizer; then each right is taken away in turn.
"""

import contextlib
import re
import time
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.journal.hint_world import HINT
from tests.journal.kafka_world import (
    PARTITIONS,
    administering,
    balance_in,
    denied,
    done,
    hurried,
    opened,
    reading,
    ready,
    until_head,
)
from tests.journal.own_broker import USERS
from watcher.app.daemon import wall
from watcher.fleet.claims import VERSION, MemberClaim
from watcher.journal import Batch, Forbidden
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.records import TopicNames, hints_topic
from watcher.model.events import ProviderHealth
from watcher.model.log import Unavailable
from watcher.testing.journal_samples import crossing

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]

USER, PASSWORD = USERS["PLAIN"]
TABLE = Path(__file__).parents[2] / "docs" / "kafka.md"
SOON = hurried(start=2.0, request=2.0, reach=10.0, commit=4.0, stalled=4.0, denied=0.0, heartbeat=3.0, admin=8.0)
"""What the broker refuses once is believed."""
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional id": ResourceType.TRANSACTIONAL_ID}


INCLUDED = {
    "Read": AclOperation.DESCRIBE,
    "Write": AclOperation.DESCRIBE,
    "AlterConfigs": AclOperation.DESCRIBE_CONFIGS,
}
"""What the broker gives with a right, and would speak of first if that were missing too."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Right(NamedTuple):
    kind: str
    name: str
    pattern: str
    operation: str

    def binding(self, prefix):
        how = ResourcePatternType.PREFIXED if self.pattern == "prefix" else ResourcePatternType.LITERAL
        operation = AclOperation[re.sub(r"(?<!^)(?=[A-Z])", "_", self.operation).upper()]
        where = (KINDS[self.kind], prefix + self.name, how)
        return AclBinding(*where, f"User:{USER}", "*", operation, AclPermissionType.ALLOW)

    @property
    def words(self):
        return f"{self.binding('').operation.name} on {self.kind}"


def rights(role):
    """What the table of the documentation grants to a part."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    (head,) = [number for number, line in enumerate(lines) if "Resource" in line and "init" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[head:]]
    column = cells[0].index(role)
    for row in cells[2:]:
        if (found := re.fullmatch(r"(topic|group|transactional id) `([\w.<>-]+)(\*?)`", row[0])) is None:
            break
        kind, name, star = found.groups()
        for operation in row[column].replace(",", " ").split():
            if operation != "-":
                yield Right(kind, name.replace("<group>", "g"), "prefix" if star else "literal", operation)


@contextlib.contextmanager
def granted(address, prefix, given):
    """Exactly those; and nothing on the cluster."""
    bindings = [one.binding(prefix) for one in given]
    cluster = (ResourceType.BROKER, "kafka-cluster", ResourcePatternType.LITERAL)
    bindings += [
        AclBinding(*cluster, "User:ANONYMOUS", "*", AclOperation.ALL, AclPermissionType.ALLOW)
    ]  # the broker itself
    # whoever has an entry of its own does not fall under "everybody may"
    for kind in KINDS.values():
        where = (kind, prefix, ResourcePatternType.PREFIXED, "User:nobody", "*")
        bindings.append(AclBinding(*where, AclOperation.READ, AclPermissionType.ALLOW))
        where = (kind, prefix, ResourcePatternType.PREFIXED, "User:ANONYMOUS", "*")
        bindings.append(AclBinding(*where, AclOperation.ALL, AclPermissionType.ALLOW))
    with administering(address) as admin:
        done(admin.create_acls(bindings))
        try:
            yield admin
        finally:
            anything = (None, None, AclOperation.ANY, AclPermissionType.ANY)
            whichever = (ResourceType.ANY, None, ResourcePatternType.ANY)
            done(admin.delete_acls([AclBindingFilter(*whichever, *anything)]))


@contextlib.contextmanager
def taken(admin, right, prefix):
    one = right.binding(prefix)
    what = (one.restype, one.name, one.resource_pattern_type, one.principal, one.host, one.operation)
    less = (
        [AclBinding(*what[:-1], INCLUDED[right.operation], one.permission_type)] if right.operation in INCLUDED else []
    )
    if less:
        done(admin.create_acls(less))
    (gone,) = done(admin.delete_acls([AclBindingFilter(*what, one.permission_type)]))
    assert len(gone) == 1
    try:
        yield
    finally:
        done(admin.create_acls([one]))


@contextlib.asynccontextmanager
async def as_user(address, certificate, prefix, deadlines=SOON, **more):
    settings = KafkaSettings(
        topic_prefix=prefix,
        partitions=PARTITIONS,
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password_env="KAFKA_PASSWORD",
        ssl_cafile=str(certificate[1]),
        **more,
    )
    made = KafkaJournal(
        [address],
        settings,
        environ={"KAFKA_PASSWORD": PASSWORD},
        clock=wall,
        deadlines=deadlines,
        group=more.get("group", ""),
    )
    try:
        yield made
    finally:
        await made.close()


async def init(made):
    await made.init()
    await made.init(new_log=True)


async def run(made):
    balance = balance_in(0)
    await made.check()
    async with opened(made, 0) as writer, reading(made) as reader:
        before = (await reader.bounds()).head
        await writer.commit(Batch([balance.row(1)]))
        row = balance.row(2)
        await writer.commit(Batch([row], {"n": b"1"}, [crossing(row)]))
        assert await until_head(reader, before)
        await writer.release()
    await made.heartbeat([health()])
    await received(made)


async def received(made):
    """A receiver that is refused says so at its first look."""
    exchange = made.hint_exchange()
    with anyio.move_on_after(2):
        async for _ in exchange.receive():
            pass
    await exchange.close()


async def sent(made):
    exchange = made.hint_exchange()
    try:
        await exchange.send([HINT])
    finally:
        await exchange.close()


async def fleet(made):
    await run(made)
    membership = made.membership(lambda: MemberClaim(VERSION, "one", {"bank": 1.0}, "", [], 0), time.monotonic)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(membership.run)
        async for _ in membership.notices():
            break
        assert (await made.fleet()).members
        await membership.leave()
    await made.heartbeats()
    await made.remove_member("nobody")
    await sent(made)


async def relay(made):
    await made.check()
    async with reading(made) as reader:
        await reader.notes()
        async with contextlib.aclosing(reader.follow((await reader.bounds()).oldest)) as following:
            async for commit in following:
                if commit.health:
                    break
    await sent(made)


PARTS = {"init": init, "run": run, "fleet": fleet, "relay only": relay}


def health():
    return ProviderHealth(
        provider="bank",
        time="2026-01-01T00:00:00Z",
        instance="x",
        watches=1,
        last_success=None,
        stalest_seconds=None,
        paused_until=None,
        budget_used=0.0,
        state="ok",
        reason=None,
        since=None,
    )


async def settled(attempt, *passing):
    """A broker learns an entry of its list a moment after the controller has it."""
    with anyio.fail_after(60):
        while True:
            try:
                return await attempt()
            except passing:
                await anyio.sleep(0.2)


@pytest.mark.soak
@pytest.mark.parametrize("part", PARTS)
async def test_the_rights_of_the_table_are_enough_and_each_is_needed_and_named(
    own_broker, secure_address, certificate, prefix, part
):
    needed, more = list(rights(part)), {"group": "g"} if part == "fleet" else {}
    assert needed

    async def attempt():
        async with as_user(secure_address, certificate, here, **more) as made:
            await PARTS[part](made)

    for number, right in enumerate([None, *needed]):
        here = f"{prefix}{number}."  # `init` needs most of its rights but once
        await prepared(own_broker.address, here, part, right)
        with granted(own_broker.address, here, needed) as admin:
            if right is None:
                await settled(attempt, Forbidden, Unavailable)
                continue
            with (
                taken(admin, right, here),
                anyio.fail_after(60),
                pytest.raises((Forbidden, BaseExceptionGroup)) as refused,
            ):
                await for_ever(attempt)
            said = told(refused.value)
            assert right.words in said, f"{right}: {said}"


async def prepared(address, prefix, part, right):
    """A log for whoever reads or writes one; for `init` topics that are configured otherwise, unless it is to make them."""
    if part != "init":
        async with ready(address, prefix) as made:
            await made.heartbeat([health()])
    elif right is not None and right.operation != "Create":
        with administering(address) as admin:
            names = TopicNames.under(prefix)
            hints = hints_topic(prefix)
            by_time = dict.fromkeys((names.changed, names.crossed, names.closing), ("delete", PARTITIONS))
            policies = {**by_time, names.heartbeat: ("compact", 1), hints: ("delete", 1)}
            new = [
                NewTopic(name, count, 1, config={"cleanup.policy": policy, "retention.ms": "1000"})
                for name in (*names, hints)
                for policy, count in [policies.get(name, ("compact", PARTITIONS))]
            ]
            done(admin.create_topics(new))


async def for_ever(attempt):
    while True:
        await attempt()


async def named(attempt, operation):
    """Until the broker has learned all of the entries."""
    while True:
        try:
            await attempt()
        except Forbidden as error:
            if f"{operation} on" in str(error):
                raise
        await anyio.sleep(0.1)


def told(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Forbidden), repr(error)
    assert "is the broker up" not in str(error)
    return str(error)


@pytest.mark.parametrize(
    ("topic", "operation", "work"),
    [
        ("changed", "DESCRIBE", "check"),
        ("internal", "DESCRIBE_CONFIGS", "check"),
        ("state", "WRITE", "commit"),
        ("internal", "READ", "open"),
        ("heartbeat", "WRITE", "heartbeat"),
        ("crossed", "WRITE", "crossing"),
        ("crossed", "DESCRIBE", "open"),
    ],
)
async def test_a_right_that_is_taken_away_is_named_and_not_taken_for_a_broker_that_is_down(
    own_broker, prefix, topic, operation, work
):
    name, balance = f"{prefix}balances.{topic}.v1", balance_in(0)
    async with ready(own_broker.address, prefix, deadlines=SOON) as made, opened(made, 0) as writer:

        async def commit():
            await writer.open()
            await writer.commit(Batch([balance.row(1)]))

        async def crossed():
            await writer.open()
            await writer.commit(Batch([], {"alert:1": b"1"}, [crossing(balance.row(1))]))

        attempts = {
            "check": made.check,
            "crossing": crossed,
            "commit": commit,
            "open": writer.open,
            "heartbeat": lambda: made.heartbeat([health()]),
        }
        everything = ("User:ANONYMOUS", "*", AclOperation.ALL, AclPermissionType.ALLOW)
        with (
            denied(own_broker.address, ResourceType.TOPIC, name, AclOperation[operation]),
            administering(own_broker.address) as admin,
            anyio.fail_after(40),
        ):
            # whatever has an entry is open to nobody else
            done(admin.create_acls([AclBinding(ResourceType.TOPIC, name, ResourcePatternType.LITERAL, *everything)]))
            with pytest.raises(Forbidden, match=f"{operation} on topic {name}") as refused:
                await named(attempts[work], operation)
        assert "is the broker up" not in str(refused.value)


async def test_a_right_that_is_missing_for_a_moment_ends_no_reader(own_broker, prefix):
    balance, changed = balance_in(0), f"{prefix}balances.changed.v1"
    async with ready(own_broker.address, prefix) as made, opened(made, 0) as writer, reading(made) as reader:
        for amount in range(2):
            await writer.commit(Batch([balance.row(amount)]))
        before = (await reader.bounds()).head
        with (
            denied(own_broker.address, ResourceType.TOPIC, changed, AclOperation.READ, AclOperation.DESCRIBE),
            anyio.fail_after(60),
            pytest.raises(Unavailable, match="forbids"),
        ):
            await looked_at_for_ever(reader)
        with anyio.fail_after(60):
            while True:
                with contextlib.suppress(Unavailable):
                    assert (await reader.bounds()).head == before
                    break
                await anyio.sleep(0.1)


async def looked_at_for_ever(reader):
    while True:
        await reader.bounds()
