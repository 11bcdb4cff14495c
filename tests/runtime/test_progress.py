"""Long work says how far it is; short work says nothing."""

import anyio
from structlog.testing import capture_logs

from tests.polling import virtually
from watcher.runtime.progress import Progress, still_at


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


def test_who_waits_for_others_says_that_it_goes_on_and_no_longer():
    async def main():
        async with anyio.create_task_group() as tasks:
            with still_at("waiting", tasks):
                await anyio.sleep(5)
            await anyio.sleep(5)

    with capture_logs() as logged:
        virtually(main)
    assert [line["seconds"] for line in logged] == [2.0, 4.0]
