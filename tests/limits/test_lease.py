from math import inf

from watcher.limits.lease import LATE, Lease


def lease_at(now):
    return Lease(lambda: now[0])


def test_nothing_leaves_before_it_begins_nor_without_a_commit():
    now = [100.0]
    lease = lease_at(now)
    assert not lease.valid()
    assert lease.begins_in() == inf
    lease.begin(102.0)
    lease.renew(100.0)
    assert not lease.valid()
    assert lease.begins_in() == 2.0
    now[0] = 102.0
    assert not lease.valid(), "the commit is too old by now"
    lease.renew(101.9)
    assert lease.valid()
    assert lease.begins_in() == 0.0


def test_opened_again_it_begins_no_earlier():
    lease = lease_at([0.0])
    lease.begin(2.0)
    lease.begin(1.0)
    assert lease.begins_in() == 2.0
    lease.begin(3.0)
    assert lease.begins_in() == 3.0


def test_it_lasts_from_the_start_of_the_last_commit_that_succeeded():
    now = [10.0]
    lease = lease_at(now)
    lease.begin(0.0)
    lease.renew(9.0)
    lease.renew(8.0)  # an older one is answered later
    assert lease.lasts(0.5)
    now[0] = 9.0 + LATE - 0.5
    assert not lease.lasts(0.5)
    assert lease.valid()
    now[0] = 9.0 + LATE
    assert not lease.valid()


def test_nothing_leaves_once_it_has_ended_whatever_was_committed():
    lease = lease_at([1.0])
    lease.begin(0.0)
    lease.renew(1.0)
    lease.end()
    lease.renew(1.0)
    assert not lease.valid()
    assert lease.begins_in() == inf
