# ruff: noqa: SLF001 (aiokafka's admin client sends what it has no method for)
# mypy: disallow-untyped-calls=False, disallow-subclassing-any=False
"""The topics in the cluster: made and configured by `init`, looked at by `check`."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidReplicationFactorError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from watcher.journal import WrongJournal
from watcher.journal.kafka.broker_errors import AUTHORIZATION_ERRORS
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.topic_specs import TopicSpec, TopicState, require_topics
from watcher.model.log import Unavailable

BUSY_RETRIES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each try, where a refusal may pass by itself; the last one is meant."""
SET_ON_TOPIC = 1
"""The source of a config that was set on the topic itself."""


class TopicAdmin:
    """The topics of `specs`, through a started client."""

    def __init__(self, client: AIOKafkaAdminClient, specs: Sequence[TopicSpec], cluster: Cluster) -> None:
        self._client = client
        self._specs = specs
        self._cluster = cluster
        self._seconds = cluster.deadlines.admin

    async def create(self) -> list[str]:
        """Make the topics that are missing; their names. Raises Unavailable or WrongJournal."""
        created: list[str] = []
        with self._cluster.within(self._seconds, "creating topics"):
            for pause in BUSY_RETRIES:
                await anyio.sleep(pause)
                refusal = await self._create(created)
                if refusal is None:
                    return created
        raise WrongJournal(refusal)

    async def _create(self, created: list[str]) -> str | None:
        """None when all stand now; what was made is added to `created`. A refusal when the controller is busy, or a
        broker was lost between the two questions: then the next try may do."""
        brokers = len((await self._client.describe_cluster())["brokers"])
        replicas = min(3, brokers)
        new = [
            NewTopic(spec.name, spec.partitions, replicas, topic_configs=spec.initial_configs(replicas))
            for spec in self._specs
        ]
        answer: Any = await self._client.create_topics(new)
        refusal = None
        for name, code, *reason in answer.topic_errors:  # create_topics does not raise
            error = for_code(code)
            if error is NoError:
                created.append(name)
            elif error in AUTHORIZATION_ERRORS:
                raise error(name)
            elif error is not TopicAlreadyExistsError:
                refusal = f"topic {name} cannot be created: {error.__name__} {reason[0] if reason else ''}".rstrip()
                if not error.retriable and error is not InvalidReplicationFactorError:
                    raise WrongJournal(refusal)
        return refusal

    async def existing(self) -> dict[str, TopicState]:
        """Those topics that exist, without their configs."""
        with self._cluster.within(self._seconds, "looking at the topics"):
            found = await self._cluster.describe_topics(self._client._client, [spec.name for spec in self._specs])
        unknown = UnknownTopicOrPartitionError.errno
        return {topic["topic"]: _state(topic) for topic in found if topic["error_code"] != unknown}

    async def ready(self) -> dict[str, TopicState]:
        """The topics that exist, configs included, once all of those have leaders. Raises Unavailable."""
        with anyio.move_on_after(self._seconds):
            while True:
                found = await self.existing()
                if all(topic.partitions for topic in found.values()):
                    configs = await self._configs(
                        {spec.name: spec.config_names for spec in self._specs if spec.name in found}
                    )
                    return {
                        name: topic._replace(configs={name: value for name, value, *_ in configs[name]})
                        for name, topic in found.items()
                    }
                await anyio.sleep(0.05)
        raise Unavailable("a topic has partitions without a leader: is a broker down?")

    async def await_topics(self) -> None:
        """Until topics just created are known to the broker we ask. Raises Unavailable."""
        with self._cluster.within(self._seconds, "waiting for the new topics"):
            while len(await self.ready()) < len(self._specs):  # noqa: ASYNC110 (no event tells it)
                await anyio.sleep(0.05)

    async def align(self) -> list[str]:
        """Set what differs and may be set; what was, as `topic name=value`. Raises WrongJournal, Unavailable."""
        found, done = await self.ready(), []
        require_topics(self._specs, found)
        for spec in self._specs:
            corrections = spec.corrections(found[spec.name])
            if corrections:
                await self._set_configs(spec.name, corrections)
                done += [f"{spec.name} {name}={value}" for name, value in corrections.items()]
        if done:
            await self._await_configs()
        return done

    async def _configs(self, names: dict[str, list[str] | None]) -> dict[str, list[Any]]:
        """Topic → its entries (name, value, read only, source, …) of those names; of all when None."""
        resources = [
            ConfigResource(ConfigResourceType.TOPIC, topic, wanted and dict.fromkeys(wanted, ""))
            for topic, wanted in names.items()
        ]
        with self._cluster.within(self._seconds, "looking at the topics"):
            answers: Any = await self._client.describe_configs(resources)
            found = {}
            for code, _, _, topic, entries in (one for answer in answers for one in answer.resources):
                if for_code(code) is not NoError:  # describe_configs does not raise
                    raise for_code(code)(topic)
                found[topic] = entries
        return found

    async def _set_configs(self, topic: str, corrections: Mapping[str, str]) -> None:
        """The request replaces everything that was set on the topic: what else is set there is set again."""
        entries = (await self._configs({topic: None}))[topic]
        kept = {name: value for name, value, _, source, *_ in entries if source == SET_ON_TOPIC}
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {**kept, **corrections})
        with self._cluster.within(self._seconds, f"configuring topic {topic}"):
            answer: Any
            (answer,) = await self._client.alter_configs([resource])
            ((code, reason, *_),) = answer.resources
            if for_code(code) in AUTHORIZATION_ERRORS:  # alter_configs does not raise
                raise for_code(code)(topic)
            if for_code(code) is not NoError:
                raise WrongJournal(
                    f"topic {topic} cannot be configured: {for_code(code).__name__} {reason or ''}".rstrip()
                )

    async def _await_configs(self) -> None:
        """Until the broker we ask knows what the controller has taken. Raises Unavailable."""
        with self._cluster.within(self._seconds, "waiting for the topics' new configs"):
            while True:
                found = await self.ready()
                if not any(spec.corrections(found[spec.name]) for spec in self._specs):
                    return
                await anyio.sleep(0.05)


def _state(topic: dict[str, Any]) -> TopicState:
    partitions = topic["partitions"]
    if topic["error_code"] or not partitions or any(partition["leader"] < 0 for partition in partitions):
        return TopicState(0, 0)
    return TopicState(len(partitions), min(len(partition["replicas"]) for partition in partitions))
