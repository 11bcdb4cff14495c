"""The providers' limits, counted where they count: at arrival, in strict sliding windows on monotonic time.

A window of `requests` per `per` seconds holds what was granted in the `per` seconds up to now; a call that does not fit
is refused and takes nothing.
"""

import re
from collections import deque
from collections.abc import Container, Mapping, Sequence

import msgspec


class Quota(msgspec.Struct, frozen=True):
    """A limit of a simulated API."""

    requests: int
    per: float
    """Seconds."""
    endpoint: str | None = None
    """None: over all endpoints."""


_ENTRY = re.compile(r"(?P<name>[a-z0-9_-]+)(?:\.(?P<endpoint>[a-z-]+))?=(?P<windows>.+)")
_WINDOW = re.compile(r"(\d+)/(\d+(?:\.\d+)?)")
_SCALE = re.compile(r"x(\d+(?:\.\d+)?)")


def parse(text: str, defaults: Mapping[str, tuple[Quota, ...]]) -> dict[str, tuple[Quota, ...]]:
    """`--limits`, read from left to right over each API's own. Raises ValueError with one line for the user.

    `default` is where it begins, `none` lifts all of them, `x10` allows ten times the requests, `helius=50/1+1000000/2592000` replaces one
    provider's windows (requests/seconds), `tokenkit.balances=10/60` adds one for an endpoint.
    """
    limits = dict(defaults)
    for part in filter(None, text.split(",")):
        if part == "default":
            limits = dict(defaults)
        elif part == "none":
            limits = dict.fromkeys(defaults, ())
        elif scale := _SCALE.fullmatch(part):
            limits = {name: _scaled(windows, float(scale[1])) for name, windows in limits.items()}
        else:
            name, windows = _entry(part, defaults)
            added = any(window.endpoint for window in windows)
            limits[name] = (*limits[name], *windows) if added else windows
    return limits


def _scaled(windows: Sequence[Quota], factor: float) -> tuple[Quota, ...]:
    return tuple(msgspec.structs.replace(window, requests=max(1, int(window.requests * factor))) for window in windows)


def _entry(part: str, names: Container[str]) -> tuple[str, tuple[Quota, ...]]:
    entry = _ENTRY.fullmatch(part)
    if entry is None or entry["name"] not in names:
        raise ValueError(f"--limits: {part!r} is not `default`, `none`, `x10` or `helius=50/1`")
    windows = []
    for window in entry["windows"].split("+"):
        found = _WINDOW.fullmatch(window)
        if found is None or not int(found[1]) or not float(found[2]):
            raise ValueError(f"--limits: {window!r} is not REQUESTS/SECONDS, both above 0")
        windows.append(Quota(int(found[1]), float(found[2]), entry["endpoint"]))
    return entry["name"], tuple(windows)


class QuotaRuling(msgspec.Struct, frozen=True):
    """What the gate said to one arrival."""

    granted: bool
    current: int
    """Calls in the window that is fullest, this one included, refused or not."""
    remaining: int
    """Negative when refused."""
    free_in: float
    """Seconds until the oldest call leaves that window."""
    per: float
    """That window's length; 0 when no window is in force."""


class _Count:
    def __init__(self, window: Quota) -> None:
        self.window = window
        self.stamps: deque[float] = deque()

    def rule(self, now: float, cost: int) -> QuotaRuling:
        while self.stamps and self.stamps[0] <= now - self.window.per:
            self.stamps.popleft()
        current = len(self.stamps) + cost
        remaining = self.window.requests - current
        oldest = self.stamps[0] if self.stamps else now
        return QuotaRuling(remaining >= 0, current, remaining, oldest + self.window.per - now, self.window.per)


class QuotaGate:
    """All windows of one provider. A call takes a place in each that applies to it, or in none."""

    def __init__(self, windows: Sequence[Quota]) -> None:
        self._counts = [_Count(window) for window in windows]

    def arrive(self, now: float, endpoint: str, cost: int = 1) -> QuotaRuling:
        applying = [count for count in self._counts if count.window.endpoint in (None, endpoint)]
        rulings = [count.rule(now, cost) for count in applying]
        if all(ruling.granted for ruling in rulings):
            for count in applying:
                count.stamps.extend([now] * cost)
        return min(
            rulings,
            key=lambda ruling: ruling.remaining,
            default=QuotaRuling(granted=True, current=0, remaining=0, free_in=0.0, per=0.0),
        )
