"""Which log it is, and which of two instances stays. Pure: no clients, no clock.

Every instance has one claim, (generation, id), shared by all of its partitions, which only ever grows; it is written
to each partition that the instance opens. An instance ends when it meets a greater claim in a partition that it had
opened. Two instances cannot both end: each would have met a claim of the other that was greater than its own of that
moment, and claims never shrink, so each of the two would be greater than the other.

Members of a fleet (claims of one group) take partitions from one another as they are assigned, and nobody ends: who
meets the claim of another member in a partition that it had opened has lost that partition alone. It must look before it
opens anew. A member that had been cut off would otherwise fence the rightful owner, which would open anew and fence it
in turn, for ever (seen). An instance without a group and a fleet cannot both go on: there the greater claim stays too,
and a claim that was written since our start counts although we had not opened the partition.
"""

import msgspec

from watcher.journal import Fenced, Lost, WrongJournal
from watcher.journal.kafka.internal_records import PARTITION_BY, LogMarker, OwnerRecord
from watcher.journal.kafka.records import TopicNames


class LogIdentity:
    """The log that this instance works on: the first one that it finds. Each partition's marker names the log of that
    partition."""

    def __init__(self, topics: TopicNames) -> None:
        self._topics = topics
        self._epoch: str | None = None

    def verify(self, partition: int, marker: LogMarker | None) -> str:
        """The last marker of a partition; gives the log's epoch. Raises WrongJournal without one, and when it is
        that of another log."""
        if marker is None:
            raise missing_marker(self._topics, partition)
        require_partition_rule(self._topics, marker)
        if self._epoch is None:
            self._epoch = marker.epoch
        if self._epoch != marker.epoch:
            raise WrongJournal(
                f"partition {partition} of topic {self._topics.internal} belongs to another log ({marker.epoch}) than the "
                f"one that this process began with ({self._epoch}): the topics were re-created, or "
                "`watcher init --new-log` was run; start again"
            )
        return self._epoch


def require_partition_rule(topics: TopicNames, marker: LogMarker) -> None:
    """Raises WrongJournal for a log in which a key stands in another partition than this version would look for it."""
    if marker.partition_by != PARTITION_BY:
        raise WrongJournal(
            f"topic {topics.state} is partitioned by {marker.partition_by}, and this version partitions by {PARTITION_BY}: "
            f"delete {_all(topics)}, or take another topic_prefix, and run `watcher init`; "
            "versions begin at 1 again"
        )


def missing_marker(topics: TopicNames, partition: int) -> WrongJournal:
    if partition == 0:
        return WrongJournal(
            f"topic {topics.internal} has no marker: it is new or was re-created; "
            "run `watcher init` to start a new log on it"
        )
    return WrongJournal(
        f"partition {partition} of topic {topics.internal} has no marker: it lost its records; "
        "run `watcher init --new-log` to go on with what is left, as a new log"
    )


def unmarked_state(topics: TopicNames) -> WrongJournal:
    """Balances, or what a version before kept beside them, and no marker that says which log it is."""
    return WrongJournal(
        f"topic {topics.state} holds records, and {topics.internal} names no log: a version before made it, or "
        f"{topics.internal} was re-created; run `watcher init --new-log`, which goes on with the balances, as a new log"
    )


def events_lost(topics: TopicNames) -> WrongJournal:
    return WrongJournal(
        f"topic {topics.changed} is new but {topics.state} is not: it was re-created; "
        f"delete {_all(topics)} and run `watcher init`, which starts a new log"
    )


def orphan_events(topics: TopicNames, topic: str) -> WrongJournal:
    """`topic` holds events, and no balance is left of their log."""
    return WrongJournal(
        f"topic {topics.state} holds no balance but {topic} holds events: the state was "
        f"re-created; delete {topic} too, its events with it, and run `watcher init`, "
        "or take another topic_prefix: versions begin at 1 again"
    )


def records_lost(topics: TopicNames, topic: str, partition: int) -> WrongJournal:
    return WrongJournal(
        f"partition {partition} of topic {topic} lost its records, or the topic was re-created: versions would begin at 1 "
        f"again; delete {_all(topics)} and run `watcher init`, or `watcher init --new-log` to go on with what is left, as a new log"
    )


def crossings_lost(topics: TopicNames, partition: int) -> WrongJournal:
    """Nothing follows from them, so the log may go on; but cursors into them mean nothing any more."""
    return WrongJournal(
        f"partition {partition} of topic {topics.crossed} lost its records, or the topic was re-created: cursors would miss "
        "crossings; run `watcher init --new-log` to go on with what is left, as a new log"
    )


def _all(topics: TopicNames) -> str:
    return f"{topics.changed}, {topics.crossed}, {topics.state} and {topics.internal}"


class OwnerClaim:
    """What this instance writes into each partition that it opens. `group`: of its fleet; empty: it has none."""

    def __init__(self, instance: str, group: str = "") -> None:
        self.record = OwnerRecord(0, instance, group)

    def opened(self, state_end: int, crossed_end: int) -> OwnerRecord:
        """What it writes into a partition that it opens."""
        return msgspec.structs.replace(self.record, state_end=state_end, crossed_end=crossed_end)

    def released(self, state_end: int, crossed_end: int, *, in_doubt: float) -> OwnerRecord:
        """What it writes into a partition that it lets go in order. `in_doubt`: seconds for which another may ask yet."""
        return msgspec.structs.replace(self.opened(state_end, crossed_end), released=True, in_doubt=in_doubt)

    def settles(self, found: OwnerRecord | None, *, opened: bool) -> bool:
        """Whether nothing is in doubt of the owner that stands in a partition: there is none, it released it, or it is the
        writer that had `opened` it. An earlier writer of ours, whose pollers are gone, is as doubtful as any other."""
        settled = found is None or found.doubt == 0
        return settled or (opened and found is not None and found.instance == self.record.instance)

    def resolve(self, found: OwnerRecord | None, *, opened: bool, since_start: bool = False) -> None:
        """Another claim stands in a partition. Raises Fenced when we had `opened` it and the other is greater; Lost when
        we had and it is another member's of our group. `since_start`: it was written after we had started.

        A partition that we open for the first time is taken over: our claim grows beyond the one that stands there.
        """
        if found is None or found.instance == self.record.instance:
            return
        same_fleet = found.group == self.record.group != ""
        other_kind = found.group != self.record.group
        if opened and same_fleet:
            raise Lost(f"another member of the fleet ({found.instance}) has claimed this partition since")
        if (opened or (other_kind and since_start)) and found > self.record:
            raise Fenced(f"{_words(found)} writes this journal now; this one ends")
        if not opened:
            generation = max(self.record.generation, found.generation + 1)
            self.record = msgspec.structs.replace(self.record, generation=generation)


def _words(found: OwnerRecord) -> str:
    kind = f"a member of the fleet {found.group!r}" if found.group else "another instance"
    return f"{kind} ({found.instance})"
