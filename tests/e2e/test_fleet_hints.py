"""Hints to a fleet: whoever sends them, and to whom, they come to the member that polls the provider, and to no other."""

import json
import re
import urllib.request

import pytest

from tests.e2e.harness import get, until
from tests.e2e.test_fleet import Fleet
from tests.journal.hint_world import producing, topic

pytestmark = pytest.mark.kafka
COUNTED = re.compile(r"^watcher_hints_total\{(.*)\} (\S+)$", re.MULTILINE)


@pytest.fixture
def fleet(house, kafka, prefix):
    return Fleet(house, kafka, prefix)


def counted(member, **labels):
    """Hints of that source and result, as the member counts them."""
    text = get(f"http://127.0.0.1:{member.port}/metrics")[1].decode()
    return sum(
        float(value)
        for found, value in COUNTED.findall(text)
        if all(f'{name}="{wanted}"' in found for name, wanted in labels.items())
    )


def hints(sandbox):
    """One for each provider."""
    return [
        {"provider": name, "account": next(watch["account"] for watch in table["watch"] if "account" in watch)}
        for name, table in sandbox.providers().items()
    ]


def post(member, sent):
    body = json.dumps({"hints": sent}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{member.port}/v1/hints", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.load(answer)


def until_all_receive(address, prefix, *members):
    """A receiver takes what comes once it has begun, and misses what came before: what is no hint is sent until each counts it."""
    with producing(address) as producer:

        def begun():
            producer.produce(topic(prefix), b"no hint")
            producer.flush(60)
            return all(counted(one, source="kafka", result="rejected") for one in members)

        until(begun, "hints are received")


def test_a_hint_reaches_the_member_that_polls_its_provider(fleet, kafka, prefix):
    members = [fleet.house.run(fleet.config(name)) for name in ("one", "two")]
    fleet.shared(*members)
    fleet.until_all_are_asked()
    until_all_receive(kafka.address, prefix, *members)
    sent = hints(fleet.sandbox)

    with producing(kafka.address) as producer:
        for hint in sent:
            producer.produce(topic(prefix), json.dumps(hint), key=hint["account"])
    until(lambda: sum(counted(one, source="kafka", result="accepted") for one in members) == len(sent), "on the topic")
    assert all(0 < counted(one, source="kafka", result="accepted") < len(sent) for one in members)
    assert sum(counted(one, source="kafka", result="unknown") for one in members) == 0

    before = counted(members[1], source="kafka", result="accepted")
    assert post(members[0], sent) == (202, {"accepted": len(sent), "unknown": 0})
    until(
        lambda: counted(members[1], source="kafka", result="accepted") == 2 * before,
        "posted to one, sent on to the other",
    )
    assert counted(members[0], source="http", result="accepted") == len(sent)
    assert fleet.refusals() == 0


def test_a_hint_that_is_posted_to_a_relay_alone_reaches_the_pollers(house, kafka, prefix):
    sandbox = house.sandbox()
    more = {"journal": f"kafka://{kafka.address}", "kafka": {"topic_prefix": prefix}, "metrics_port": 0}
    config = house.config(sandbox.providers(), **more)
    assert house.finished("init", "-c", config).status == 0
    pollers = house.run(config, "--only", "pollers")
    relay = house.run(config, "--only", "relay")
    until_all_receive(kafka.address, prefix, pollers)
    (hint, *_) = hints(sandbox)
    assert post(relay, [hint, hint | {"account": "nobody"}]) == (202, {"accepted": 1, "unknown": 1})
    until(lambda: counted(pollers, source="kafka", result="accepted") == 1, "the hint is there")
