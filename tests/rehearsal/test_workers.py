"""Several processes rehearse at once: in the order of the tasks, with their progress, and none of them outlives its work."""

import multiprocessing
import os
import signal

import pytest

from tests.rehearsal.test_rehearsal import settings
from watcher.model.watches import WatchIndex
from watcher.rehearsal.task import Task, Wishes
from watcher.rehearsal.workers import ALONE, WorkerLost, rehearse_all


class Deadly(Task):
    """It ends with its process, as one does that is out of memory."""

    def run(self, tell):  # noqa: ARG002 (as a task is called)
        os.kill(os.getpid(), signal.SIGKILL)


def tasks(kind=Task):
    more = {"keyed": True, "wishes": Wishes(600.0), "history": None, "watches": WatchIndex()}
    return [kind(name, settings(count, 10, 10.0), **more) for name, count in (("one", 3), ("two", 30), ("three", 9))]


def test_what_several_processes_rehearse_is_what_one_would():
    said = []
    steps = [float(ALONE), 3.0 * ALONE, 2.0 * ALONE]
    together = rehearse_all(tasks(), steps, 2, said.append)
    assert together == rehearse_all(tasks(), steps, 1, lambda _: None)
    assert [one.provider for one in together] == ["one", "two", "three"]
    assert said == sorted(said)
    assert said[-1] == pytest.approx(1.0)
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_named_and_the_others_end():
    with pytest.raises(WorkerLost, match="the process that rehearsed two ended"):
        rehearse_all([*tasks()[:1], tasks(Deadly)[1], *tasks()[2:]], [1.0 * ALONE] * 3, 3, lambda _: None)
    assert multiprocessing.active_children() == []
