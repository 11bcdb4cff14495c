"""`/v1/balances?at=` and `/v1/history`, asked on a real port of a relay on a real journal."""

import asyncio
import hashlib
import json
import socket

import anyio
import httpx
import msgspec
import pytest

from tests.past.past_log import crossing
from tests.relay.stage import SOLANA, calm, relaying, staged, until, wall
from tests.relay.test_labels import watching
from watcher.journal import Batch, first_changes
from watcher.model.log import Unavailable
from watcher.model.times import format_rfc3339
from watcher.relay import past_queries

pytestmark = pytest.mark.anyio

SECOND = 1_000_000
MINUTE = 60 * SECOND


@pytest.fixture
async def stage(tmp_path):
    """A at 1000 ten minutes ago, 1001 five minutes ago, 1002 a minute ago; B at 1000 four minutes ago."""
    async with staged(tmp_path, watches=[watching(A=("Hot", "ops"))]) as stage:
        stage.began = wall()
        await tell(stage, "A", 10)
        await tell(stage, "A", 5)
        await tell(stage, "B", 4)
        await tell(stage, "A", 1)
        yield stage


def ago(stage, minutes):
    return stage.began - round(minutes * MINUTE)


async def tell(stage, account, minutes):
    await stage.teller.tell(account, observed_at=ago(stage, minutes))


def time(stage, minutes):
    return format_rfc3339(ago(stage, minutes))


async def ask(stage, path, status=200, headers=None, **params):
    async with stage.http() as http:
        answer = await http.get(path, params=params, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def at(stage, minutes, **params):
    return await ask(stage, "/v1/balances", at=time(stage, minutes), **params)


async def test_what_was_held_is_told_with_how_sure_it_is(stage):
    answer = await at(stage, 3)
    assert list(answer) == ["at", "data"]
    assert answer["at"] == time(stage, 3)
    changing, unseen = answer["data"]
    names = {"provider": "jupiter", "chain": SOLANA, "token": "native", "kind": "total", "symbol": None}
    both = {**names, "unit": "base", "decimals": None, "watched": True}
    assert changing == {
        **both,
        "account": "A",
        "status": "changing",
        "previous_amount": "1001",
        "amount": "1002",
        "between": [time(stage, 5), time(stage, 1)],
        "label": "Hot",
        "tags": ["ops"],
    }
    assert unseen == {
        **both,
        "account": "B",
        "status": "unseen",
        "amount": "1000",
        "last_seen": time(stage, 4),
        "label": None,
        "tags": [],
    }
    certain = (await at(stage, 5, account="A"))["data"]
    assert [(row["status"], row["amount"]) for row in certain] == [("certain", "1001")]
    assert (await at(stage, 5, account="B"))["data"] == [], "it was not known then"


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, ["A", "B"]),
        ({"account": ["A", "B"], "provider": "jupiter"}, ["A", "B"]),
        ({"label": "Hot"}, ["A"]),
        ({"tag": "ops", "account": "B"}, []),
        ({"kind": "total"}, ["A", "B"]),
        ({"kind": "settled"}, []),
        ({"chain": "solana-900", "token": ""}, ["A", "B"]),
    ],
)
async def test_a_filter_holds_for_the_past_as_for_now(stage, params, found):
    assert [row["account"] for row in (await at(stage, 3, **params))["data"]] == found


async def test_a_plus_sign_that_the_query_made_a_space_is_taken_for_one(stage):
    moment = time(stage, 3).removesuffix("Z")
    async with stage.http() as http:
        plain = await http.get(f"/v1/balances?at={moment}+00:00")
        right = await http.get(f"/v1/balances?at={moment}%2B00:00")
    assert plain.status_code == 200
    assert plain.json() == right.json() == await at(stage, 3)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("at=", "is no time of RFC 3339"),
        ("at", "is no time of RFC 3339"),
        ("at=2026-12-31", "write 2026-12-31T00:00:00Z"),
        ("at=yesterday", "is no time of RFC 3339"),
        ("at=9999-12-31T00:00:00Z", "future"),
        ("at=2026-01-01T00:00:00Z&at=2026-01-01T00:00:00Z", "at is given once"),
        ("at=2026-01-01T00:00:00Z&wallet=A", "no field 'wallet'"),
        ("at=2026-01-01T00:00:00Z&kind=all", "no kind 'all'"),
        ("at=2026-01-01T00:00:00Z&" + "&".join(f"account=a{n}" for n in range(500)), None),
        ("from=9999-12-31T00:00:00Z", "from = 9999-12-31T00:00:00.000000Z is in the future"),
        ("to=9999-12-31T00:00:00Z", "to = 9999-12-31T00:00:00.000000Z is in the future"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "later than to"),
        ("from=now", "from = 'now' is no time"),
        ("limit=0", "limit is a number from 1 to 1000"),
        ("limit=1001", "limit is"),
        ("limit=-1", "limit is"),
        ("limit=ten", "limit is"),
        ("limit=1&limit=2", "limit is given once"),
        ("crossed=yes", "crossed is true or false"),
        ("cursor=e0.1", "cursor is the `next`"),
        ("cursor=", "cursor is the `next`"),
        ("cursor=abc.1.0.5", "begin anew"),
        ("at=2026-01-01T00:00:00Z&limit=5", None),
    ],
)
async def test_what_cannot_be_answered_is_400_and_says_why(stage, query, says):
    path = "/v1/balances" if query.startswith("at") else "/v1/history"
    async with stage.http() as http:
        answer = await http.get(f"{path}?{query}")
    if says is None:  # many values are no mistake, another one's field is
        assert answer.status_code == (400 if "limit" in query else 200)
        return
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]
    assert answer.json()["error"]["temporary"] is False


async def test_too_many_filter_values_are_refused(stage, monkeypatch):
    monkeypatch.setattr(
        past_queries, "StreamLimits", lambda: msgspec.structs.replace(stage.relay.listener.limits, filter_values=3)
    )
    answer = await at(stage, 3, account=["A", "B", "C"])
    assert len(answer["data"]) == 2
    error = (await ask(stage, "/v1/history", 400, account=["A", "B", "C", "D"]))["error"]
    assert error["code"] == "filter_limit"


async def history(stage, **params):
    answer = await ask(stage, "/v1/history", **params)
    assert list(answer) == ["data", "next"]
    return answer


async def test_history_gives_the_events_as_they_stand_in_the_order_of_the_log(stage):
    answer = await history(stage)
    assert answer["next"] is None
    assert [(item["type"], item["label"], item["event"]["id"]) for item in answer["data"]] == [
        ("changed", "Hot", event.id) for event in stage.teller.told
    ]
    assert [json.loads(msgspec.json.encode(event)) for event in stage.teller.told] == [
        item["event"] for item in answer["data"]
    ]
    assert (await history(stage, account="B"))["data"] == []
    assert len((await history(stage, **{"from": time(stage, 5), "to": time(stage, 2)}))["data"]) == 1
    assert len((await history(stage, **{"from": time(stage, 4.9), "to": time(stage, 1)}))["data"]) == 1


async def test_pages_of_history_are_one_history_and_its_interval_stays(stage):
    for minutes in (0.9, 0.8, 0.7):
        await tell(stage, "A", minutes)
    pages, cursor = [], {}
    while True:
        answer = await history(stage, limit="2", **cursor)
        pages.append([item["event"]["version"] for item in answer["data"]])
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
        await stage.teller.tell("A")  # later than the interval that was asked for
    assert pages == [[1, 2], [3, 4], [5]]


async def test_a_crossing_is_told_to_whoever_asks_for_it(stage):
    found = crossing(stage.teller.told[-1].key, 2, ago(stage, 1))
    await stage.teller.writer.commit(Batch([], crossings=[found]))
    assert [item["type"] for item in (await history(stage))["data"]] == ["changed", "changed"]
    told = (await history(stage, crossed="true"))["data"]
    assert [item["type"] for item in told] == ["changed", "changed", "crossed"]
    assert told[-1]["event"]["alert"] == found.alert
    assert told[-1]["label"] == "Hot"


async def test_who_may_not_see_a_balance_learns_nothing_of_its_past(tmp_path, stage):
    tokens = tmp_path / "tokens.toml"
    digest = hashlib.sha256(b"for-b-alone-kestrel").hexdigest()
    tokens.write_text(f'[[token]]\nsha256 = "{digest}"\naccount = ["B"]\n')
    bearer = {"Authorization": "Bearer for-b-alone-kestrel"}
    async with relaying(stage.teller.journal, tokens_file=str(tokens)) as (_, stage.port):
        for path in ("/v1/balances", "/v1/history"):
            await ask(stage, path, 401, at=time(stage, 3))
        found = await ask(stage, "/v1/balances", at=time(stage, 3), headers=bearer)
        assert [row["account"] for row in found["data"]] == ["B"]
        assert (await ask(stage, "/v1/history", headers=bearer))["data"] == []
        await tell(stage, "B", 0.5)
        assert len((await ask(stage, "/v1/history", headers=bearer))["data"]) == 1
        for path in ("/v1/balances", "/v1/history"):
            asked = {"at": time(stage, 3)} if path == "/v1/balances" else {}
            await ask(stage, path, 403, account="A", headers=bearer, **asked)


class Held:
    """A journal whose log can be held up, and which counts who reads its past."""

    def __init__(self, journal):
        self.journal = journal
        self.reading = 0
        self.views = 0
        self.may = anyio.Event()
        self.may.set()
        self.broken = None

    async def reader(self):
        source = self.source = await self.journal.reader()
        self.bounds, self.follow, self.close, self.glance = source.bounds, source.follow, source.close, source.glance
        self.notes, self.kept_from = source.notes, source.kept_from
        return self

    async def snapshot(self, wanted):
        self.views += 1
        return await self.source.snapshot(wanted)

    async def between(self, wanted, first, last, until, behind=None):
        self.reading += 1
        try:
            await self.may.wait()
            if self.broken is not None:
                raise self.broken
            async for part in self.source.between(wanted, first, last, until, behind):
                yield part
        finally:
            self.reading -= 1

    async def first_changes(self, wanted, time, until):
        async for part in first_changes(self.between(wanted, time + 1, 2**62, until)):
            yield part


@pytest.fixture
async def held(stage):
    stage.log = Held(stage.teller.journal)
    async with relaying(stage.log, calm(), watches=[watching()]) as (stage.relay, stage.port):
        stage.log.may = anyio.Event()
        yield stage


async def asking(stage, count, tasks, found, path="/v1/history"):
    async def one():
        async with stage.http() as http:
            found.append(await http.get(path))

    for _ in range(count):
        tasks.start_soon(one)


async def test_a_few_are_worked_on_at_a_time_and_the_others_wait_in_line(held):
    found = []
    async with anyio.create_task_group() as tasks:
        await asking(held, 10, tasks, found)
        await until(lambda: held.log.reading == past_queries.AT_ONCE_EACH - 2)
        async with held.subscriber() as one:
            await one.subscribe(snapshot=False)
            await held.teller.tell("A")
            assert (await one.push("update"))["event"]["version"] == 3, "live events do not wait"
        held.log.may.set()
    assert [answer.status_code for answer in found] == [200] * 10
    assert held.log.reading == 0


async def test_who_waits_too_long_in_line_is_asked_to_come_back(held, monkeypatch):
    monkeypatch.setattr(past_queries, "PATIENCE", 0.05)
    found = []
    async with anyio.create_task_group() as tasks:
        await asking(held, 5, tasks, found)
        await until(lambda: len(found) == 2)
        held.log.may.set()
    assert [answer.status_code for answer in found] == [503, 503, 200, 200, 200]
    error = found[0].json()["error"]
    assert (error["code"], error["temporary"], found[0].headers["Retry-After"]) == ("rate_limited", True, "5")


async def test_beyond_a_number_nobody_waits_in_line(held, monkeypatch):
    monkeypatch.setattr(past_queries, "ASKING_EACH", 4)
    found = []
    async with anyio.create_task_group() as tasks:
        await asking(held, 6, tasks, found)
        await until(lambda: len(found) == 2)
        held.log.may.set()
    assert sorted(answer.status_code for answer in found) == [200, 200, 200, 200, 503, 503]
    assert held.relay.stats.refused["busy"] == 2


async def test_who_goes_away_ends_its_question(held):
    with socket.socket() as raw:
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", held.port))
        await loop.sock_sendall(raw, b"GET /v1/history HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: held.log.reading == 1)
    await until(lambda: held.log.reading == 0)
    held.log.may.set()
    assert len((await history(held))["data"]) == 2, "its place is free"


async def test_a_journal_that_is_away_is_503_and_not_the_end_of_the_relay(held):
    held.log.may.set()
    held.log.broken = Unavailable("the disk is gone")
    error = (await ask(held, "/v1/history", 503))["error"]
    assert "the disk is gone" in error["message"]
    held.log.broken = None
    assert len((await history(held))["data"]) == 2


async def test_more_balances_than_one_answer_has_are_refused_with_what_to_do(held, monkeypatch):
    held.log.may.set()
    monkeypatch.setattr(past_queries, "MOST_ROWS", 1)
    error = (await ask(held, "/v1/balances", 400, at=time(held, 3)))["error"]
    assert "2 balances are too many for one answer" in error["message"]
    assert len((await at(held, 3, account="A"))["data"]) == 1
    await held.teller.tell(*(f"a{number:04}" for number in range(700)), observed_at=ago(held, 2))
    await ask(held, "/v1/balances", 400, at=time(held, 2))
    assert held.log.views == 1
    assert len(held.log.source._views) == 0, "the view is given back"


async def test_many_balances_come_in_pieces_and_in_order(held, monkeypatch):
    held.log.may.set()
    monkeypatch.setattr(past_queries, "PIECE", 7)
    many = [f"a{number:04}" for number in range(700)]
    await held.teller.tell(*many, observed_at=ago(held, 2))
    async with held.http() as http, http.stream("GET", "/v1/balances", params={"at": time(held, 2)}) as answer:
        text = b"".join([piece async for piece in answer.aiter_raw()])
    whole = httpx.Response(200, content=text).json()
    assert [row["account"] for row in whole["data"]] == ["A", "B", *many]
    assert held.log.views == 1
    assert [row["account"] for row in (await at(held, 2, account=many[:20]))["data"]] == many[:20]
    assert held.log.views == 1, "what is little needs no view"


async def test_an_answer_that_is_not_taken_in_time_is_cut_and_gives_its_place_back(held, monkeypatch):
    held.log.may.set()
    monkeypatch.setattr(past_queries, "TAKEN", -1.0)
    with pytest.raises(httpx.TransportError):
        await at(held, 3)
    monkeypatch.undo()
    assert len((await at(held, 3))["data"]) == 2


async def test_head_and_other_methods_are_answered_as_elsewhere(stage):
    async with stage.http() as http:
        assert (await http.head("/v1/history")).status_code == 200
        assert (await http.post("/v1/history")).status_code == 405
        assert (await http.get("/v1/history/")).status_code == 404
