"""A poller that a reload retires: asks nothing more, and what is out counts for the watches that stay."""

import anyio

from tests.polling import Api, fine, helius, journal, poller_of, virtually


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
