"""What the topics must be, and what is different where they are not. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from watcher.journal import NotMade, WrongJournal
from watcher.journal.kafka.records import TopicNames, hints_topic

MESSAGE_BYTES = 1_000_000
"""What a broker must take at once: beyond our batches, and not more than any version of Kafka does by default."""
HINTS = {
    "retention.ms": "300000",
    "retention.bytes": "67108864",
    "segment.bytes": "16777216",
    "message.timestamp.type": "LogAppendTime",
}
"""Anybody may write hints: a flood must not fill a disk, and a clock that runs ahead must not keep them for ever."""
HINT_BYTES = {"max.message.bytes": "1048588"}
"""What Kafka allows by default: whoever reads hints keeps a batch in memory."""
COMPACTION = {
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": "21600000",
}


class TopicState(NamedTuple):
    """One topic as it is."""

    partitions: int
    """0 while one of them has no leader."""
    replicas: int
    """The fewest that a partition has."""
    configs: Mapping[str, str] = {}


class TopicSpec(NamedTuple):
    """One topic as it must be. Only `init` changes configs, and never the policy: what it deleted is gone."""

    name: str
    partitions: int
    policy: str
    exact: Mapping[str, str]
    """Configs with the one value that each may have."""
    ceilings: Mapping[str, str]
    """Configs with the greatest value that each may have."""
    single: bool = False
    """Has one partition, whatever the config says."""

    def initial_configs(self, replicas: int) -> dict[str, str]:
        """The configs that a new topic is given."""
        return {
            "cleanup.policy": self.policy,
            **self.exact,
            **self.ceilings,
            "min.insync.replicas": str(min_in_sync(replicas)),
        }

    @property
    def config_names(self) -> list[str]:
        """The configs that `require` and `corrections` look at."""
        return [*self.initial_configs(1), "max.message.bytes"]

    def require(self, found: TopicState | None) -> None:
        """Raises WrongJournal for what `init` must not change."""
        if found is None:
            raise WrongJournal(f"topic {self.name} is missing: run `watcher init`")
        if found.partitions != self.partitions:
            raise WrongJournal(f"topic {self.name} has {found.partitions} partitions, {self._wrong_count(found)}")
        policy = found.configs.get("cleanup.policy")
        if policy != self.policy:
            raise WrongJournal(
                f"topic {self.name} has cleanup.policy={policy}, it must be exactly "
                f"{self.policy}: set it with kafka-configs.sh"
            )

    def _wrong_count(self, found: TopicState) -> str:
        if self.single:
            return "it must have one: delete it, and run `watcher init`"
        return f"the config says {self.partitions}: the count is fixed for life, set [kafka] partitions = {found.partitions}"

    def corrections(self, found: TopicState) -> dict[str, str]:
        """The configs that `init` sets. A stricter cleaning than planned may stand; a weaker one may not."""
        return dict(self._corrections(found))

    def _corrections(self, found: TopicState) -> Iterator[tuple[str, str]]:
        for name, value in self.exact.items():
            if found.configs.get(name) != value:
                yield name, value
        for name, value in self.ceilings.items():
            if float(found.configs[name]) > float(value):
                yield name, value
        if not min_in_sync(found.replicas) <= int(found.configs["min.insync.replicas"]) <= found.replicas:
            yield "min.insync.replicas", str(min_in_sync(found.replicas))
        if int(found.configs["max.message.bytes"]) < MESSAGE_BYTES:
            yield "max.message.bytes", str(MESSAGE_BYTES)


def min_in_sync(replicas: int) -> int:
    """How many copies a commit waits for at least."""
    return 2 if replicas >= 3 else 1


def topic_specs(prefix: str, partitions: int, retention: float, checkpoints: float = inf) -> list[TopicSpec]:
    """`retention` bounds the events, and `checkpoints` what is kept of the end of each day, in seconds."""
    topics = TopicNames.under(prefix)
    kept = {"retention.ms": str(int(retention * 1000))}
    closings = {"retention.ms": "-1" if checkpoints == inf else str(int(checkpoints * 1000))}
    return [
        TopicSpec(topics.changed, partitions, "delete", kept, {}),
        TopicSpec(topics.crossed, partitions, "delete", kept, {}),
        TopicSpec(topics.closing, partitions, "delete", closings, {}),
        TopicSpec(topics.state, partitions, "compact", {}, COMPACTION),
        TopicSpec(topics.internal, partitions, "compact", {}, COMPACTION),
        TopicSpec(topics.heartbeat, 1, "compact", {}, COMPACTION, single=True),
        TopicSpec(hints_topic(prefix), 1, "delete", HINTS, HINT_BYTES, single=True),
    ]


def require_topics(wanted: Sequence[TopicSpec], found: Mapping[str, TopicState]) -> None:
    """Raises WrongJournal for the first topic that is missing, or that `init` cannot put right; NotMade where there is none."""
    if not any(spec.name in found for spec in wanted):
        raise NotMade(f"topic {wanted[0].name} is missing: run `watcher init`")
    for spec in wanted:
        spec.require(found.get(spec.name))


def require_configs(wanted: Sequence[TopicSpec], found: Mapping[str, TopicState]) -> None:
    """Raises WrongJournal for the first topic that `init` would configure otherwise."""
    for spec in wanted:
        for name, value in spec.corrections(found[spec.name]).items():
            raise WrongJournal(
                f"topic {spec.name} has {name}={found[spec.name].configs.get(name)}, the config asks for {value}: "
                "run `watcher init`, which sets it"
            )
