"""What five providers make of an hour, with faults, in virtual time: each event, state and heartbeat is as described."""

import json
from collections import Counter

import anyio
import jsonschema
import pytest

from tests.journal.laws import records
from tests.polling import journal, poller_of, virtually
from tests.schemas.contract import Contract
from tests.worlds.test_day import provider, sandbox
from watcher.model.events import JSON
from watcher.sandbox.messages import VALID_KEY
from watcher.sandbox.registry import PROVIDERS
from watcher.sandbox.transport import SandboxTransport

HOUR = 3600.0


async def live(file, seed):
    """An hour; what every provider's heartbeat said in it, as JSON."""
    said = []
    transport = SandboxTransport(sandbox(seed))
    async with journal(file) as intake, anyio.create_task_group() as tasks:
        pollers = [
            poller_of(provider(each, seed), None, intake, seed=seed, secret=VALID_KEY, transport=transport)
            for each in PROVIDERS
        ]
        for poller in pollers:
            tasks.start_soon(poller.run)
        while anyio.current_time() < HOUR:
            said += [JSON.encode(poller.health("0f6c")) for poller in pollers]
            await anyio.sleep(15.0)
        tasks.cancel_scope.cancel()
    return [json.loads(each) for each in said]


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    file = tmp_path_factory.mktemp("world") / "balances.db"
    heartbeats = virtually(live, file, 7)
    events, states = records(file)
    return heartbeats, [event for _, event in events], states


def test_every_event_state_and_heartbeat_is_as_the_document_has_it(lived):
    contract, (heartbeats, events, states) = Contract(), lived
    for name, found in (("heartbeat.v1", heartbeats), ("balance-changed.v1", events), ("balance-state.v1", states)):
        for each in found:
            contract.payload(f"{name}.json", each)
        assert len(Counter(each["provider"] for each in found)) == len(PROVIDERS)
        with pytest.raises(jsonschema.ValidationError):
            contract.payload(f"{name}.json", found[0] | {"colour": "red"})
