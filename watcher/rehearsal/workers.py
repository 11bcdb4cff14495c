"""Several processes rehearse at once, one provider each: a rehearsal is work for a processor, and nothing else."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from watcher.rehearsal.outcome import ProviderOutcome
from watcher.rehearsal.task import Task

ALONE = 200_000
"""Steps that are done sooner than a second process has begun."""


class WorkerLost(OSError):
    """A process ended before its work was done."""


def rehearse_all(
    tasks: Sequence[Task], steps: Sequence[float], processes: int, tell: Callable[[float], None]
) -> list[ProviderOutcome]:
    """The outcomes, in the order of the tasks. steps: how long each takes, in any unit. `tell` is given how much of it all is
    done, 0..1. Raises WorkerLost."""
    total = sum(steps) or 1.0
    done = [0.0] * len(tasks)

    def tell_of(i: int, part: float) -> None:
        done[i] = part * steps[i]
        tell(sum(done) / total)

    if processes == 1 or len(tasks) == 1 or total < ALONE:
        return [task.run(lambda part, i=i: tell_of(i, part)) for i, task in enumerate(tasks)]  # type: ignore[misc]
    return _Pool(tasks, sorted(range(len(tasks)), key=lambda i: -steps[i]), tell_of).run(processes)


class _Pool:
    def __init__(self, tasks: Sequence[Task], order: list[int], tell_of: Callable[[int, float], None]) -> None:
        self._tasks = tasks
        self._waiting = order[::-1]
        self._tell_of = tell_of
        self._running: dict[Connection, tuple[int, SpawnProcess]] = {}
        self._outcomes: dict[int, ProviderOutcome] = {}

    def run(self, processes: int) -> list[ProviderOutcome]:
        try:
            while len(self._outcomes) < len(self._tasks):
                while self._waiting and len(self._running) < processes:
                    self._start(self._waiting.pop())
                for pipe in wait(list(self._running)):
                    assert isinstance(pipe, Connection)
                    self._receive(pipe)
        finally:
            for pipe, (_, process) in self._running.items():
                process.terminate()
                process.join()
                pipe.close()
        return [self._outcomes[i] for i in range(len(self._tasks))]

    def _start(self, i: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(self._tasks[i], theirs), daemon=True)
        # Until it has a handler of its own, a Ctrl-C would end it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._running[ours] = (i, process)

    def _receive(self, pipe: Connection) -> None:
        i, process = self._running[pipe]
        try:
            said: float | ProviderOutcome = pipe.recv()
        except EOFError:
            raise WorkerLost(f"the process that rehearsed {self._tasks[i].name} ended: is there memory left?") from None
        if isinstance(said, float):
            self._tell_of(i, said)
            return
        self._outcomes[i] = said
        del self._running[pipe]
        process.join()
        pipe.close()


def _work(task: Task, pipe: Connection) -> None:
    """In a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(task.run(pipe.send))


def _end_with_parent() -> None:
    """However that ends: of a signal to itself alone its children learn nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
