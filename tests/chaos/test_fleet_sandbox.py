"""The sandbox of many credentials counts all processes together, tells them apart, and spells the truth as the tables do."""

import json
import time

import pytest

from tests.chaos.fleet_sandbox import QUOTAS, Worlds, key_of, limits_of, quotas, seeds, tables
from watcher.sandbox.messages import SimulatedRequest
from watcher.sandbox.world import SandboxSettings, World

SEED, COUNT = 7, 4


@pytest.fixture
def worlds():
    settings = [SandboxSettings(seed=seed, rate=0.0, limits=limits_of()) for seed in seeds(SEED, COUNT)]
    return Worlds([World(each, start=0.0, wall=time.time()) for each in settings])


def asked(worlds, table, process, now):
    watch = tables(1, SEED, COUNT)[table]["watch"][0]
    path = f"/{table}/ultra/v1/balances/{watch['account']}"
    return worlds.answer(SimulatedRequest("GET", path, {}, {"x-api-key": key_of(process)}), now).status


def told(worlds, path, **query):
    return json.loads(worlds.answer(SimulatedRequest("GET", path, query, {}), 9.0).body)


def test_there_are_as_many_credentials_as_issue_and_judge_ask_for():
    assert len(tables(1, SEED, COUNT)) == len(quotas(COUNT)) == 20
    assert tables(1, SEED, COUNT).keys() == quotas(COUNT).keys()


def test_processes_are_counted_together_and_told_apart(worlds):
    allowed = QUOTAS["jupiter"].requests
    processes = [f"p{number}" for number in range(allowed + 1)]
    answers = [asked(worlds, "jupiter-2", process, 1.0 + number / 100) for number, process in enumerate(processes)]
    assert answers == [200] * allowed + [429]
    assert asked(worlds, "jupiter-3", "p0", 1.1) == 200  # another credential
    arrivals = told(worlds, "/_arrivals")
    assert [arrival[2] for arrival in arrivals] == [*processes, "p0"]
    assert [arrival[1] for arrival in arrivals] == ["jupiter-2"] * (allowed + 1) + ["jupiter-3"]
    assert [arrival[3] for arrival in arrivals] == [False] * allowed + [True, False]
    assert told(worlds, "/_arrivals", **{"from": "2"}) == arrivals[2:]


def test_a_key_without_the_mark_of_a_process_is_none_of_the_fleet(worlds):
    worlds.answer(SimulatedRequest("GET", "/jupiter-0/", {}, {"x-api-key": "sandbox-key"}), 1.0)
    assert told(worlds, "/_arrivals")[0][2] == "?"


def test_the_truth_names_each_balance_as_the_table_that_reads_it(worlds):
    truth = told(worlds, "/_truth", history="0")["providers"]
    assert truth.keys() == quotas(COUNT).keys()
    for table, provider in truth.items():
        assert provider["balances"]
        assert all(balance["key"].startswith(f"{table}/") for balance in provider["balances"])
