"""What every journal must do, whichever it is. For a test module; needs pytest, which the wheel does not ask for.

    class TestMine(JournalConformance):
        @pytest.fixture
        async def journal(self, tmp_path): ...   # made by `init`, and empty
        @pytest.fixture
        async def twin(self, journal): ...       # another object on the same log, as a second process has it
        @pytest.fixture
        async def hasty(self, journal): ...      # the same; takes a snapshot away at once from whoever reads it slowly

with `pytestmark = pytest.mark.anyio`, and `pytest.register_assert_rewrite("watcher.testing")` in conftest.py.
"""

import anyio
import msgspec
import pytest

from watcher.journal import Batch, Fenced, Journal, Reader, Rejected
from watcher.model.events import JSON, BalanceChanged, ProviderHealth
from watcher.model.keys import Filter, Key
from watcher.model.log import Commit, Cursor, Expired, SnapshotRevoked
from watcher.model.times import format_rfc3339
from watcher.testing.crossing_conformance import CrossingConformance
from watcher.testing.journal_samples import (
    BEGAN,
    PATIENCE,
    baseline,
    baselines,
    by_key,
    change,
    collect,
    events,
    health,
    opened,
    read,
    reading,
    snapshot,
)


class JournalConformance(CrossingConformance):
    """Asynchronous tests: the module that inherits sets `pytestmark = pytest.mark.anyio`."""

    async def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        async with opened(journal) as (_, restored):
            assert restored.states == []
            assert restored.notes == {}

    async def test_init_may_be_repeated_and_check_passes_after_it(self, journal: Journal) -> None:
        assert "\n" not in await journal.init()
        await journal.check()

    async def test_what_was_committed_is_restored_by_the_next_open(self, journal: Journal, twin: Journal) -> None:
        first, second = baseline("account1", 5), baseline("account2", 2**256 - 1)
        later = change(first, 7)
        async with opened(journal) as (writer, _):
            await writer.commit(Batch([first, second], {"listing:bank:abc": b"1"}))
            await writer.commit(Batch([later], {"listing:bank:abc": b"2", "limiter:bank": b"\x00\xff"}))
        async with opened(twin) as (_, restored):
            assert by_key(restored.states) == by_key([later.state, second.state])
            assert restored.notes == {"listing:bank:abc": b"2", "limiter:bank": b"\x00\xff"}

    async def test_a_record_that_is_too_large_is_named_and_what_came_with_it_can_be_committed_without_opening_again(
        self, journal: Journal, twin: Journal
    ) -> None:
        good, first = change(baseline("account1", 5), 6), baseline("account2", 5)
        bad = msgspec.structs.replace(first, state=msgspec.structs.replace(first.state, symbol="s" * 3_000_000))
        async with opened(journal) as (writer, _):
            for _ in range(2):
                with pytest.raises(Rejected) as refused:
                    await writer.commit(Batch([good, bad], {"listing:bank:abc": b"1"}))
                assert list(refused.value.records) == [str(bad.state.key)]
            await writer.commit(Batch([good], {"schedule:bank": b"0" * 1_500_000}))
        async with opened(twin) as (_, restored):
            assert by_key(restored.states) == by_key([good.state])
            assert {name: len(note) for name, note in restored.notes.items()} == {"schedule:bank": 1_500_000}

    @pytest.mark.parametrize("part", [{"token": "a/b"}, {"kind": "staked"}])
    async def test_a_key_that_cannot_be_read_again_is_refused(
        self, journal: Journal, twin: Journal, part: dict[str, str]
    ) -> None:
        good, first = change(baseline("account1", 5), 6), baseline("account2", 5)
        bad = msgspec.structs.replace(first, state=msgspec.structs.replace(first.state, **part))
        async with opened(journal) as (writer, _):
            with pytest.raises(Rejected) as refused:
                await writer.commit(Batch([good, bad]))
            assert list(refused.value.records) == [str(bad.state.key)]
            await writer.commit(Batch([good]))
        async with opened(twin) as (_, restored):
            assert by_key(restored.states) == by_key([good.state])

    async def test_whoever_opens_the_log_gets_the_epoch_of_its_cursors(self, journal: Journal, twin: Journal) -> None:
        async with opened(journal) as (writer, first), reading(journal) as reader:
            again = await writer.open()
            cursor, _ = await snapshot(reader, Filter())
        async with opened(twin) as (_, second):
            assert {first.epoch, again.epoch, second.epoch} == {cursor.epoch}

    async def test_a_commit_may_carry_notes_alone(self, journal: Journal, twin: Journal) -> None:
        async with opened(journal) as (writer, _):
            await writer.commit(Batch([], {"limiter:bank": b"stamps"}))
        async with opened(twin) as (_, restored):
            assert restored.notes == {"limiter:bank": b"stamps"}

    async def test_a_note_of_three_megabytes_comes_back_whole_and_may_shrink_and_grow(
        self, journal: Journal, twin: Journal
    ) -> None:
        large = bytes(range(251)) * 12_000
        async with opened(journal) as (writer, _), reading(twin) as reader:
            for note in (large, b"small", large[::-1], large[:700_000], large[1:]):
                await writer.commit(Batch([], {"schedule:bank": note, "schedule:bank2": b"another"}))
                expected = {"schedule:bank": note, "schedule:bank2": b"another"}
                assert await reader.notes() == expected
                assert (await writer.open()).notes == expected

    async def test_a_reader_sees_the_notes_that_are_committed_and_fences_nobody(self, journal: Journal) -> None:
        async with opened(journal) as (writer, _):
            await writer.commit(Batch([], {"schedule:bank": b"old", "limiter:bank": b"stamps"}))
            async with reading(journal) as reader:
                assert await reader.notes() == {"schedule:bank": b"old", "limiter:bank": b"stamps"}
                await writer.commit(Batch([], {"schedule:bank": b"new"}))
                assert (await reader.notes())["schedule:bank"] == b"new"

    async def test_a_follower_gets_every_event_once_and_in_order(self, journal: Journal) -> None:
        rows = [baseline(f"account{number}", 0) for number in range(3)]
        committed: list[BalanceChanged] = []
        async with opened(journal) as (writer, _), reading(journal) as reader:
            start = (await reader.bounds()).head
            await writer.commit(Batch(rows))
            for amount in range(1, 21):
                rows = [change(row, amount) for row in rows]
                committed += [row.event for row in rows if row.event is not None]
                await writer.commit(Batch(rows))
            found = await read(reader, start, len(committed))
        assert [JSON.event(event.data) for event in found] == committed
        assert [event.version for event in found] == [event.version for event in committed]
        assert [event.key for event in found] == [event.key for event in committed]
        positions = [event.position for event in found]
        assert positions == sorted(set(positions))
        assert [format_rfc3339(event.observed_at) for event in found] == [event.observed_at for event in committed]

    async def test_a_cursor_resumes_behind_the_last_event_sent(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor = (await reader.bounds()).head
            await writer.commit(Batch([row]))
            for amount in range(1, 10):
                row = change(row, amount)
                await writer.commit(Batch([row]))
            everything = await read(reader, cursor, 9)
            for place, event in enumerate(everything[:-1], 1):
                cursor = cursor.after(event.partition, event.position)
                async with reading(twin) as another:
                    rest = await read(another, Cursor.parse(str(cursor)), len(everything) - place)
                assert rest == everything[place:]

    async def test_the_head_is_behind_everything_and_can_be_followed(self, journal: Journal) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch([row]))
            await writer.commit(Batch([row := change(row, 1)]))
            bounds = await reader.bounds()
            assert bounds.head.reaches(bounds.oldest)
            assert len(await read(reader, bounds.oldest, 1)) == 1
            await writer.commit(Batch([row := change(row, 2)]))
            assert [event.version for event in await read(reader, bounds.head, 1)] == [2]

    async def test_a_follower_that_waits_is_woken_by_a_commit(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 0)
        found = []
        async with opened(journal) as (writer, _), reading(journal) as near, reading(twin) as far:
            await writer.commit(Batch([row]))
            cursor = (await near.bounds()).head

            async def follow(reader: Reader) -> None:
                found.append(await read(reader, cursor, 2))

            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(follow, near)
                    tasks.start_soon(follow, far)
                    for amount in (1, 2):
                        await anyio.wait_all_tasks_blocked()
                        row = change(row, amount)
                        await writer.commit(Batch([row]))
        assert found[0] == found[1]
        assert [event.version for event in found[0]] == [1, 2]

    async def test_a_snapshot_and_what_follows_its_cursor_are_the_whole_state(
        self, journal: Journal, twin: Journal
    ) -> None:
        rows = [baseline(f"account{number}", 0) for number in range(5)]
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch(rows))
            rows = [change(row, 10) for row in rows]
            await writer.commit(Batch(rows))
            cursor, states = await snapshot(reader, Filter())
            assert by_key(states) == by_key(row.state for row in rows)
            newcomer = baseline("account99", 3)
            rows = [change(row, 20) for row in rows]
            await writer.commit(Batch([newcomer]))
            await writer.commit(Batch(rows))
            commits = await collect(reader, cursor, lambda found: len(events(found)) == 5 and baselines(found))
        assert [event.version for event in events(commits)] == [2] * 5
        assert by_key(baselines(commits)) == by_key([newcomer.state])

    async def test_a_baseline_comes_before_the_first_change_of_its_balance(self, journal: Journal) -> None:
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor, _ = await snapshot(reader, Filter())
            row = baseline("account1", 0)
            for batch in ([row], [change(row, 1)]):
                await writer.commit(Batch(batch))
            commits = await collect(reader, cursor, lambda found: bool(events(found)))
        versions = [(state.version, "state") for commit in commits for state in commit.baselines]
        assert versions in ([], [(0, "state")])  # a reader that comes late may skip what the event says as well
        assert [event.version for event in events(commits)] == [1]

    async def test_the_cursor_of_a_commit_is_the_place_behind_it(self, journal: Journal) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor = (await reader.bounds()).head
            await writer.commit(Batch([row]))
            await writer.commit(Batch([row := change(row, 1)]))
            commits = await collect(reader, cursor, lambda found: bool(events(found)))
            bounds = await reader.bounds()
            assert commits[-1].cursor.epoch == bounds.head.epoch
            assert bounds.head.reaches(commits[-1].cursor)
            await writer.commit(Batch([row := change(row, 2)]))
            assert [event.version for event in await read(reader, commits[-1].cursor, 1)] == [2]

    async def test_a_snapshot_holds_what_its_filter_wants(self, journal: Journal) -> None:
        rows = [baseline(f"account{number}", number) for number in range(6)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            await writer.commit(Batch(rows))
            wanted = tuple(row.state.account for row in rows[2:4])
            _, some = await snapshot(reader, Filter(account=wanted))
            _, none = await snapshot(reader, Filter(account=wanted, provider=("elsewhere",)))
            _, everything = await snapshot(reader, Filter(chain=("eip155:1",), token=(rows[0].state.token, "x")))
        assert sorted(state.account for state in some) == sorted(wanted)
        assert len(none) == 0
        assert len(everything) == 6

    async def test_a_snapshot_is_of_one_moment_whatever_is_committed_between_its_pages(
        self, journal: Journal, twin: Journal
    ) -> None:
        rows = [baseline(f"account{number}", 0) for number in range(20)]
        async with opened(journal) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch(rows[:12]))
            assert await reader.glance(Filter(), 11) is None
            first = await reader.snapshot(Filter())
            some = await reader.snapshot(Filter(account=tuple(row.state.account for row in rows[8:])))
            assert (first.rows, some.rows) == (12, 4)
            found = [*await first.page(5), *await some.page(1)]
            rows = [change(row, 1) for row in rows[:12]] + rows[12:]
            await writer.commit(Batch(rows))
            for each in (first, some):
                while page := await each.page(5):
                    found += page
            second = await reader.snapshot(Filter())
            assert second.rows == 20
            assert second.cursor.reaches(first.cursor)
            assert second.cursor != first.cursor
            for each in (first, some, second, second):
                each.close()
            followed = await read(reader, first.cursor, 12)
        assert len(found) == 16
        assert {state.version for state in found} == {0}
        assert {event.version for event in followed} == {1}

    async def test_a_snapshot_that_is_held_for_too_long_is_taken_away(self, journal: Journal, hasty: Journal) -> None:
        async with opened(journal) as (writer, _), reading(hasty) as reader:
            await writer.commit(Batch([baseline(f"account{number}", 0) for number in range(4)]))
            held = await reader.snapshot(Filter())
            assert held.rows == 4
            cursor = (await reader.bounds()).head
            await writer.commit(Batch([change(baseline("account0", 0), 1)]))
            await read(reader, cursor, 1)  # whoever follows the log looks after them
            with anyio.fail_after(PATIENCE):
                while not held.over:
                    with anyio.move_on_after(0.05):
                        await collect(reader, (await reader.bounds()).head, bool)
            with pytest.raises(SnapshotRevoked):
                await held.page(2)
            held.close()
            held.close()
            again = await reader.snapshot(Filter())
            assert again.rows == 4
            again.close()

    async def test_the_newer_of_two_writers_stays_and_the_older_is_fenced(
        self, journal: Journal, twin: Journal
    ) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (old, _):
            await old.commit(Batch([row]))
            async with opened(twin) as (new, restored), reading(twin) as reader:
                assert by_key(restored.states) == by_key([row.state])
                head = (await reader.bounds()).head
                with pytest.raises(Fenced), anyio.fail_after(PATIENCE):
                    await old.commit(Batch([change(row, 666)]))
                later = change(row, 1)
                await new.commit(Batch([later]))
                assert [JSON.event(event.data) for event in await read(reader, head, 1)] == [later.event]
                _, states = await snapshot(reader, Filter())
        assert by_key(states) == by_key([later.state])

    async def test_nothing_is_in_doubt_after_a_release_and_only_until_the_next_one_opens(
        self, journal: Journal, twin: Journal
    ) -> None:
        found = []
        for place, in_doubt in ((journal, 0.0), (twin, None), (journal, 0.0), (twin, 1.5), (journal, 0.0)):
            async with opened(place) as (writer, restored):
                found.append(restored.released)
                await writer.commit(Batch([], {"limiter:bank": b"stamps"}))
                if in_doubt is not None:
                    await writer.release(in_doubt=in_doubt)
                doubt = restored.doubt
        assert found == [True, True, False, True, False]
        assert doubt >= 1.5

    async def test_what_the_writer_itself_did_is_in_no_doubt_when_it_opens_again(
        self, journal: Journal, twin: Journal
    ) -> None:
        async with opened(journal) as (writer, first):
            await writer.commit(Batch([], {"limiter:bank": b"stamps"}))
            again = await writer.open()
            await writer.commit(Batch([], {"limiter:bank": b"more"}))
        async with opened(twin) as (_, second):
            assert (again.released, second.released) == (True, False)
            assert first.fenced_at <= again.fenced_at <= second.fenced_at

    async def test_a_writer_that_was_fenced_releases_nothing(self, journal: Journal, twin: Journal) -> None:
        async with opened(journal) as (old, _):
            async with opened(twin):
                with pytest.raises(Fenced), anyio.fail_after(PATIENCE):
                    await old.release()
            async with opened(twin) as (_, restored):
                assert not restored.released

    async def test_a_writer_may_open_again_and_go_on(self, journal: Journal) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _):
            await writer.commit(Batch([row]))
            for amount in range(1, 4):
                restored = await writer.open()
                assert by_key(restored.states) == by_key([row.state])
                row = change(row, amount)
                await writer.commit(Batch([row]))

    async def test_readers_disturb_no_writer(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 0)
        async with opened(journal) as (writer, _):
            for amount in range(1, 4):
                async with reading(twin) as reader:
                    await snapshot(reader, Filter())
                    await writer.commit(Batch([row]))
                    row = change(row, amount)

    async def test_a_cursor_of_another_log_is_refused(self, journal: Journal) -> None:
        async with reading(journal) as reader:
            head = (await reader.bounds()).head
            stranger = Cursor("00" + head.epoch, head.positions)
            with pytest.raises(Expired) as refusal:
                await collect(reader, stranger, bool)
        assert refusal.value.reason == "epoch_changed"

    async def test_a_cursor_beyond_the_head_is_refused(self, journal: Journal) -> None:
        async with reading(journal) as reader:
            head = (await reader.bounds()).head
            beyond = Cursor(head.epoch, (head.positions[0] + 1000, *head.positions[1:]))
            with pytest.raises(Expired) as refusal:
                await collect(reader, beyond, bool)
        assert refusal.value.reason == "ahead"

    async def test_cursors_outlive_writers(self, journal: Journal, twin: Journal) -> None:
        row = baseline("account1", 0)
        async with reading(journal) as reader:
            cursor = (await reader.bounds()).head
        async with opened(journal) as (writer, _):
            await writer.commit(Batch([row]))
            await writer.commit(Batch([row := change(row, 1)]))
        async with opened(twin) as (writer, _), reading(twin) as reader:
            await writer.commit(Batch([change(row, 2)]))
            assert [event.version for event in await read(reader, cursor, 2)] == [1, 2]

    async def test_health_reaches_a_follower_here_and_in_another_process(self, journal: Journal, twin: Journal) -> None:
        async with opened(journal), reading(journal) as near, reading(twin) as far:
            cursor = (await near.bounds()).head
            for time in range(3):
                await journal.heartbeat([health("bank", BEGAN + time), health("other")])
            for reader in (near, far):
                latest: dict[str, ProviderHealth] = {}

                def known(commits: list[Commit], latest: dict[str, ProviderHealth] = latest) -> bool:
                    latest.update((one.provider, one) for commit in commits for one in commit.health)
                    return latest.get("bank") == health("bank", BEGAN + 2) and "other" in latest

                await collect(reader, cursor, known)

    async def test_a_full_group_of_a_thousand_rows_comes_back_whole(self, journal: Journal, twin: Journal) -> None:
        rows = [baseline(f"account{number}", number) for number in range(1000)]
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor = (await reader.bounds()).head
            await writer.commit(Batch(rows))
            rows = [change(row, int(row.state.amount) + 1) for row in rows]
            await writer.commit(Batch(rows))
            found = await read(reader, cursor, 1000)
            assert sorted(event.key for event in found) == sorted(row.state.key for row in rows)
        async with opened(twin) as (_, restored):
            assert by_key(restored.states) == by_key(row.state for row in rows)

    async def test_keys_come_back_as_they_went(self, journal: Journal) -> None:
        row = baseline("account1", 1)
        async with opened(journal) as (writer, _), reading(journal) as reader:
            cursor = (await reader.bounds()).head
            await writer.commit(Batch([row]))
            await writer.commit(Batch([change(row, 2)]))
            (event,) = await read(reader, cursor, 1)
        assert event.key == Key.parse(str(row.state.key))
        assert event.partition == 0
