"""A seed's world, its answers and their faults are for ever what they were: tests of others rely on them."""

import hashlib
import re

import msgspec
import pytest

from tests.sandbox.test_apis import START, provider, requests, send, world

SEED, SECONDS = 3, 60
DIGESTS = {
    "jupiter": "885af1b11f8527c3",
    "bloxroute": "47e1852aa682dd3b",
    "helius": "2fb0b114d31ed729",
    "ondo": "6f3aeebfe3660c7e",
    "tokenkit": "303088c190a15743",
}
"""Provider → SHA-256 of every answer in a minute of default faults, and of the report; recorded before there were pushes."""
IDENTIFIER = re.compile(rb'"id":"[^"]*"')
"""Of a JSON-RPC call: another one in each process."""


@pytest.mark.parametrize("name", DIGESTS)
def test_answers_faults_and_truth_of_a_seed_are_what_they_were(name):
    here = world(faults="default", seed=SEED)
    there = provider(name, seed=SEED, **({"max_age": 0} if name == "tokenkit" else {}))
    digest = hashlib.sha256()
    for step in range(SECONDS):
        for request in requests(there):
            reply = send(here, there, request, START + step)
            digest.update(f"{reply.status} {sorted(reply.headers.items())}".encode() + IDENTIFIER.sub(b"", reply.body))
    digest.update(msgspec.json.encode(here.report(START + SECONDS)["providers"], order="sorted"))
    assert digest.hexdigest()[:16] == DIGESTS[name]
