"""Balances that are judged anew at their next reading: however that reading comes, the commit loop learns of it."""

import contextlib
import json
import sqlite3

import anyio
import msgspec
import pytest

from tests.ingest.test_committer import World, answer, in_virtual_time
from watcher.journal.sqlite import file as sqlite_file
from watcher.model.alert_index import Alert, AlertIndex
from watcher.model.keys import Scope

WHOLE = Scope("bank", "eip155:1")


def crossings(path):
    with contextlib.closing(sqlite3.connect(path)) as file:
        found = file.execute("SELECT data FROM event WHERE type = 'crossed' ORDER BY seq").fetchall()
    return [json.loads(data) for (data,) in found]


def low(threshold):
    return AlertIndex([Alert("low", "below", threshold, threshold)])


@pytest.mark.parametrize(
    "whole", [False, True], ids=["a listing that repeats the one before", "one that is read whole"]
)
def test_after_an_edit_one_reading_is_enough_though_nothing_else_ever_comes(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(sqlite_file, "BUSY", 0.0)
    path = tmp_path / "balances.db"

    def listed():
        return msgspec.structs.replace(answer({1: 4, 2: 6}, listing=WHOLE), fingerprint=b"same")

    async def main():
        world = World(path)
        async with world.running() as committer:
            for _ in range(3):
                await committer.accept(listed())
                await anyio.sleep(1.0)
            await committer.flush()
            committer.use_alerts(low("5"))
            await anyio.sleep(60.0)
            assert crossings(path) == [], "the edit itself tells nothing"
            if whole:
                await committer.accept(listed())
            else:
                assert await committer.repeat(listed()) is not None
            await anyio.sleep(60.0)
            (found,) = crossings(path)
            assert (found["account"], found["version"], found["previous_amount"]) == ("a1", 0, None)

    in_virtual_time(main)
