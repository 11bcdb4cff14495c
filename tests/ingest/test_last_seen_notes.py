"""When sights are saved: every 15 s where there are any, and at the end."""

import anyio
import msgspec

from tests.polling import START, journal, virtually, wall
from watcher.ingest.last_seen_notes import SAVE, LastSeenNotes
from watcher.model.keys import Key
from watcher.model.last_seen import SeenNote
from watcher.model.readings import Answer, Reading, Times

X = Key("bank", "eip155:1", "a", "native")


def answer(amount, came=None):
    now = anyio.current_time() if came is None else came
    return Answer("bank", [Reading(X, amount, "base")], "none", 30.0, Times(now - 0.1, now, START + round(now * 1e6)))


def noted(committer):
    """Seconds: when the note was made, and the sights in it."""
    note = msgspec.msgpack.decode(committer.notes["seen:bank"], type=SeenNote)
    return (note.at - START) / 1e6, [(time - START) / 1e6 for time, _ in note.alone]


def test_sights_are_saved_as_long_as_there_are_new_ones_and_at_the_end(tmp_path):
    async def main():
        async with journal(tmp_path / "balances.db") as committer, anyio.create_task_group() as tasks:
            notes = LastSeenNotes("bank", committer, wall)
            tasks.start_soon(notes.save_forever)
            await anyio.sleep(1.0)
            await committer.accept(answer("5"))
            await committer.accept(answer("5"))
            await anyio.sleep(SAVE)
            await committer.flush()
            assert noted(committer) == (SAVE, [1.0])
            commits = committer.commits
            await anyio.sleep(10 * SAVE)
            assert committer.commits == commits  # nothing was read
            await committer.accept(answer("5"))
            notes.save_now()
            assert noted(committer)[1] == [1.0 + 11 * SAVE]
            await committer.flush()
            assert committer.commits == commits + 1
            tasks.cancel_scope.cancel()

    virtually(main)


def test_a_note_is_of_no_later_than_the_oldest_answer_that_waits_to_be_evaluated(tmp_path):
    async def main():
        async with journal(tmp_path / "balances.db") as committer, anyio.create_task_group() as tasks:
            notes = LastSeenNotes("bank", committer, wall)
            await anyio.sleep(100.0)
            await committer.accept(answer("5"))
            await committer.flush()
            committer._open = False  # as while the journal is down
            tasks.start_soon(committer.accept, answer("6", came=90.0))
            await anyio.sleep(10.0)
            assert committer.under_way.oldest("another") == float("inf")
            notes.save_now()
            assert noted(committer) == (90.0, [100.0])
            committer._open = True
            committer._advance()
            await anyio.wait_all_tasks_blocked()
            assert committer.under_way.oldest("bank") == float("inf")

    virtually(main)
