"""Clusters that are secured and replicated: brokers of our own."""

import contextlib

import anyio
import pytest
from confluent_kafka.admin import ConfigResource

from tests import kafka_broker
from tests.journal.kafka_world import (
    PARTITIONS,
    PATIENT,
    administering,
    balance_in,
    done,
    hurrying,
    opened,
    reading,
    restored,
    until_head,
)
from tests.journal.own_broker import USERS
from watcher.app.daemon import wall
from watcher.journal import Batch, Forbidden, WrongJournal
from watcher.journal.kafka import KafkaJournal, KafkaSettings
from watcher.journal.kafka.deadlines import Deadlines
from watcher.journal.kafka.settings import security
from watcher.model.keys import Filter
from watcher.model.log import Unavailable
from watcher.runtime.config_section import SettingsError
from watcher.testing.journal_samples import snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.kafka]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class TestSecurity:
    @pytest.mark.parametrize("mechanism", USERS)
    async def test_passwords_over_tls_reach_a_real_cluster(self, secure_address, certificate, prefix, mechanism):
        user, secret = USERS[mechanism]
        settings = KafkaSettings(
            topic_prefix=prefix,
            partitions=PARTITIONS,
            security_protocol="SASL_SSL",
            sasl_mechanism=mechanism,
            sasl_username=user,
            sasl_password_env="KAFKA_PASSWORD",
            ssl_cafile=str(certificate[1]),
        )
        made = KafkaJournal(
            [secure_address], settings, environ={"KAFKA_PASSWORD": secret}, clock=wall, deadlines=PATIENT
        )
        balance = balance_in(0)
        await made.init()
        await made.check()
        async with opened(made, 0) as writer, reading(made) as reader:
            await writer.commit(Batch([balance.row(1)]))
            assert (await snapshot(reader, Filter()))[1] == [balance.state]
        await made.close()
        wrong = KafkaJournal(
            [secure_address], settings, environ={"KAFKA_PASSWORD": "wrong"}, clock=wall, deadlines=PATIENT
        )
        for attempt in (wrong.check, wrong.init):
            with (
                anyio.fail_after(60),
                pytest.raises(Forbidden, match=r"refuses our credentials .* sasl_username") as no,
            ):
                await attempt()
            assert "wrong)" not in str(no.value)
            assert secret not in str(no.value)
        await wrong.close()

    async def test_a_certificate_of_an_unknown_authority_is_told_at_once(self, secure_address, prefix):
        settings = KafkaSettings(topic_prefix=prefix, security_protocol="SSL")
        made = KafkaJournal([secure_address], settings, environ={}, clock=wall, deadlines=PATIENT)
        with anyio.fail_after(60), pytest.raises(WrongJournal, match=r"not trust .* \[kafka\] ssl_cafile"):
            await made.check()
        await made.close()

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"security_protocol": "SASL_SSL"}, "needs sasl_username"),
            ({"security_protocol": "SASL_SSL", "sasl_username": "a"}, "needs sasl_password_env or sasl_password_file"),
            (
                {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "a", "sasl_password_env": "NOT_THERE"},
                "names NOT_THERE, which is not set",
            ),
            (
                {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "a", "sasl_password_file": "/not/there"},
                "sasl_password_file cannot be read",
            ),
            ({"security_protocol": "SSL", "ssl_cafile": "/not/there"}, "cannot be used"),
            ({"partitions": 0}, "write a number from 1"),
        ],
    )
    def test_settings_that_cannot_be_say_what_to_do(self, given, said):
        with pytest.raises(SettingsError, match=said):
            KafkaJournal(["127.0.0.1:9"], KafkaSettings(**given), environ={}, clock=wall)

    def test_a_password_may_stand_in_a_file(self, tmp_path):
        (tmp_path / "password").write_text("secret\n")
        settings = KafkaSettings(
            security_protocol="SASL_PLAINTEXT", sasl_username="a", sasl_password_file=str(tmp_path / "password")
        )
        assert security(settings, {})["sasl_plain_password"] == "secret"


class TestCluster:
    async def test_three_brokers_hold_three_copies_and_one_may_die(self, prefix):
        balance = balance_in(0)
        try:
            stack = contextlib.ExitStack()
            nodes = stack.enter_context(kafka_broker.cluster(3))
        except kafka_broker.NoBroker as reason:
            pytest.skip(f"no brokers of our own: {reason}")
        addresses = [node.address for node in nodes]
        made = KafkaJournal(
            addresses,
            KafkaSettings(topic_prefix=prefix, partitions=PARTITIONS),
            environ={},
            clock=wall,
            deadlines=PATIENT,
        )
        with stack:
            await made.init()
            with administering(addresses[0]) as admin:
                topics = admin.list_topics().topics
                names = [f"{prefix}balances.{name}.v1" for name in ("changed", "state", "heartbeat")]
                configs = done(admin.describe_configs([ConfigResource("TOPIC", name) for name in names]))
            assert {len(p.replicas) for name in names for p in topics[name].partitions.values()} == {3}
            assert {config["min.insync.replicas"].value for config in configs} == {"2"}
            async with opened(made, 0) as writer, reading(made) as reader:
                await writer.commit(Batch([balance.row(0)]))
                await writer.commit(Batch([balance.row(1)]))
                leader = topics[names[1]].partitions[0].leader
                nodes[leader - 1].kill()
                with anyio.fail_after(240), hurrying(made, commit=Deadlines().commit, start=Deadlines().start):
                    while balance.state.version < 4:
                        before = balance.state
                        try:
                            await writer.commit(Batch([balance.row(before.version + 1)]))
                        except Unavailable:
                            balance.state = await restored(writer, before.version)
                oldest = (await reader.bounds()).oldest
                got = [e.version for commit in await until_head(reader, oldest) for e in commit.events]
                assert got == [1, 2, 3, 4]
            await made.close()
