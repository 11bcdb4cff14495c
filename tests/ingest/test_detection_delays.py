"""How long changes can have gone unnoticed, counted by the events that were committed."""

from tests.polling import START
from watcher.ingest.detection_delays import DetectionDelays
from watcher.model.events import BalanceState, CommitRow, changed
from watcher.model.times import format_rfc3339


def row(seconds, since=None, provider="p"):
    """A change that was seen `seconds` after START, and before at `since`; None: a baseline."""
    state = BalanceState(
        provider=provider,
        chain="solana:x",
        account="a",
        token="t",
        kind="total",
        symbol=None,
        version=1,
        amount="2",
        unit="base",
        decimals=None,
        slot=None,
        as_of=None,
        observed_at=format_rfc3339(START + round(seconds * 1e6)),
    )
    event = None if since is None else changed("e", state, "1", format_rfc3339(START + round(since * 1e6)))
    return CommitRow(state, event)


def test_each_change_counts_with_the_time_between_its_two_readings_by_provider():
    delays = DetectionDelays()
    delays.begin(START)
    delays.count([row(2.0, 1.5), row(9.0, 2.0), row(3.0, 2.25, "q"), row(4.0)])
    found = delays.by_provider["p"]
    assert (found.total, found.sum) == (2, 7.5)
    assert dict(found.cumulative())[0.5] == 1
    assert delays.by_provider["q"].sum == 0.75


def test_what_an_earlier_process_read_last_is_left_out():
    delays = DetectionDelays()
    delays.count([row(1.0, -5.0)])  # nothing was ever answered
    delays.begin(START)
    delays.begin(START + 5_000_000)  # the first answer decides
    delays.count([row(1.0, -3600.0), row(2.0, 0.0)])
    assert (delays.by_provider["p"].total, delays.by_provider["p"].sum) == (1, 2.0)


def test_texts_of_times_are_in_the_order_of_the_times():
    assert format_rfc3339(START) < format_rfc3339(START + 1) < format_rfc3339(START + 1_000_000)
