"""Work on the ledger that takes long, in slices: nobody waits long behind it, and commits go on beside it."""

from collections.abc import Callable, Generator

import anyio

from watcher.ledger import Ledger, Verdict
from watcher.runtime.slicing import run_in_slices


async def evaluated(
    evaluating: Generator[None, None, Verdict], restored: Callable[[], int], stepped: Callable[[], None]
) -> Verdict | None:
    """A large answer. None: the ledger was restored meanwhile. `restored`: how often it was. `stepped`: there may be rows."""
    before = restored()

    def work() -> Generator[None, None, Verdict | None]:
        while restored() == before:
            try:
                next(evaluating)
            except StopIteration as end:
                verdict: Verdict = end.value
                return verdict
            finally:
                stepped()
            yield
        return None

    return await run_in_slices(work())


class JudgeSearch:
    """Finds the balances on which an alert is to be judged anew, whenever the alerts are others or memory is."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._wanted = anyio.Event()

    def begin(self) -> None:
        """Anew, if it is under way."""
        self._wanted.set()

    async def run(self, found: Callable[[], None]) -> None:
        """`found`: there may be something to commit."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            await run_in_slices(self._ledger.find_to_judge())
            found()
