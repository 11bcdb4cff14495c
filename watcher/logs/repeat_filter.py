"""Lines that strangers can cause as often as they like are logged once in a while, with a count.

The filter stands before the handler, so that it also sees what libraries log: asyncio and websockets log what goes wrong
with each connection, with a traceback. The metrics count each of these events.
"""

import logging
from typing import Any

EVERY = 10.0
"""Seconds between two lines of one kind."""
FILTERED = ("asyncio", "websockets", "watcher.relay", "watcher.hints", "watcher.app.hint_router", "watcher.webhooks")
"""Loggers whose lines strangers can cause."""
_TELLING = ("event", "source", "webhook", "reason", "why")
MOST_KINDS = 256
"""Kinds that are told apart. All further ones count as one kind."""


class RepeatFilter(logging.Filter):
    """Lets the first record of a kind through, then one each EVERY seconds, which says how many were left out.

    Pure but for the records' own times. The root calls `report_left_out` now and then, so that the last repeats are counted
    although no further one comes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[tuple[str, ...], float] = {}
        """When a kind was last logged, by the records' clock."""
        self._left_out: dict[tuple[str, ...], list[Any]] = {}
        """The last record that was left out, and how many were."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not any(record.name == name or record.name.startswith(f"{name}.") for name in FILTERED):
            return True
        kind = _kind(record)
        if kind not in self._since and len(self._since) >= MOST_KINDS:
            kind = ("others",)
        # The clock may have been set back meanwhile.
        if 0 <= record.created - self._since.get(kind, -EVERY) < EVERY:
            count = self._left_out.pop(kind, [None, 0])[1]
            self._left_out[kind] = [record, count + 1]
            return False
        self._since[kind] = record.created
        if kind in self._left_out:
            _add(record, self._left_out.pop(kind)[1])
        return True

    def report_left_out(self, now: float) -> list[logging.LogRecord]:
        """The records to log now, of kinds that have stopped repeating. `now`: seconds of the wall clock."""
        due = []
        for kind, since in list(self._since.items()):
            if 0 <= now - since < EVERY:
                continue
            del self._since[kind]
            if kind in self._left_out:
                record, count = self._left_out.pop(kind)
                record.exc_info = record.exc_text = None  # the first one had it
                if count > 1:
                    _add(record, count - 1)
                self._since[kind] = now
                due.append(record)
        return due


def _kind(record: logging.LogRecord) -> tuple[str, ...]:
    """By event, source or webhook, and reason, without what differs from one connection to the next."""
    if isinstance(record.msg, dict):  # structlog's
        return record.name, *(str(record.msg.get(name, ""))[:80] for name in _TELLING)
    return record.name, str(record.msg).partition("\n")[0][:80]


def _add(record: logging.LogRecord, count: int) -> None:
    if isinstance(record.msg, dict):
        record.msg["left_out"] = count
    else:
        record.msg = f"{record.msg} ({count} more of these were left out)"
