"""What `init` makes of the answers of a controller: no broker gives the rare ones when it is asked to."""

import types

import pytest
from aiokafka.errors import IllegalOperation

from watcher.journal import WrongJournal
from watcher.journal.kafka import topic_admin
from watcher.journal.kafka.cluster import Cluster
from watcher.journal.kafka.deadlines import Deadlines, within
from watcher.journal.kafka.rights import DeniedRights
from watcher.journal.kafka.topic_specs import TopicSpec
from watcher.model.log import Unavailable

pytestmark = pytest.mark.anyio
TIMED_OUT, INVALID_REPLICATION_FACTOR, NOT_CONTROLLER, ALREADY_EXISTS, POLICY_VIOLATION = 7, 38, 41, 36, 44
NAMES = ["changed", "state"]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(topic_admin, "BUSY_RETRIES", (0.0,) * len(topic_admin.BUSY_RETRIES))


class Controller:
    """Answers each request with the next list of error codes, one a topic."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def describe_cluster(self):
        return {"brokers": [{"node_id": 1}]}

    async def create_topics(self, new):
        codes = self.answers.pop(0)
        return types.SimpleNamespace(
            topic_errors=[(topic.name, code, "why") for topic, code in zip(new, codes, strict=True)]
        )


async def made(*answers):
    controller = Controller(*answers)
    specs = [TopicSpec(name, 1, "compact", {}, {}) for name in NAMES]
    names = await topic_admin.TopicAdmin(
        controller, specs, Cluster(["127.0.0.1:9"], {}, Deadlines(admin=60.0))
    ).create()
    assert controller.answers == []
    return names


async def test_a_producer_that_is_fenced_between_two_steps_is_unavailable():
    with pytest.raises(Unavailable, match="failed \\(committing\\)"), within(60.0, "committing", DeniedRights()):
        raise IllegalOperation("Can't send messages while not in transaction")


@pytest.mark.parametrize("code", [TIMED_OUT, INVALID_REPLICATION_FACTOR, NOT_CONTROLLER])
async def test_what_may_pass_by_itself_is_asked_again(code):
    assert await made([0, code], [ALREADY_EXISTS, code], [ALREADY_EXISTS, 0]) == NAMES


async def test_topics_that_stand_are_no_trouble():
    assert await made([ALREADY_EXISTS, ALREADY_EXISTS]) == []


async def test_what_does_not_pass_is_told_in_the_controllers_words():
    with pytest.raises(WrongJournal, match="topic state cannot be created: InvalidReplicationFactorError why"):
        await made(*[[ALREADY_EXISTS, INVALID_REPLICATION_FACTOR]] * len(topic_admin.BUSY_RETRIES))


async def test_what_never_passes_is_told_at_once():
    with pytest.raises(WrongJournal, match="topic changed cannot be created: PolicyViolationError why"):
        await made([POLICY_VIOLATION, 0])
