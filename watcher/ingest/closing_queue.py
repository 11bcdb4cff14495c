"""Closings on their way into the journal: in commits of their own between those of rows, a slice at a time.

Rows never wait for more than one slice, and what the journal says of a slice says nothing of rows.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

import anyio
import msgspec

from watcher.ingest.rejections import RejectedKeys
from watcher.journal import Batch, Rejected
from watcher.model.log import Unavailable
from watcher.model.past import Closing

SLICE = 500
"""Closings of one commit at most."""


class _Waiting(msgspec.Struct):
    """What was given in one piece, as far as it is not committed."""

    closings: deque[Closing]
    notes: Mapping[str, bytes]
    """With each slice but the last."""
    last_notes: Mapping[str, bytes]
    committed: anyio.Event


class ClosingQueue:
    """Of one partition. `wake`: called when something has come."""

    def __init__(self, partition: int, wake: Callable[[], None]) -> None:
        self.closed: dict[str, float] = {}
        """Provider → unix time at which the last day ended that is closed."""
        self._wake = wake
        self._waiting: deque[_Waiting] = deque()
        self._rejections = RejectedKeys(partition)
        self._size = SLICE

    async def save(
        self, closings: Sequence[Closing], notes: Mapping[str, bytes], last_notes: Mapping[str, bytes]
    ) -> None:
        """Return once all that the journal takes of these is committed. It may take several commits, each with `notes`, by which
        Kafka's journal knows what became of it, and the last one with `last_notes` in their place. After a failure some may be
        committed again."""
        waiting = _Waiting(deque(closings), notes, last_notes, anyio.Event())
        self._waiting.append(waiting)
        self._wake()
        try:
            await waiting.committed.wait()
        finally:
            if not waiting.committed.is_set():
                self._waiting.remove(waiting)

    async def turn(self, write: Callable[[Batch, float], Awaitable[None]], pause: float) -> bool:
        """Commit one slice, `pause` seconds after the commit before. False: there was none. Raises what `write` raises, and
        Unavailable when the journal must be opened again to learn which closing it does not take."""
        if not self._waiting:
            return False
        await anyio.sleep(pause)
        if not self._waiting:  # whoever waited has gone
            return False
        waiting = self._waiting[0]
        closings = list(islice(waiting.closings, self._size))
        last = len(closings) == len(waiting.closings)
        try:
            notes = dict(waiting.last_notes if last else waiting.notes)
            await write(Batch([], notes, (), closings), anyio.current_time())
        except Rejected as error:
            self._reject(waiting, closings, error)
        except Unavailable:
            self._size = max(1, len(closings) // 2)  # a slow journal may not take as many in time
            raise
        else:
            self._committed(waiting, len(closings), last=last)
        return True

    def _committed(self, waiting: _Waiting, count: int, *, last: bool) -> None:
        for _ in range(count):
            waiting.closings.popleft()
        self._size = min(SLICE, self._size * 2)
        if last:
            waiting.committed.set()
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _reject(self, waiting: _Waiting, closings: Sequence[Closing], error: Rejected) -> None:
        """Leave out what the journal will not take. Where it names none, fewer are tried until one is left."""
        named = dict(error.records)
        if not named and len(closings) <= 1:
            named = dict.fromkeys([*(str(one.balance.key) for one in closings), *waiting.last_notes], str(error))
        if not closings:
            self._committed(waiting, 0, last=True)
        self._rejections.log(named)
        for closing in closings:
            if str(closing.balance.key) in named:
                waiting.closings.remove(closing)
        if not error.records:
            self._size = max(1, len(closings) // 2)
            raise Unavailable(str(error))
