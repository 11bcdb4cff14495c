"""What `init` makes and what is refused, on a real broker."""

import contextlib
import subprocess
import sys

import anyio
import msgspec
import pytest
from aiokafka import TopicPartition
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests import kafka_broker
from tests.journal.kafka_world import (
    PARTITIONS,
    administering,
    balance_in,
    delete,
    done,
    hurried,
    hurrying,
    journal,
    opened,
    reading,
    ready,
    seen,
    until_head,
)
from watcher.journal import Batch, Rejected, WrongJournal
from watcher.journal.kafka import log_marker
from watcher.journal.kafka.log_marker import LogMarkers
from watcher.journal.kafka.records import TopicNames
from watcher.journal.kafka.topic_admin import TopicAdmin
from watcher.model.keys import Filter
from watcher.model.log import Expired, Unavailable
from watcher.testing.journal_samples import snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestTopics:
    async def test_init_makes_the_topics_and_a_marker_and_is_safe_to_repeat(self, kafka, prefix):
        made = journal(kafka.address, prefix, retention=3600.0)
        assert (await made.init()).startswith("created")
        async with reading(made) as reader:
            epoch = (await reader.bounds()).head.epoch
        assert (await made.init()).startswith("nothing to do")
        await made.check()
        async with reading(made) as reader:
            assert (await reader.bounds()).head.epoch == epoch
        await made.close()
        topics = ("changed", "crossed", "closing", "state", "internal", "heartbeat")
        names = [f"{prefix}balances.{name}.v1" for name in topics]
        with administering(kafka.address) as admin:
            configs = done(admin.describe_configs([ConfigResource("TOPIC", name) for name in names]))
        changed_, crossed, closing, *compacted = (
            {entry.name: entry.value for entry in topic.values()} for topic in configs
        )
        for topic, kept in ((changed_, "3600000"), (crossed, "3600000"), (closing, "-1")):
            assert (topic["cleanup.policy"], topic["retention.ms"]) == ("delete", kept)
        for topic in compacted:
            assert topic["cleanup.policy"] == "compact"
            assert topic["segment.ms"] == "3600000"
            assert topic["min.cleanable.dirty.ratio"] == "0.1"
            assert topic["max.compaction.lag.ms"] == "21600000"
        assert changed_["min.insync.replicas"] == "1"

    async def test_two_inits_at_once_agree_on_one_log(self, kafka, prefix):
        journals = [journal(kafka.address, prefix) for _ in range(2)]
        async with anyio.create_task_group() as tasks:
            for made in journals:
                tasks.start_soon(init_until_it_works, made)
        markers = [m for m in seen(kafka.address, f"{prefix}balances.internal.v1") if m.key() == b"marker"]
        assert [m.partition() for m in markers] == list(range(PARTITIONS))
        assert len({m.value() for m in markers}) == 1
        for made in journals:
            await made.close()

    async def test_missing_topics_are_refused_and_not_made_by_looking(self, kafka, prefix):
        made = journal(kafka.address, prefix)
        for _ in range(2):
            with pytest.raises(WrongJournal, match=r"balances\.changed\.v1 is missing: run `watcher init`"):
                await made.check()
        await made.close()

    async def test_another_partition_count_is_refused(self, kafka, prefix):
        async with ready(kafka.address, prefix):
            other = journal(kafka.address, prefix, partitions=PARTITIONS + 1)
            with pytest.raises(WrongJournal, match=f"has {PARTITIONS} partitions, the config says {PARTITIONS + 1}"):
                await other.check()
            with pytest.raises(WrongJournal, match="fixed for life"):
                await other.init()
            await other.close()

    async def test_a_state_that_is_not_exactly_compacted_is_refused_and_not_mended(self, kafka, prefix):
        async with ready(kafka.address, prefix) as made:
            await alter(kafka.address, f"{prefix}balances.state.v1", {"cleanup.policy": "compact,delete"})
            for attempt in (made.check, made.init):
                with pytest.raises(WrongJournal, match=r"v1 has cleanup\.policy=compact,delete, it must be exactly"):
                    await attempt()

    async def test_another_retention_is_refused_until_init_sets_it_and_leaves_the_rest(self, kafka, prefix):
        name = f"{prefix}balances.changed.v1"
        async with ready(kafka.address, prefix, retention=3600.0):
            await alter(kafka.address, name, {"segment.bytes": "2097152"})
            longer = journal(kafka.address, prefix, retention=7200.0)
            with pytest.raises(
                WrongJournal, match=r"has retention\.ms=3600000, .* asks for 7200000: run `watcher init`"
            ):
                await longer.check()
            crossed = f"{prefix}balances.crossed.v1"
            said = f"set {name} retention.ms=7200000, {crossed} retention.ms=7200000: the log stands in"
            assert (await longer.init()).startswith(said)
            await longer.check()
            assert (await longer.init()).startswith("nothing to do")
            await longer.close()
        with administering(kafka.address) as admin:
            (configs,) = done(admin.describe_configs([ConfigResource("TOPIC", name)]))
        assert configs["retention.ms"].value == "7200000"
        assert configs["segment.bytes"].value == "2097152"

    async def test_weaker_settings_are_refused_until_init_and_stricter_ones_may_stand(self, kafka, prefix):
        name = f"{prefix}balances.state.v1"
        async with ready(kafka.address, prefix) as made:
            await alter(kafka.address, name, {"segment.ms": "60000", "max.message.bytes": "2000000"})
            await made.check()
            weaker = {"min.insync.replicas": "2", "max.compaction.lag.ms": "99999999", "max.message.bytes": "1000"}
            for config, value in weaker.items():
                await alter(kafka.address, name, {config: value})
                with pytest.raises(WrongJournal, match=f"{config}={value}, the config asks for .*: run `watcher init`"):
                    await made.check()
                assert config in await made.init()
                await made.check()

    async def test_a_new_log_by_hand_keeps_what_stands_and_ends_whoever_works_on_the_old_one(self, kafka, prefix):
        balance = balance_in(1)
        async with ready(kafka.address, prefix) as made, opened(made, 1) as writer, reading(made) as reader:
            await writer.commit(Batch([balance.row(1)]))
            await writer.commit(Batch([balance.row(2)]))
            before = (await reader.bounds()).head
            other = journal(kafka.address, prefix)
            assert (await other.init(new_log=True)).startswith("began a new log: the log stands in")
            with pytest.raises(Unavailable):  # fenced, and nobody else's claim stands there
                await writer.commit(Batch([balance.row(3)]))
            with pytest.raises(WrongJournal, match=r"belongs to another log .* start again"):
                await writer.open()
            with anyio.fail_after(60), pytest.raises(WrongJournal, match="belongs to another log"):
                await looked_at_for_ever(reader)
            async with opened(other, 1) as successor, reading(other) as later:
                restored = await successor.open()
                assert [(state.version, state.amount) for state in restored.states] == [(1, "2")]
                head = (await later.bounds()).head
                assert restored.epoch == head.epoch != before.epoch
                with pytest.raises(Expired) as refusal:
                    await until_head(later, before)
                assert refusal.value.reason == "epoch_changed"
            await other.close()

    @pytest.mark.parametrize("case", ["a new log", "no marker", "the old marker"])
    async def test_a_writer_under_which_the_topics_are_made_anew_writes_nothing_to_them(self, kafka, prefix, case):
        """Its producer lives on, and the broker takes what it sends."""
        changed, state, internal = topics = TopicNames.under(prefix)[:3]
        gone = topics[:2] if case == "the old marker" else topics
        balance, other = balance_in(1), balance_in(0)
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(ready(kafka.address, prefix))
            writer, beside = [await stack.enter_async_context(opened(made, partition)) for partition in (1, 0)]
            for amount in range(5):
                await writer.commit(Batch([balance.row(amount)]))
            reader = await stack.enter_async_context(reading(made))
            await beside.commit(Batch([other.row(1)]))
            with administering(kafka.address) as admin:
                await delete(admin, *gone)
                if case != "a new log":
                    await create(admin, *gone)
            successor = journal(kafka.address, prefix)
            if case == "a new log":
                await init_until_it_works(successor)
            said = {
                "a new log": "belongs to another log",
                "no marker": "has no marker",
                "the old marker": "lost its records",
            }
            for one, row in ((writer, balance.row(9)), (beside, other.row(9))):
                with anyio.fail_after(60), pytest.raises(WrongJournal, match=said[case]):
                    await tried(one, Batch([row]))
            with anyio.fail_after(60), pytest.raises(WrongJournal, match="were re-created"):
                await looked_at_for_ever(reader)
            await successor.close()
        assert seen(kafka.address, changed) == []
        assert seen(kafka.address, state) == []
        if case != "the old marker":
            marks = {message.key() for message in seen(kafka.address, internal)}
            assert marks == ({b"marker"} if case == "a new log" else set())

    async def test_a_writer_whose_topics_are_gone_ends_when_they_stay_away(self, kafka, prefix):
        changed, state = f"{prefix}balances.changed.v1", f"{prefix}balances.state.v1"
        async with ready(kafka.address, prefix) as made, opened(made, 0) as writer:
            with administering(kafka.address) as admin:
                await delete(admin, changed, state)
            with anyio.fail_after(120):
                with hurrying(made, request=1.0), pytest.raises(Unavailable, match="v1 is missing"):
                    await writer.open()
                deleted = pytest.raises(WrongJournal, match="v1 is missing: it was deleted; run `watcher init`")
                with hurrying(made, request=1.0, gone=0.0), deleted:
                    await writer.open()

    async def test_a_re_created_state_topic_is_refused_until_init(self, kafka, prefix):
        async with ready(kafka.address, prefix) as made:
            name = f"{prefix}balances.state.v1"
            with administering(kafka.address) as admin:
                await delete(admin, name)
                done(admin.create_topics([NewTopic(name, PARTITIONS, 1, config={"cleanup.policy": "compact"})]))
                while name not in admin.list_topics().topics:  # noqa: ASYNC110 (no event tells it)
                    await anyio.sleep(0.05)
            for attempt in (made.check, made.init, made.reader):
                with hurrying(made, begun=0.5), pytest.raises(WrongJournal, match="lost its records, or the topic was"):
                    await attempt()

    async def test_states_that_were_cut_are_refused_when_they_are_opened_and_gone_on_with_as_a_new_log(
        self, kafka, prefix
    ):
        """Here the state was re-created, and somebody has written to it since."""
        state, balance = f"{prefix}balances.state.v1", balance_in(0)
        async with ready(kafka.address, prefix) as made:
            for amount in range(2):
                async with opened(made, 0) as writer:
                    await writer.commit(Batch([balance.row(amount)]))
            with administering(kafka.address) as admin:
                await delete(admin, state)
            await made._with_broker(lambda admin: admin.create())
            other = balance_in(0, "other")
            ((_, key, value, headers),) = made._encoder.batch("e0", Batch([other.row(1)]))
            for partition in range(PARTITIONS):
                await produced(kafka.address, state, key, value, headers, partition=partition)
            writer = made.writer(0)
            with pytest.raises(WrongJournal, match=r"partition 0 of topic .* lost its records"):
                await writer.open()
            assert (await made.init(new_log=True)).startswith("began a new log")
            await writer.close()
            again = journal(kafka.address, prefix)
            async with opened(again, 0) as writer:
                assert [one.account for one in (await writer.open()).states] == ["accountother"]
            await again.close()

    async def test_what_is_not_a_balance_in_the_state_is_refused_by_everybody_and_taken_out_by_a_new_log(
        self, kafka, prefix
    ):
        """As a version before left it, which kept its marker and notes beside the balances."""
        state, balance = f"{prefix}balances.state.v1", balance_in(1)
        foreign = [
            (b"marker", b'{"epoch":"ab","partition_by":"provider"}', [("content-type", b"application/json")]),
            (b"limiter:x", b"\x00", [("content-type", b"application/octet-stream")]),
            (str(balance_in(1, "x").key).encode(), b"{}", [("content-type", b"application/json")]),
            (str(balance_in(1, "y").key).encode(), b"no header", None),
        ]
        async with ready(kafka.address, prefix) as made:
            async with opened(made, 1) as writer, reading(made) as reader:
                await writer.commit(Batch([balance.row(1)]))
                await writer.commit(Batch([balance.row(2)]))
                for partition in range(1, PARTITIONS):  # one key in several of them
                    for record in foreign:
                        await produced(kafka.address, state, *record, partition=partition)
                with anyio.fail_after(60), pytest.raises(WrongJournal, match="holds records that are not balances"):
                    await looked_at_for_ever(reader)
            for attempt in (made.writer(1).open, made.writer(2).open, made.reader):
                with pytest.raises(WrongJournal, match=r"are not balances .* run `watcher init --new-log`"):
                    await attempt()
            other = journal(kafka.address, prefix)
            assert (await other.init(new_log=True)).startswith("began a new log")
            await other.check()
            async with opened(other, 1) as writer, opened(other, 2), reading(other) as reader:
                assert [(one.version, one.amount) for one in (await writer.open()).states] == [(1, "2")]
                assert (await snapshot(reader, Filter()))[1] == [balance.state]
                await writer.commit(Batch([balance.row(3)]))
            await other.close()
        table = {}
        for message in seen(kafka.address, state):
            table[message.partition(), message.key()] = message.value()
        assert {place for place, value in table.items() if value is not None} == {(1, str(balance.key).encode())}
        removed = {(partition, key) for partition in range(1, PARTITIONS) for key, *_ in foreign}
        assert {place for place, value in table.items() if value is None} == removed

    async def test_a_state_without_its_internal_topic_is_refused_until_a_new_log_is_asked_for(self, kafka, prefix):
        """As a version before left it: all stood in the state."""
        balance = balance_in(1)
        async with ready(kafka.address, prefix) as made:
            async with opened(made, 1) as writer:
                await writer.commit(Batch([balance.row(1)]))
                await writer.commit(Batch([balance.row(2)]))
            with administering(kafka.address) as admin:
                await delete(admin, f"{prefix}balances.internal.v1")
            other = journal(kafka.address, prefix)
            for attempt in (other.check, other.init, other.check):
                with pytest.raises(WrongJournal, match=r"names no log: .*run `watcher init --new-log`"):
                    await attempt()
            assert (await other.init(new_log=True)).startswith("began a new log")
            async with opened(other, 1) as writer:
                assert [(one.version, one.amount) for one in (await writer.open()).states] == [(1, "2")]
            await other.close()

    async def test_a_re_created_state_beside_old_events_is_refused_by_init(self, kafka, prefix):
        """The balance lives in a partition whose state the marker is not in."""
        changed, state, internal = TopicNames.under(prefix)[:3]
        balance = balance_in(1)
        async with ready(kafka.address, prefix) as made:
            async with opened(made, 1) as writer:
                await writer.commit(Batch([balance.row(1)]))
                await writer.commit(Batch([balance.row(2)]))
            with administering(kafka.address) as admin:
                await delete(admin, state, internal)
                for _ in range(2):  # it stays so, however often it is tried
                    with pytest.raises(WrongJournal, match=f"delete {changed} too, its events with it"):
                        await init_until_it_works(made)
                await delete(admin, changed)
            await init_until_it_works(made)
            await made.check()

    async def test_a_log_of_the_former_partition_rule_is_refused_by_everybody(self, kafka, prefix, monkeypatch):
        monkeypatch.setattr(log_marker, "PARTITION_BY", "account")
        made = journal(kafka.address, prefix)
        await made.init()
        monkeypatch.undo()
        with pytest.raises(WrongJournal, match="is partitioned by account, and this version partitions by provider"):
            await made.check()
        for attempt in (made.init(), made.init(new_log=True), made.reader(), made.writer(2).open()):
            with pytest.raises(WrongJournal, match="is partitioned by account"):
                await attempt
        await made.close()

    async def test_an_init_that_breaks_off_begins_anew_by_itself_while_there_is_time(self, kafka, prefix, monkeypatch):
        """It leaves a control record in the events, which is none of them."""
        write, tries = LogMarkers._write_everywhere, []

        async def breaks_off_once(markers, producer):
            tries.append(markers)
            if len(tries) > 1:
                return await write(markers, producer)
            topics = TopicNames.under(prefix)
            await producer.begin_transaction()
            producer.join_transaction(TopicPartition(topics.changed, 0))
            await producer.send_and_wait(topics.internal, b"{}", b"marker", partition=0)
            await producer.abort_transaction()
            raise Unavailable("so it broke off")

        made = journal(kafka.address, prefix)
        monkeypatch.setattr(LogMarkers, "_write_everywhere", breaks_off_once)
        assert f"created {prefix}balances.changed.v1, " in await made.init()
        assert len(tries) == 2
        await made.check()
        await made.close()

    async def test_a_check_that_is_cut_goes_on_while_there_is_time_and_then_says_why(self, kafka, prefix, monkeypatch):
        """As by a broker that is thawed, and that its controller gives up once more before it takes it back."""
        existing, cuts = TopicAdmin.existing, [Unavailable("a broker went"), Unavailable("and again")]

        async def cut(admin):
            if cuts:
                raise cuts.pop()
            return await existing(admin)

        async with ready(kafka.address, prefix) as made:
            monkeypatch.setattr(TopicAdmin, "existing", cut)
            await made.check()
            assert not cuts
            impatient = journal(kafka.address, prefix, deadlines=hurried(reach=0.0))
            cuts.append(Unavailable("a broker went"))
            with pytest.raises(Unavailable):
                await impatient.check()
            await impatient.close()

    async def test_re_created_events_under_an_old_state_are_refused(self, kafka, prefix):
        balance = balance_in(0)
        async with ready(kafka.address, prefix, deadlines=hurried(begun=0.5)) as made:
            async with opened(made, 0) as writer:
                await writer.commit(Batch([balance.row(1)]))
                await writer.commit(Batch([balance.row(2)]))
            with administering(kafka.address) as admin:
                await delete(admin, f"{prefix}balances.changed.v1")
            writer = made.writer(0)
            for attempt in (made.init, made.check, made.reader, writer.open):
                with pytest.raises(WrongJournal, match="it was re-created; delete"):
                    await attempt()
            await writer.close()

    async def test_re_created_events_that_never_told_anything_are_refused_as_well(self, kafka, prefix):
        async with ready(kafka.address, prefix, deadlines=hurried(begun=0.5)) as made:
            name = f"{prefix}balances.changed.v1"
            assert seen(kafka.address, name) == []
            with administering(kafka.address) as admin:
                await delete(admin, name)
            with pytest.raises(WrongJournal, match="it was re-created"):
                await made.init()

    async def test_a_broker_that_is_not_there_is_said_so_within_the_time_given(self, prefix):
        made = journal(f"127.0.0.1:{kafka_broker.free_port()}", prefix, deadlines=hurried(reach=1.0))
        for attempt in (made.check, made.init):
            with anyio.fail_after(30), pytest.raises(Unavailable, match=r"no Kafka broker reached at .* within 1 s"):
                await attempt()
        await made.close()

    def test_python_without_asserts_is_refused(self):
        code = (
            "from watcher.journal import WrongJournal\n"
            "from watcher.journal.kafka import KafkaJournal, KafkaSettings\n"
            "try: KafkaJournal(['x:1'], KafkaSettings(), environ={}, clock=int)\n"
            "except WrongJournal as error: print(error)\n"
        )
        said = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.startswith("the Kafka journal cannot run under python -O")

    async def test_what_a_topic_does_not_take_any_more_costs_its_keys_alone(self, kafka, prefix):
        """An operator narrowed the topic under a running writer: the broker refuses, and does not say what."""
        small, large = balance_in(1), balance_in(1, "large")
        row = large.row(5)
        row = msgspec.structs.replace(row, state=msgspec.structs.replace(row.state, symbol="s" * 100_000))
        async with ready(kafka.address, prefix) as made, opened(made, 1) as writer:
            await alter(kafka.address, f"{prefix}balances.state.v1", {"max.message.bytes": "50000"})
            with anyio.fail_after(60), pytest.raises(Rejected) as refused:
                await committed_for_ever(writer, Batch([row]))
            assert refused.value.records == {}
            await writer.open()
            await writer.commit(Batch([small.row(2)]))
            restored = await writer.open()
            assert "2" in {state.amount for state in restored.states if state.key == small.key}


async def alter(address, topic, configs):
    """As an operator would, and wait until our side sees it."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in configs.items()]
    with administering(address) as admin:
        done(admin.incremental_alter_configs([ConfigResource("TOPIC", topic, incremental_configs=entries)]))
        while True:
            (found,) = done(admin.describe_configs([ConfigResource("TOPIC", topic)]))
            if all(found[name].value == value for name, value in configs.items()):
                return
            await anyio.sleep(0.02)


async def produced(address, topic, key, value, headers, *, partition):
    """One record, by a client that is not ours."""
    producer = Producer({"bootstrap.servers": address})
    producer.produce(topic, value, key, partition, headers=headers)
    assert await anyio.to_thread.run_sync(producer.flush, 60) == 0


async def create(admin, *names):
    """As a broker makes a topic of which it is asked."""
    done(admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]))
    with anyio.fail_after(60):
        while not set(names) <= admin.list_topics().topics.keys():  # noqa: ASYNC110 (no event tells it)
            await anyio.sleep(0.02)


async def tried(writer, batch):
    """As the committer does: open again after every failure."""
    while True:
        try:
            await writer.commit(batch)
        except Unavailable:
            with contextlib.suppress(Unavailable):
                await writer.open()
        await anyio.sleep(0.1)


async def committed_for_ever(writer, batch):
    while True:
        await writer.commit(batch)
        await anyio.sleep(0.1)


async def looked_at_for_ever(reader):
    while True:
        with contextlib.suppress(Unavailable):
            await reader.bounds()
        await anyio.sleep(0.1)


async def init_until_it_works(made):
    """Of two at the same time one may be fenced: it is told to try again, and does."""
    while True:
        with contextlib.suppress(Unavailable):
            await made.init()
            return
