"""Days in UTC, as `2026-12-31`, and the midnights at which they end."""

from datetime import date, timedelta

DAY = 86_400_000_000
"""Microseconds."""
_FIRST = date(1970, 1, 1)


def midnight_after(day: str) -> int:
    """When it ends: wall-clock microseconds. Raises ValueError for what is no day."""
    if len(day) != 10 or (parsed := date.fromisoformat(day)).isoformat() != day:
        raise ValueError(f"no day: {day[:40]!r}")
    return ((parsed - _FIRST).days + 1) * DAY


def last_day_over(time: int) -> str:
    """The last day that has ended by that time (wall-clock microseconds); midnight itself ends one."""
    return (_FIRST + timedelta(days=time // DAY - 1)).isoformat()


def day_after(day: str) -> str:
    return last_day_over(midnight_after(day) + DAY)


def is_midnight(time: int) -> bool:
    return time % DAY == 0
