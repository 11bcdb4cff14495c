"""When a balance was first known and when it was last seen, of each balance, and never more than is true."""

import random

import msgspec
import pytest

from tests.ledger.test_ledger import ACCOUNT, EPOCH, Desk, X, Y, at, clock, says
from watcher.ledger import Ledger, last_seen
from watcher.model.keys import Key
from watcher.model.last_seen import SETTLED, LastSeen, SeenNote
from watcher.model.times import parse_rfc3339
from watcher.runtime.slicing import run_at_once

SECOND = 1_000_000


def noted(desk, at=None):
    """The note of the provider, made now."""
    return run_at_once(desk.ledger.seen_note("p", int(desk.now * 1e6) if at is None else at))


def seen(desk, key=X, *, note=None, now=10**12):
    """Seconds: when the note says that the balance was last seen."""
    notes = {"seen:p": noted(desk) if note is None else note}
    return LastSeen(notes, now).of(desk.states[key]) / SECOND


class TestFirstKnown:
    def test_a_baseline_is_known_from_its_own_time_on_and_its_changes_keep_that(self):
        desk = Desk("none")
        desk.hear(says("5"))
        assert (desk.states[X].first_observed_at, desk.states[X].known_since) == (None, clock(10))
        for amount in ("6", "7"):
            desk.hear(says(amount))
            assert desk.states[X].known_since == desk.states[X].first_observed_at == clock(10)

    @pytest.mark.parametrize("again", ["restart", "reopen"])
    def test_it_is_restored(self, again):
        desk = Desk("none")
        desk.hear(says("5"))
        getattr(desk, again)()
        desk.hear(says("6"))
        getattr(desk, again)()
        desk.hear(says("8"), says("9", Y))
        desk.hear(says("8"), says("9", Y))
        assert [desk.states[key].known_since for key in (X, Y)] == [clock(10), clock(30)]
        assert desk.states[X].version == 2

    def test_a_baseline_of_which_nobody_knows_whether_it_is_committed_keeps_its_time(self):
        desk = Desk("none")
        desk.ledger.evaluate(desk.answer(says("5")))
        desk.write()
        desk.reopen()
        desk.hear(says("6"))
        assert desk.states[X].known_since == clock(10)

    def test_what_appears_in_a_listing_is_known_since_the_last_one_without_it(self):
        desk = Desk("none", listing=ACCOUNT)
        for _ in range(3):
            desk.hear(says("5"))
        for amount in ("7", "8"):
            desk.hear(says("5"), says(amount, Y))
        assert [event.version for event in desk.events] == [1, 2]
        assert desk.events[0].previous_observed_at == clock(30)
        assert desk.states[Y].known_since == clock(30)

    def test_a_version_before_has_noted_nothing_and_nothing_is_made_up(self):
        desk = Desk("none")
        desk.hear(says("5"))
        desk.hear(says("6"))
        desk.states[X] = msgspec.structs.replace(desk.states[X], first_observed_at=None)
        desk.restart()
        desk.hear(says("7"))
        desk.hear(says("7"))
        assert (desk.states[X].version, desk.states[X].known_since) == (2, None)


class TestLastSeen:
    def test_each_reading_that_repeats_what_is_known_counts_for_its_own_balance_alone(self):
        desk = Desk("none")
        desk.hear(says("5"), says("1", Y))
        desk.hear(says("5"))
        desk.hear(says("5"))
        assert (seen(desk), seen(desk, Y)) == (30.0, 10.0)

    def test_a_candidate_and_what_is_stale_count_for_nothing(self):
        desk = Desk("strict")
        desk.hear(at(5, "5"))
        desk.hear(at(4, "4"))  # stale
        assert seen(desk) == 10.0
        desk = Desk("none", listing=ACCOUNT)
        for _ in range(3):
            desk.hear(says("5"), says("1", Y))
        desk.hear(says("5"))  # Y is missing: a candidate
        assert (seen(desk), seen(desk, Y)) == (40.0, 30.0)

    def test_what_is_pending_or_in_flight_is_no_sight_of_what_is_committed(self):
        desk = Desk("none")
        desk.hear(says("5"))
        desk.hear(says("5"))
        desk.ledger.evaluate(desk.answer(says("6")))
        desk.ledger.evaluate(desk.answer(says("6")))
        assert seen(desk) == 20.0
        desk.ledger.take()
        assert seen(desk) == 20.0
        desk.ledger.evaluate(desk.answer(says("7")))
        assert seen(desk) == 20.0
        desk.ledger.restore(desk.states.values(), {}, EPOCH)
        assert seen(desk) == 20.0

    def test_a_note_of_before_a_commit_says_nothing_of_what_was_committed_since(self):
        desk = Desk("none")
        desk.hear(says("5"))
        note = noted(desk)
        desk.hear(says("6"))
        assert seen(desk, note=note) == 20.0

    def test_it_is_restored_and_noted_again_and_is_the_last_sight_of_the_old_amount(self):
        desk = Desk("none")
        for _ in range(3):
            desk.hear(says("5"), says("1", Y))
        desk.notes["seen:p"] = noted(desk)
        desk.restart()
        assert seen(desk) == 30.0
        desk.hear(says("6"))
        desk.hear(says("6"))
        assert (desk.events[-1].previous_observed_at, desk.events[-1].observed_at) == (clock(30), clock(40))
        assert seen(desk, Y) == 30.0

    def test_while_the_journal_refuses_a_change_nothing_false_is_noted(self):
        desk = Desk("none")
        desk.hear(says("5"))
        desk.ledger.evaluate(desk.answer(says("6")))
        desk.ledger.take()
        making = desk.ledger.seen_note("p", int(desk.now * 1e6))
        next(making)
        desk.ledger.rejected([X])
        assert run_at_once(making) is None
        assert seen(desk) == 10.0

    def test_a_note_that_cannot_be_read_and_a_time_that_has_not_come_say_nothing(self):
        desk = Desk("none")
        desk.hear(says("5"))
        desk.hear(says("5"))
        assert seen(desk, note=b"\xc1") == seen(desk, now=15 * SECOND) == 10.0
        assert seen(desk, now=20 * SECOND) == 20.0


def many(count, token="x"):
    return [Key("p", "c", f"a{number}", token) for number in range(count)]


class TestLargeProviders:
    """Of which not every balance has a time of its own."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(last_seen, "MOST_ALONE", 50)
        monkeypatch.setattr(last_seen, "MOST_LATE", 20)
        monkeypatch.setattr(last_seen, "MOST_FLOORS", 3)

    def test_all_of_a_token_share_the_earliest_time_and_those_that_are_far_behind_have_their_own(self):
        desk, keys = Desk("none"), many(200)
        desk.hear(*(says("5", key) for key in keys))
        for number in range(60, 66):
            desk.hear(*(says("5", key) for key in keys[10:]), after=10.0 if number > 60 else 100.0)
        desk.hear(*(says("5", key) for key in keys[100:]))
        assert desk.now == 170.0
        assert [seen(desk, keys[number]) for number in (0, 9, 10, 99, 100, 199)] == [
            10.0,
            10.0,
            160.0,
            160.0,
            160.0,
            160.0,
        ]

    def test_a_token_that_nobody_reads_any_more_holds_up_no_other(self):
        desk, gone, read = Desk("none"), many(100), many(100, "y")
        desk.hear(*(says("5", key) for key in (*gone, *read)))
        desk.hear(*(says("5", key) for key in read), after=500.0)
        assert (seen(desk, gone[0]), seen(desk, read[0])) == (10.0, 510.0)

    def test_what_is_said_of_all_is_not_said_of_a_balance_that_was_not_known_then(self):
        desk, keys = Desk("none"), many(100)
        desk.hear(*(says("5", key) for key in keys[1:]))
        desk.hear(*(says("5", key) for key in keys[1:]), after=100.0)
        desk.now -= 1
        late = desk.answer(says("7", keys[0]), after=0.0)  # it came before the note was made, and is evaluated later
        desk.now += 1
        note = noted(desk)
        desk.ledger.evaluate(late)
        desk.commit()
        assert seen(desk, keys[0], note=note) == 109.0
        assert seen(desk, keys[1], note=note) == 110.0

    def test_it_is_never_ahead_of_the_truth_and_says_all_that_it_may(self):
        dice, desk = random.Random(3), Desk("none")
        keys = [key for token in ("x", "y", "z", "v", "w") for key in many(40, token)]
        true = dict.fromkeys(keys, 0.0)
        for _ in range(300):
            some = dice.sample(keys, 60)
            amount = str(dice.randrange(3)) if dice.random() < 0.2 else "5"
            desk.hear(*(says(amount, key) for key in some), after=dice.choice((1.0, 100.0)))
            for key in some:  # as the record says it, which other tests hold to
                true[key] = parse_time(desk.ledger.get(key).last_seen)
            note = noted(desk)
            found = {key: seen(desk, key, note=note) for key in desk.states}
            assert all(time <= max(true[key], committed(desk, key)) for key, time in found.items())
            assert all(time >= committed(desk, key) for key, time in found.items())
        decoded = msgspec.msgpack.decode(note, type=SeenNote)
        assert len(decoded.floors) == 4
        assert 0 < sum(len(digests) for _, digests in decoded.alone) <= 8 * 20


def parse_time(seen):
    return parse_rfc3339(seen) / SECOND if isinstance(seen, str) else seen.observed_at / SECOND


def committed(desk, key):
    return parse_rfc3339(desk.states[key].observed_at) / SECOND


def test_a_balance_of_which_nothing_is_known_is_in_no_note():
    ledger = Ledger()
    ledger.restore([], {}, EPOCH)
    assert run_at_once(ledger.seen_note("p", 5)) == msgspec.msgpack.encode(SeenNote(5, [], {}))


def test_balances_of_another_provider_are_in_a_note_of_its_own():
    desk = Desk("none")
    desk.hear(says("5"))
    other = msgspec.structs.replace(X, provider="q")
    desk.states[other] = msgspec.structs.replace(desk.states[X], provider="q")
    desk.hear(says("5"))
    assert seen(desk, other) == 10.0
    assert SETTLED > 30 * SECOND
