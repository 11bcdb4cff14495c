"""The rehearsal of one provider as one piece of work: all that it needs goes in, its figures come out. Pure."""

from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from watcher.limits.forecast import DAY
from watcher.limits.windows import Limit
from watcher.model.targets import Target
from watcher.model.watches import WatchIndex
from watcher.providers import registry
from watcher.providers.protocol import Provider
from watcher.providers.settings import ProviderSettings
from watcher.rehearsal.feeds import RehearsedBalance, RehearsedTarget, targets_of
from watcher.rehearsal.history import BalanceHistory, History, rehearsed
from watcher.rehearsal.outcome import LimitUse, ProviderOutcome, days_of
from watcher.rehearsal.pieces import Piece, pieces_of
from watcher.rehearsal.rehearsal import Rehearsal
from watcher.rehearsal.synthetic import made_up, zipf_rates

PARTS = 100
"""In so many parts it is done, with a word of its progress after each."""


class Wishes(msgspec.Struct, frozen=True):
    """What is the same for all providers."""

    seconds: float
    """That are rehearsed."""
    seed: int = 1
    latency: float = 0.15
    """Seconds from a request to its answer."""
    per_hour: float = 1.0
    """Changes of a watch, on average, where there is no history at all."""
    since: float = 0.0
    """Seconds after which changes count: what a schedule knows nothing of yet, it reads like everything else."""


class Task:
    """One provider of one config. All of it can be pickled.

    history: None where there is none. share: how large a part of the time is gone through. stamps: what is spent of the limits
    already; it counts where all of the time is gone through.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        keyed: bool,
        wishes: Wishes,
        history: History | None,
        watches: WatchIndex,
        share: float = 1.0,
        stamps: bytes | None = None,
    ) -> None:
        self.name, self.settings, self.keyed = name, settings, keyed
        self.wishes = wishes
        self.history = history
        self.watches = watches
        self.share = share
        self.stamps = stamps

    def provider(self) -> Provider:
        return registry.build(self.name, self.settings, registry.known(), keyed=self.keyed)

    def run(self, tell: Callable[[float], None]) -> ProviderOutcome:
        """`tell` is given how much of it is done, 0..1, every now and then."""
        provider, wishes = self.provider(), self.wishes
        pieces = pieces_of(wishes.seconds, self.share)
        until = sum(piece.end - piece.start for piece in pieces)
        feeds, unknown = self._feeds(provider, pieces, until)
        bucket = DAY if len(pieces) == 1 else pieces[0].end - pieces[0].start
        rehearsal = Rehearsal(
            provider,
            feeds,
            seed=wishes.seed,
            latency=wishes.latency,
            bucket=bucket,
            since=wishes.since,
            stamps=self.stamps if self.share >= 1 else None,
        )
        for part in range(1, PARTS + 1):
            rehearsal.run(until * part / PARTS)
            tell(part / PARTS)
        for feed in feeds.values():
            feed.longest = max(feed.longest, until - feed.last)
        return _outcome(provider, rehearsal, _Extent(pieces, until, wishes.seconds), unknown)

    def _feeds(
        self, provider: Provider, pieces: Sequence[Piece], until: float
    ) -> tuple[dict[Target, RehearsedTarget], int]:
        """Of each target, and of how many of them the history knows nothing."""
        targets = [target for group in provider.groups for target in group.targets]
        balances, unknown = self._balances(targets, until)
        seconds = self.wishes.seconds if self.history is None else self.history.seconds
        shown = {one.key: self._shown(rehearsed(one, seconds, pieces)) for one in balances.known}
        shown |= {one.key: self._shown(one) for one in balances.made_up}
        read = targets_of(targets, shown)
        return {target: RehearsedTarget([shown[key] for key in read[target]]) for target in targets}, unknown

    def _shown(self, history: BalanceHistory) -> RehearsedBalance:
        return RehearsedBalance(history, self.watches.info(history.key).label)

    def _balances(self, targets: Sequence[Target], until: float) -> tuple["_Balances", int]:
        """What is made up changes at any time alike: it is on the clock of the rehearsal, which ends at `until`, from the first."""
        wishes = self.wishes
        if self.history is None:
            rates = zipf_rates(targets, wishes.per_hour, wishes.seed)
            return _Balances([], made_up(rates.items(), until, wishes.seed)), len(targets)
        read = targets_of(targets, (one.key for one in self.history.balances))
        unknown = [target for target in targets if not read[target]]
        changes = {one.key: len(one.times) for one in self.history.balances}
        rate = _usual_rate([sum(changes[key] for key in keys) for keys in read.values() if keys], self.history.seconds)
        made = made_up(((target, rate) for target in unknown), until, wishes.seed)
        return _Balances(self.history.balances, made), len(unknown)


class _Balances(msgspec.Struct):
    known: list[BalanceHistory]
    made_up: list[BalanceHistory]


def _usual_rate(changes: Sequence[int], seconds: float) -> float:
    """Changes a second: the median of the watches that changed at all."""
    moved = [count for count in changes if count]
    return median(moved) / seconds if moved else 0.0


class _Extent(msgspec.Struct, frozen=True):
    pieces: Sequence[Piece]
    gone_through: float
    """Seconds."""
    seconds: float
    """That they stand for."""


def _outcome(provider: Provider, rehearsal: Rehearsal, extent: _Extent, unknown: int) -> ProviderOutcome:
    feeds = list(rehearsal.feeds.values())
    labels = {one.label for feed in feeds for one in feed.balances if one.label is not None}
    by_day = _by_day(rehearsal.requests, extent.pieces, extent.seconds)
    wished = provider.settings.max_interval
    limits = [_use(provider, limit, rehearsal, extent.gone_through) for limit in provider.limits]
    return ProviderOutcome(
        provider=provider.name,
        type=provider.settings.type,
        watches=len(feeds),
        made_up=unknown,
        rehearsed=extent.gone_through,
        of=extent.seconds,
        delays=rehearsal.tally.whole(),
        labels=rehearsal.tally.by_label(sorted(labels)),
        requests_by_day=by_day,
        credits_by_day=[requests * provider.cost for requests in by_day],
        limits=limits,
        share=max((limit.share for limit in limits), default=0.0),
        unread=sum(not feed.reads for feed in feeds),
        max_interval=wished,
        too_seldom=0 if wished is None else sum(feed.longest > wished for feed in feeds),
        longest=max((feed.longest for feed in feeds), default=0.0),
        confirming=rehearsal.confirming,
    )


def _by_day(buckets: Sequence[dict[str | None, int]], pieces: Sequence[Piece], seconds: float) -> list[float]:
    """Requests of each day; of the last one as far as it is rehearsed. Where a day has no piece, as in the one nearest to it."""
    counts = [float(sum(bucket.values())) for bucket in buckets]
    days = days_of(seconds)
    if len(pieces) == 1:
        return (counts + [0.0] * days)[:days]
    counts += [0.0] * (len(pieces) - len(counts))
    length, room = pieces[0].end - pieces[0].start, seconds / len(pieces)
    lasts = [min(DAY, seconds - day * DAY) for day in range(days)]
    return [
        counts[min(len(pieces) - 1, int((day * DAY + lasts[day] / 2) / room))] * lasts[day] / length
        for day in range(days)
    ]


def _use(provider: Provider, limit: Limit, rehearsal: Rehearsal, until: float) -> LimitUse:
    requests = sum(
        count
        for bucket in rehearsal.requests
        for endpoint, count in bucket.items()
        if limit.endpoint in (None, endpoint)
    )
    used = requests * provider.cost * limit.per / until
    allowed = limit.requests * provider.settings.share
    return LimitUse(
        limit.requests, limit.per, limit.endpoint, allowed, used, used / allowed, rehearsal.spent.get(limit)
    )
