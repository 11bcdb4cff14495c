"""How many bytes of bodies a second one sender gets through, and all of them together, on a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.relay.http.body_budget import (
    ALL_BYTES,
    ALL_BYTES_PER_SECOND,
    BYTES,
    BYTES_PER_SECOND,
    FEW,
    FEW_OF_ALL,
    BodyBudget,
)
from watcher.relay.http.hint_routes import AT_ONCE_EACH, HINTS_BYTES

THOUSAND = 190_000
"""Bytes of a thousand hints that name provider, chain, account and token."""
ONE = 150
"""Bytes of a body with one hint."""
TICK = 0.01


class Post:
    """Bodies that are sent as soon as they may be, or at a pace."""

    def __init__(self, budget, sender, size, every=TICK):
        self.budget = budget
        self.sender = sender
        self.size = size
        self.every = every
        self.next = 0.0
        self.came = self.refused = 0

    def tick(self, now):
        while self.next <= now:
            self.next += self.every
            if self.budget.take(self.sender, self.size, now):
                self.refused += 1
            else:
                self.came += self.size


def run(seconds, *posts):
    for tick in range(int(seconds / TICK)):
        for post in posts:
            post.tick(tick * TICK)


@pytest.mark.parametrize(("size", "a_second"), [(ONE, 100), (THOUSAND, 1), (THOUSAND, 5), (THOUSAND, 10)])
def test_an_honest_sender_never_meets_its_budget(size, a_second):
    bot = Post(BodyBudget(), "bot", size, 1 / a_second)
    run(120, bot)
    assert bot.refused == 0
    assert bot.came >= 119 * a_second * size


def test_as_many_of_the_largest_as_are_taken_of_one_address_may_come_at_once():
    budget = BodyBudget()
    assert not any(budget.take("bot", HINTS_BYTES, 0.0) for _ in range(AT_ONCE_EACH))


def test_a_flood_of_big_bodies_gets_its_rate_and_the_others_all_they_send():
    budget = BodyBudget()
    flood = Post(budget, "flood", HINTS_BYTES, TICK / 4)
    bots = [Post(budget, "a", ONE, 0.01), Post(budget, "b", THOUSAND, 0.2), Post(budget, "c", THOUSAND, 0.1)]
    run(60, flood, *bots)
    assert [bot.refused for bot in bots] == [0, 0, 0]
    assert flood.refused > 0.9 * 60 * 400
    assert 60 * BYTES_PER_SECOND <= flood.came <= BYTES + 60 * BYTES_PER_SECOND + HINTS_BYTES


def test_many_floods_share_what_there_is_for_all_and_who_sends_little_is_served_beside_them():
    budget = BodyBudget()
    floods = [Post(budget, f"flood {number}", HINTS_BYTES) for number in range(100)]
    bots = [Post(budget, "a", ONE, 0.01), Post(budget, "b", THOUSAND, 0.5)]
    run(30, *floods, *bots)
    assert [bot.refused for bot in bots] == [0, 0]
    came = sum(post.came for post in floods)
    assert 29 * ALL_BYTES_PER_SECOND <= came <= ALL_BYTES + FEW_OF_ALL + 30 * ALL_BYTES_PER_SECOND + HINTS_BYTES


def test_strangers_use_up_nothing_of_what_tokens_may_send():
    """Anybody may post to the webhook's door, from as many addresses as there are."""
    budget = BodyBudget()
    strangers = [Post(budget, f"address {number}", 65536, 0.03) for number in range(100)]
    bot = Post(budget, b"token", THOUSAND, 0.1)
    run(30, *strangers, bot)
    assert sum(post.refused for post in strangers) > 0
    assert bot.refused == 0


def test_many_who_send_little_each_get_no_more_than_there_is_for_all():
    budget = BodyBudget()
    posts = [Post(budget, number.to_bytes(2), FEW // 4, 0.05) for number in range(200)]
    run(30, *posts)
    came = sum(post.came for post in posts)
    assert came <= ALL_BYTES + FEW_OF_ALL + 30 * ALL_BYTES_PER_SECOND + HINTS_BYTES
    assert sum(post.refused for post in posts) > 0


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.sampled_from("ab"), st.integers(1, HINTS_BYTES), st.floats(0, 1)), max_size=80
    )
)
def test_what_has_come_of_a_sender_is_never_more_than_its_budget_and_a_body(steps):
    """Each step: seconds later, whose, how long, and how much of it has come when it ends."""
    budget, now = BodyBudget(), 0.0
    came = {"a": 0, "b": 0}
    for later, sender, size, part in steps:
        now += later
        if not budget.take(sender, size, now):
            came[sender] += (arrived := int(size * part))
            budget.give_back(sender, size - arrived)
    assert max(came.values()) <= BYTES + now * BYTES_PER_SECOND + HINTS_BYTES


def test_what_did_not_come_is_given_back_to_the_sender_and_to_all():
    budget = BodyBudget()
    for number in range(10_000):
        sender = f"{number % 10}"
        assert budget.take(sender, HINTS_BYTES, 0.0) == 0
        budget.give_back(sender, HINTS_BYTES - ONE)


def test_who_waits_as_long_as_it_was_told_is_served():
    budget = BodyBudget()
    while not (seconds := budget.take("bot", HINTS_BYTES, 0.0)):
        pass
    assert 0 < seconds <= HINTS_BYTES / BYTES_PER_SECOND
    assert budget.take("bot", HINTS_BYTES, seconds * 0.99) > 0
    assert budget.take("bot", HINTS_BYTES, seconds) == pytest.approx(0)


def test_whoever_may_send_all_again_is_forgotten():
    budget = BodyBudget()
    for number in range(5000):
        budget.take(f"{number}", ONE, number * TICK)
        assert len(budget) <= 2
    for number in range(20):
        budget.take(f"large {number}", HINTS_BYTES, 100.0)
    assert len(budget) == 20
    budget.take("one", ONE, 101.0)
    assert len(budget) == 1
