"""A poller that a reload retires: asks nothing more, and what is out counts for the watches that stay."""

import anyio
import msgspec
import pytest

from tests.polling import Api, fine, helius, journal, poller_of, tokenkit, virtually
from watcher.poller.assembly import schedules_of
from watcher.poller.checkpoints import LearnedRates, restore_rates


def retired(tmp_path, provider, stays, after=0.5):
    """Retired while all its first requests are out: its targets of which a balance is known then, and when it was asked."""
    api = Api(fine, delay=1.0)

    async def main():
        async with journal(tmp_path / "balances.db") as intake, anyio.create_task_group() as tasks:
            poller = poller_of(provider, api, intake)
            tasks.start_soon(poller.run)
            await anyio.sleep(after)
            assert poller._in_flight
            targets = provider.groups[0].targets
            poller.retire({targets[number] for number in stays})
            await poller.drained()
            left = len(api.arrivals)
            await anyio.sleep(30)
            assert len(api.arrivals) == left, "it asks on"
            tasks.cancel_scope.cancel()
            known = {account for _, account, _ in intake.ledger._store}
        return known, [target.scope.account for target in targets]

    return virtually(main)


def test_what_is_out_for_a_watch_that_is_gone_counts_no_more_and_for_the_others_it_does(tmp_path):
    known, accounts = retired(tmp_path, helius(2), stays=[0])
    assert known == {accounts[0]}


def test_one_that_is_removed_learns_nothing_more(tmp_path):
    assert retired(tmp_path, helius(2), stays=[])[0] == set()


def test_a_group_goes_on_with_what_was_learned_of_its_targets_wherever_that_stood():
    """The pairs of a config are gone, and with them their group: the listings, second before, are first now."""
    both, listings = tokenkit(2, listings=2), tokenkit(0, listings=2)
    pairs, accounts = schedules_of(both, seed=1, now=0.0)
    for now, schedule in ((1.0, pairs), (2.0, accounts)):
        for target in schedule.pick(now, 2):
            schedule.report(target, now + 1.0, changed=False)
    learned = LearnedRates(1, [schedule.save(10.0) for schedule in (pairs, accounts)])
    (alone,) = schedules_of(listings, seed=1, now=100.0)
    restore_rates([alone], msgspec.msgpack.encode(learned), 100.0, 1)
    assert alone.stalest(100.0)[1] == pytest.approx(7.0)


def test_hints_that_nobody_has_answered_and_what_their_source_has_earned_go_on():
    """Of four watches: one answered since its hint, one waiting, one asked and not answered, one that the new config lacks."""
    answered, waiting, flying, gone = helius(4).groups[0].targets
    (former,) = schedules_of(helius(4), seed=1, now=0.0)
    for target in former.pick(0.0, 4):
        former.report(target, 1.0, changed=False)
    for target in (answered, flying):
        former.hint(target, 2.0, "node")
    asked = set()
    for now in range(3, 20):
        (target,) = former.pick(now)
        asked.add(target)
        if target != flying:
            former.report(target, now + 0.5, changed=target == answered)
    assert asked >= {answered, flying}
    for target in (waiting, gone):
        former.hint(target, 20.0, "node")
    (heir,) = schedules_of(helius(3), seed=1, now=20.0)
    heir.inherit([former], 20.0)
    assert heir.hint_scores["node"].hits == 1
    hinted = {target for now in range(21, 24) for target in heir.pick(now) if heir.hinted_since(target) is not None}
    assert hinted == {flying, waiting}


def test_of_two_schedules_that_go_on_with_one_each_knows_its_source_and_none_counts_a_hint_twice():
    """A watch of another kind came: the pairs and the listings have a schedule each."""
    (former,) = schedules_of(tokenkit(3), seed=1, now=0.0)
    for now in range(6):
        for target in former.pick(now, 3):
            former.report(target, now, changed=now > 1)
            former.hint(target, now, "node")
    counted = former.hint_scores["node"]
    heirs = schedules_of(tokenkit(3, listings=1), seed=1, now=6.0)
    for heir in heirs:
        heir.inherit([former], 6.0)
    assert {heir.hint_scores["node"].precision for heir in heirs} == {counted.precision}
    assert sum(heir.hint_scores["node"].hits for heir in heirs) == counted.hits > 0
