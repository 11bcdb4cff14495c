"""Which days of a provider are closed: the note that stands beside their closings."""

from collections.abc import Mapping

import msgspec

from watcher.model.days import day_after, last_day_over, midnight_after

NOTE = "closed:"
"""A note's key is this and the provider's name."""
MOST_RUNS = 1000
"""A new one begins after each outage that was longer than `retention`."""


class ClosedDays(msgspec.Struct, frozen=True):
    """Those of which all closings are committed."""

    runs: tuple[tuple[str, str], ...] = ()
    """First and last day of each unbroken run, the oldest first."""

    @classmethod
    def of(cls, notes: Mapping[str, bytes], provider: str) -> "ClosedDays":
        """None are where there is no such note, or none that can be read."""
        try:
            found = msgspec.json.decode(notes.get(NOTE + provider, b"{}"), type=cls)
            for run in found.runs:
                for day in run:
                    midnight_after(day)
        except ValueError:
            return cls()
        return found

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @property
    def last(self) -> str | None:
        return self.runs[-1][1] if self.runs else None

    def __contains__(self, day: str) -> bool:
        return any(first <= day <= last for first, last in self.runs)

    def until(self, day: str) -> "ClosedDays":
        """Without those behind it: they were closed by a clock that ran ahead."""
        return ClosedDays(tuple((first, min(last, day)) for first, last in self.runs if first <= day))

    def after(self, day: str) -> "ClosedDays":
        """Once that day, which lies behind all of them, is closed too."""
        if self.runs and day_after(self.runs[-1][1]) == day:
            return ClosedDays((*self.runs[:-1], (self.runs[-1][0], day)))
        return ClosedDays((*self.runs, (day, day))[-MOST_RUNS:])


def providers_closed(notes: Mapping[str, bytes], day: str) -> set[str]:
    """Those that have closed that day."""
    names = (name.removeprefix(NOTE) for name in notes if name.startswith(NOTE))
    return {name for name in names if day in ClosedDays.of(notes, name)}


def days_closed(notes: Mapping[str, bytes], kept_from: int, now: int) -> list[str]:
    """All days of which a provider is closed, the oldest first, between the two times (wall-clock microseconds).

    kept_from: the ends of days of before are not kept any more.
    """
    earliest = last_day_over(kept_from - 1) if kept_from > 0 else ""
    newest, found = last_day_over(now), set()
    for name in notes:
        if name.startswith(NOTE):
            for first, last in ClosedDays.of(notes, name.removeprefix(NOTE)).runs:
                day = max(first, day_after(earliest)) if earliest else first
                while day <= min(last, newest):
                    found.add(day)
                    day = day_after(day)
    return sorted(found)
