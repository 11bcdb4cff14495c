# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""What stands in the cluster: made by `init`, checked before `run`."""

import asyncio
import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidReplicationFactorError, NoError, TopicAlreadyExistsError, for_code

from watcher.journal import WrongJournal
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.deadlines import within
from watcher.journal.kafka.offsets import OffsetProbe, assign_at, poll
from watcher.journal.kafka.producer import TransactionalProducer
from watcher.journal.kafka.records import MARKER, LogMarker, PartitionContents, TopicNames, control_record
from watcher.journal.kafka.topic_specs import TopicSpec, TopicState, require_topics
from watcher.model.log import Unavailable

ADMIN = 15.0
"""Seconds for one step of administration."""
BUSY = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each try, where a refusal may pass by itself; the last one is meant."""
MARKED = 60.0
"""Seconds for reading a whole partition in search of a marker that is not where it should be."""
BEGUN = 5.0
"""Seconds until the end of the marker's transaction must stand in the events: the coordinator writes it on its own."""
SET_ON_TOPIC = 1
"""The source of a config that was set on the topic itself."""


async def create(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec]) -> list[str]:
    """Make the topics that are missing; their names. Raises Unavailable or WrongJournal."""
    created: list[str] = []
    with within(ADMIN, "creating topics"):
        for pause in BUSY:
            await anyio.sleep(pause)
            refusal = await _create(admin, wanted, created)
            if refusal is None:
                return created
    raise WrongJournal(refusal)


async def _create(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec], created: list[str]) -> str | None:
    """None when all stand now; what was made is added to `created`. A refusal when the controller is busy, or a broker
    was lost between the two questions: then the next try may do."""
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = min(3, brokers)
    new = [
        NewTopic(spec.name, spec.partitions, replicas, topic_configs=spec.initial_configs(replicas)) for spec in wanted
    ]
    answer: Any = await admin.create_topics(new)
    refusal = None
    for name, code, *said in answer.topic_errors:  # create_topics does not raise
        error = for_code(code)
        if error is NoError:
            created.append(name)
        elif error is not TopicAlreadyExistsError:
            refusal = f"topic {name} cannot be created: {error.__name__} {said[0] if said else ''}".rstrip()
            if not error.retriable and error is not InvalidReplicationFactorError:
                raise WrongJournal(refusal)
    return refusal


async def look(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec]) -> dict[str, TopicState]:
    """Those topics that exist, without their configs."""
    with within(ADMIN, "looking at the topics"):
        found = await admin.describe_topics()  # of all: asking for one by name may create it
    names = {spec.name for spec in wanted}
    return {topic["topic"]: _found(topic) for topic in found if topic["topic"] in names}


def _found(topic: dict[str, Any]) -> TopicState:
    partitions = topic["partitions"]
    if topic["error_code"] or not partitions or any(partition["leader"] < 0 for partition in partitions):
        return TopicState(0, 0)
    return TopicState(len(partitions), min(len(partition["replicas"]) for partition in partitions))


async def _configs(admin: AIOKafkaAdminClient, names: dict[str, list[str] | None]) -> dict[str, list[Any]]:
    """Topic → its entries (name, value, read only, source, …) of those names; of all when None."""
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, topic, wanted and dict.fromkeys(wanted, ""))
        for topic, wanted in names.items()
    ]
    with within(ADMIN, "looking at the topics"):
        answers: Any = await admin.describe_configs(resources)
    return {topic: entries for answer in answers for _, _, _, topic, entries in answer.resources}


async def appear(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec]) -> None:
    """Until topics just created are known to the broker we ask. Raises Unavailable."""
    with within(ADMIN, "waiting for the new topics"):
        while len(await ready(admin, wanted)) < len(wanted):  # noqa: ASYNC110 (no event tells it)
            await anyio.sleep(0.05)


async def ready(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec]) -> dict[str, TopicState]:
    """The topics that exist, configs included, once all of those have leaders. Raises Unavailable."""
    with anyio.move_on_after(ADMIN):
        while True:
            found = await look(admin, wanted)
            if all(topic.partitions for topic in found.values()):
                configs = await _configs(admin, {spec.name: spec.config_names for spec in wanted if spec.name in found})
                return {
                    name: topic._replace(configs={name: value for name, value, *_ in configs[name]})
                    for name, topic in found.items()
                }
            await anyio.sleep(0.05)
    raise Unavailable("a topic has partitions without a leader: is a broker down?")


async def align(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec]) -> list[str]:
    """Set what differs and may be set; what was, as `topic name=value`. Raises WrongJournal, Unavailable."""
    found, done = await ready(admin, wanted), []
    require_topics(wanted, found)
    for spec in wanted:
        corrections = spec.corrections(found[spec.name])
        if corrections:
            await _set(admin, spec.name, corrections)
            done += [f"{spec.name} {name}={value}" for name, value in corrections.items()]
    if done:
        await _settle(admin, wanted)
    return done


async def _set(admin: AIOKafkaAdminClient, topic: str, corrections: Mapping[str, str]) -> None:
    """The request replaces everything that was set on the topic: what else is set there is set again."""
    entries = (await _configs(admin, {topic: None}))[topic]
    kept = {name: value for name, value, _, source, *_ in entries if source == SET_ON_TOPIC}
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {**kept, **corrections})
    with within(ADMIN, f"configuring topic {topic}"):
        answer: Any
        (answer,) = await admin.alter_configs([resource])
    for code, said, *_ in answer.resources:  # alter_configs does not raise
        if for_code(code) is not NoError:
            raise WrongJournal(f"topic {topic} cannot be configured: {for_code(code).__name__} {said or ''}".rstrip())


async def _settle(admin: AIOKafkaAdminClient, wanted: Sequence[TopicSpec]) -> None:
    """Until the broker we ask says what the controller was told. Raises Unavailable."""
    with within(ADMIN, "waiting for the topics' new configs"):
        while True:
            found = await ready(admin, wanted)
            if not any(spec.corrections(found[spec.name]) for spec in wanted):
                return
            await anyio.sleep(0.05)


async def _marked(cluster: Cluster, offsets: OffsetProbe, topics: TopicNames) -> bool:
    """Whether a marker stands there. The first one is the oldest record of its partition, so the first look finds it."""
    contents = PartitionContents()
    partition = TopicPartition(topics.state, 0)
    written = await offsets.high_watermarks(
        [partition]
    )  # a marker just committed is written but may not be visible yet
    async with cluster.reading(topics) as consumer:
        assign_at(consumer, {partition: 0})
        with within(MARKED, "looking for the marker"):
            while contents.marker is None and await consumer.position(partition) < written[partition]:
                for record in itertools.chain(*(await poll(consumer)).values()):
                    contents.add(record.key, record.value, record.headers)
    return contents.marker is not None


async def holds_log(cluster: Cluster, offsets: OffsetProbe, topics: TopicNames) -> bool:
    """Whether `init` has made a log here. Raises WrongJournal when the events were re-created under it.

    The marker's transaction has part in the events too, where it ends in a control record that no consumer sees:
    from then on their partition 0 has never been empty.
    """
    if not await _marked(cluster, offsets, topics):
        return False
    first = TopicPartition(topics.changed, 0)
    with anyio.move_on_after(BEGUN):
        while (await offsets.high_watermarks([first]))[first] == 0:  # noqa: ASYNC110 (no event tells it)
            await anyio.sleep(0.05)
        return True
    raise recreated(topics)


def recreated(topics: TopicNames) -> WrongJournal:
    return WrongJournal(
        f"topic {topics.changed} is new but {topics.state} is not: it was re-created; "
        "delete both and run `watcher init`, which starts a new log"
    )


async def refuse_events(cluster: Cluster, offsets: OffsetProbe, topics: TopicNames, partitions: int) -> None:
    """Raises WrongJournal when events are left of a log whose state is gone: versions would begin at 1 beside them."""
    changed = [TopicPartition(topics.changed, partition) for partition in range(partitions)]
    begins, ends = await offsets.log_starts(changed), await offsets.high_watermarks(changed)
    held = [partition for partition in changed if begins[partition] < ends[partition]]  # control records count too
    if not held:
        return
    async with cluster.reading(topics) as consumer:
        assign_at(consumer, {partition: begins[partition] for partition in held})
        with within(MARKED, "looking for events of an older log"):
            while [one for one in held if await consumer.position(one) < ends[one]]:
                if await poll(consumer):
                    raise WrongJournal(
                        f"topic {topics.state} is new but {topics.changed} holds events: the state was re-created; "
                        f"delete {topics.changed} too, its events with it, and run `watcher init`, "
                        "or take another topic_prefix: versions begin at 1 again"
                    )


async def write_marker(
    cluster: Cluster,
    offsets: OffsetProbe,
    topics: TopicNames,
    partitions: int,
    transactional_id: str,
    *,
    new_log: bool,
) -> bool:
    """Write the marker unless it stands there, or anew for a `new_log`; whether it was written. Two at once write one,
    fenced like a writer."""
    producer = await cluster.transactional_producer(transactional_id)
    try:
        held = await holds_log(cluster, offsets, topics)
        if not held:
            await refuse_events(cluster, offsets, topics, partitions)
        if new_log or not held:
            await _mark(producer, topics, partitions)
    except BaseException:  # fenced by another `init`, or in doubt: what it still holds must go with it
        await producer.abandon()
        raise
    await producer.close()
    return new_log or not held


async def _mark(producer: TransactionalProducer, topics: TopicNames, partitions: int) -> None:
    """In every partition, so that whoever opens one finds there which log it belongs to, and one that lost its records
    is no empty one."""
    topic, key, value, headers = control_record(topics.state, MARKER, LogMarker(secrets.token_hex(8)))
    with within(ADMIN, "writing the marker"):
        await producer.begin_transaction()
        producer.join_transaction(TopicPartition(topics.changed, 0))
        sent = [
            await producer.send(topic, value, key, partition=partition, headers=headers)
            for partition in range(partitions)
        ]
        await asyncio.gather(*sent)
        await producer.commit_transaction()
