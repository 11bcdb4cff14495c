"""Long work says how far it is; short work says nothing."""

from structlog.testing import capture_logs

from watcher.runtime.progress import Progress


def lines(steps, total=None):
    now = [0.0]
    with capture_logs() as logged:
        progress = Progress("restoring", total, clock=lambda: now[0])
        for now[0], done in steps:
            progress.at(done)
    return logged


def test_short_work_is_silent():
    assert lines([(0.5, 10), (1.9, 20)], 20) == []


def test_long_work_tells_every_two_seconds_how_far_it_is():
    logged = lines([(second / 2, second * 100) for second in range(1, 12)], 900)
    assert [(line["done"], line["of"], line["seconds"]) for line in logged] == [(400, 900, 2.0), (800, 900, 4.0)]
    assert {line["event"] for line in logged} == {"progress"}


def test_more_than_was_foreseen_is_no_more_than_all():
    (line,) = lines([(3.0, 1200)], 900)
    assert (line["done"], line["of"]) == (1200, 1200)


def test_without_a_total_only_what_is_done_is_told():
    (line,) = lines([(3.0, 7)])
    assert "of" not in line
