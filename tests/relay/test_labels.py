"""Labels and tags on the wire: in rows and beside events, never in them; filters by them, and a config that is read anew."""

import contextlib
import json

import anyio
import anyio.lowlevel
import pytest

from tests.relay.stage import SOLANA, calm, staged, until
from watcher.model.keys import Scope
from watcher.model.watches import Watched, WatchIndex
from watcher.relay import server

pytestmark = pytest.mark.anyio


def watching(**names):
    """Every account of jupiter is watched; these have a label, or a label and tags."""
    found = [Watched(Scope("jupiter"))]
    for account, given in names.items():
        label, *tags = [given] if isinstance(given, str) else given
        found.append(Watched(Scope("jupiter", SOLANA, account), label, tuple(tags)))
    return WatchIndex(found)


@pytest.fixture
def watches():
    """To be replaced, as a reload does."""
    return [watching(A=("Hot", "ops", "eu"), B=("Cold", "ops"))]


@pytest.fixture
async def stage(tmp_path, watches):
    async with staged(tmp_path, watches=watches) as stage:
        yield stage


def accounts(messages):
    return [message["event"]["account"] for message in messages]


async def rows(one, **params):
    """The accounts of a snapshot, and its result."""
    result, found, last = await one.subscribe(**params), [], False
    while not last:
        page = await one.push("snapshot")
        found, last = found + page["data"], page["last"]
    return [row["account"] for row in found], result


async def test_a_row_has_the_names_of_its_watch_and_says_whether_anybody_reads_it(stage):
    await stage.teller.tell("A", "C")
    await stage.teller.tell("A", provider="gone")
    async with stage.subscriber() as one:
        await one.subscribe()
        data = (await one.push("snapshot"))["data"]
    async with stage.http() as http:
        assert (await http.get("/v1/balances")).json()["data"] == data
    assert [(row["provider"], row["account"], row["label"], row["tags"], row["watched"]) for row in data] == [
        ("jupiter", "A", "Hot", ["eu", "ops"], True),
        ("jupiter", "C", None, [], True),
        ("gone", "A", None, [], False),
    ]


async def test_a_label_stands_beside_the_event_and_leaves_its_bytes_alone(stage):
    await stage.teller.tell("A", "C")
    async with stage.subscriber() as one:
        oldest = (await one.next())["oldest_cursor"]
        await one.subscribe(snapshot=False)
        told = await stage.teller.tell("A", "C")
        live = await one.updates(2)
        assert [message.get("label") for message in live] == ["Hot", None]
        assert list(live[0]) == ["type", "cursor", "label", "event"]
        assert [message["event"]["id"] for message in live] == [event.id for event in told]
        assert not {"label", "tags"} & live[0]["event"].keys()
    async with stage.subscriber() as two:
        await two.subscribe(cursor=oldest)
        assert await two.updates(2) == live, "a replay tells the same"


async def test_an_update_whose_cursor_waits_for_one_that_is_held_back_keeps_its_label(stage):
    await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        await one.subscribe(snapshot=False, delivery="conflate", interval_ms=60_000)
        await stage.teller.tell("A")
        await one.updates(1)
        await stage.teller.tell("A")  # held back
        await stage.teller.tell("B")
        (update,) = await one.updates(1)
        assert (update["event"]["account"], update["label"]) == ("B", "Cold")
        assert update["cursor"].endswith(".2"), "below the one that is held back"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"label": ["Hot"]}, ["A"]),
        ({"label": ["Hot", "Cold"]}, ["A", "B"]),
        ({"tag": ["ops"]}, ["A", "B"]),
        ({"tag": ["eu", "us"]}, ["A"]),
        ({"tag": ["ops"], "account": ["B", "C"]}, ["B"]),
        ({"label": ["Hot"], "account": ["B"]}, []),
        ({"label": ["hot"]}, []),
    ],
)
async def test_a_filter_by_names_holds_for_snapshot_stream_and_http_alike(stage, wanted, found):
    await stage.teller.tell("A", "B", "C")
    async with stage.subscriber() as one:
        seen, result = await rows(one, filter=wanted)
        assert (seen, result["snapshot_rows"], result["filter"]) == (
            found,
            len(found),
            {k: sorted(v) for k, v in wanted.items()},
        )
        await one.subscribe(snapshot=False, filter={"account": ["C"]})
        await stage.teller.tell("A", "B", "C")
        assert accounts(await one.updates(len(found) + 1)) == [*found, "C"]
    async with stage.http() as http:
        answer = await http.get("/v1/balances", params=wanted)
        assert [row["account"] for row in answer.json()["data"]] == found


async def test_a_large_snapshot_by_a_name_has_what_matches_and_no_empty_pages(stage, watches):
    many = [f"a{number:04}" for number in range(1600)]
    watches[0] = WatchIndex(
        [
            Watched(Scope("jupiter"), "All"),
            *(Watched(Scope("jupiter", SOLANA, each), "Few") for each in many[1100:1105]),
        ]
    )
    stage.relay.watches_changed()
    await stage.teller.tell(*many[:900])
    await stage.teller.tell(*many[900:])
    async with stage.subscriber() as one:
        result = await one.subscribe(filter={"label": ["Few"]})
        page = await one.push("snapshot")
        assert ([row["account"] for row in page["data"]], page["page"], page["last"]) == (many[1100:1105], 1, True)
        assert result["snapshot_rows"] == 5
        seen, result = await rows(one, filter={"label": ["All"]})
        assert (seen, result["snapshot_rows"]) == ([*many[:1100], *many[1105:]], 1600), "at most so many"
    async with stage.http() as http:
        data = (await http.get("/v1/balances", params={"label": "All"})).json()["data"]
        assert [row["account"] for row in data] == seen


async def test_labels_that_were_edited_hold_from_then_on_and_the_edit_tells_nothing(stage, watches):
    await stage.teller.tell("A", "B", "C")
    async with stage.subscriber() as one:
        hot = await one.subscribe(snapshot=False, filter={"label": ["Hot"]})
        await one.subscribe(snapshot=False, filter={"tag": ["eu"], "provider": ["jupiter"]})
        watches[0] = watching(A="Warm", C=("Hot", "eu"))
        assert accounts([await told(stage, one, "A", "B", "C")]) == ["A"], "until the relay is told"
        stage.relay.watches_changed()
        message = await told(stage, one, "A", "B", "C")
        assert (message["event"]["account"], message["event"]["version"], message["label"]) == ("C", 2, "Hot")
        await one.ask("unsubscribe", subscription_id=hot["subscription_id"])
        assert accounts([await told(stage, one, "A", "B", "C")]) == ["C"], "by its tag"
        assert one.pushes == []


async def told(stage, one, *changed):
    """The only update that comes of changes of these accounts."""
    await stage.teller.tell(*changed)
    (update,) = await one.updates(1)
    assert (await one.ask("ping"))["result"]
    return update


async def test_an_edit_reaches_readers_that_are_off_the_live_path(stage, watches):
    await stage.teller.tell("A", "B")
    for _ in range(3):
        await stage.teller.tell("A", "B")
    async with stage.subscriber() as one:
        oldest = (await one.next())["oldest_cursor"]
        await one.subscribe(snapshot=False, filter={"label": ["Hot"]})
        watches[0] = watching(B="Hot")
        stage.relay.watches_changed()
        await one.subscribe(cursor=oldest, filter={"label": ["Hot"], "provider": ["jupiter"]})
        assert accounts(await one.updates(3)) == ["B"] * 3
        await stage.teller.tell("A", "B")
        assert accounts(await one.updates(1)) == ["B"]


async def test_a_bound_token_gets_no_more_by_a_label(tmp_path, watches):
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    (tmp_path / "tokens.toml").write_text(f'[[token]]\nsha256 = "{digest}"\naccount = ["B"]\n')
    async with staged(tmp_path, watches=watches, tokens_file=str(tmp_path / "tokens.toml")) as stage:
        await stage.teller.tell("A", "B")
        async with stage.subscriber(additional_headers={"Authorization": "Bearer secret"}) as one:
            seen, result = await rows(one, filter={"tag": ["ops"]})
            assert (seen, result["filter"]) == (["B"], {"account": ["B"], "tag": ["ops"]})
            await stage.teller.tell("A", "B")
            assert accounts(await one.updates(1)) == ["B"]


@pytest.mark.parametrize(
    ("wanted", "note"),
    [
        ({"provider": ["jupitr"]}, "no provider jupitr: did you mean jupiter?"),
        ({"provider": ["x"]}, "no provider x: there is jupiter, ondo"),
        ({"chain": ["solana-901"]}, "no watch names chain solana-901: did you mean solana-900?"),
        ({"label": ["Hott"]}, "no watch has label Hott: did you mean Hot?"),
        ({"tag": ["zzz"]}, "no watch has tag zzz: there is eu, ops"),
        ({"provider": ["ondo"], "account": ["Z"]}, "no watch names account Z"),
        ({"provider": ["ondo"], "account": ["A"]}, "no balance that is watched or known matches all of it"),
        (
            {"provider": ["ondo"], "token": ["T"], "tag": ["op"]},
            "no watch names token T; no watch has tag op: did you mean ops?",
        ),
        ({"provider": ["ondo"], "label": ["Hot"]}, "no balance that is watched or known matches all of it"),
    ],
)
@pytest.mark.parametrize("params", [{}, {"snapshot": False}])
async def test_a_filter_that_matches_nothing_now_says_so_and_what_is_near(stage, watches, wanted, note, params):
    named = [*watches[0].named, Watched(Scope("jupiter", SOLANA)), Watched(Scope("ondo", "eip155:1", "0x" + "1" * 40))]
    watches[0] = WatchIndex(named)
    stage.relay.watches_changed()
    await stage.teller.tell("A")
    async with stage.subscriber() as one:
        result = await one.subscribe(filter=wanted, **params)
        assert (result["matches"], result["note"]) == (False, note)


@pytest.mark.parametrize(
    "wanted", [{}, {"account": ["watched"]}, {"provider": ["gone"]}, {"label": ["Hot"]}, {"chain": ["solana-900"]}]
)
@pytest.mark.parametrize("params", [{}, {"snapshot": False}])
async def test_a_filter_matches_what_is_watched_and_what_is_in_the_state(stage, wanted, params):
    await stage.teller.tell("C", provider="gone")
    async with stage.subscriber() as one:
        result = await one.subscribe(filter=wanted, **params)
        assert (result["matches"], "note" in result) == (True, False)


async def test_a_bound_token_learns_no_names_of_others_from_the_note(tmp_path, watches):
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    (tmp_path / "tokens.toml").write_text(f'[[token]]\nsha256 = "{digest}"\nprovider = ["mine", "jupiter"]\n')
    watches[0] = WatchIndex([*watches[0].named, Watched(Scope("others", "eip155:1"))])
    async with (
        staged(tmp_path, watches=watches, tokens_file=str(tmp_path / "tokens.toml")) as stage,
        stage.subscriber(additional_headers={"Authorization": "Bearer secret"}) as one,
    ):
        notes = [
            (await one.subscribe(filter=wanted, snapshot=False))["note"]
            for wanted in ({"provider": ["mine"]}, {"label": ["Hott"]}, {"chain": ["eip155:2"]})
        ]
    assert notes == [
        "no provider mine: there is jupiter",
        "no balance that is watched or known matches all of it",
        "no balance that is watched or known matches all of it",
    ]


async def test_an_empty_label_is_the_label_of_nothing_live_as_in_a_snapshot(stage):
    await stage.teller.tell("A", "C")
    async with stage.subscriber() as one, stage.subscriber() as two:
        assert (await rows(one, filter={"label": [""]}))[0] == []
        await one.subscribe(filter={"label": ["Hot"]}, snapshot=False)
        await two.subscribe(snapshot=False)
        await stage.teller.tell("C")  # has no label
        await stage.teller.tell("A")
        assert accounts(await one.updates(1)) == ["A"]
        assert accounts(await two.updates(2)) == ["C", "A"]


async def test_the_note_repeats_no_more_than_a_line_of_what_was_asked(stage):
    async with stage.subscriber() as one:
        result = await one.subscribe(filter={"provider": ["\x1b" + "x" * 60_000]})
        assert len(json.dumps(result["note"])) < 400


async def test_while_the_relay_is_told_of_other_watches_nobody_misses_anything(tmp_path, watches):
    """A hundred edits under a stream of changes: who wants everything gets everything, once."""
    async with staged(tmp_path, calm(), watches=watches) as stage:
        await stage.teller.tell("A", "B")
        async with stage.subscriber() as one, stage.subscriber() as two:
            await one.subscribe(snapshot=False)
            await two.subscribe(snapshot=False, filter={"tag": ["ops"]})
            async with anyio.create_task_group() as tasks:

                async def edit():
                    for number in range(100):
                        watches[0] = watching(A=(f"L{number}", "ops"), B=(f"L{number}", "ops"))
                        stage.relay.watches_changed()
                        await anyio.lowlevel.checkpoint()

                tasks.start_soon(edit)
                for _ in range(20):
                    await stage.teller.tell("A", "B")
            for each in (one, two):
                seen = [(event["account"], event["version"]) for event in (m["event"] for m in await each.updates(40))]
                assert sorted(seen) == [(account, version) for account in "AB" for version in range(1, 21)]
            await until(lambda: stage.relay.stats.sent == 80)


async def test_many_filters_are_resolved_in_slices_and_those_of_the_last_edit_hold(stage, watches, monkeypatch):
    monkeypatch.setattr(server, "SLICE_SECONDS", 0.0)  # one at a time, at most
    await stage.teller.tell("A", "B", "C")
    async with contextlib.AsyncExitStack() as stack:
        ones = [await stack.enter_async_context(stage.subscriber()) for _ in range(20)]
        for one in ones:
            await one.subscribe(snapshot=False, filter={"label": ["Hot"], "provider": ["jupiter"]})
        for account in "BCB":
            watches[0] = watching(**{account: "Hot"})
            stage.relay.watches_changed()
        await ones.pop().socket.close()
        await until(lambda: not stage.relay._unresolved)
        await stage.teller.tell("A", "B", "C")
        for one in ones:
            assert accounts([await one.push("update")]) == ["B"]
            assert (await one.ask("ping"))["result"]
            assert one.pushes == []
