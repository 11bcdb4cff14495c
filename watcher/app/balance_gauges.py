"""Balances as metrics: `balance_gauges = N` of the config has the N first of them, those with a label or a tag before the others.

A metric is a float: the exact amount is in the stream. A balance has its gauge where it is polled, so that a fleet has each
once. Which are the first is found beside the scrapes, since a million balances take seconds to look through.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import anyio
from prometheus_client.core import GaugeMetricFamily, Metric

from watcher.ledger import Ledger
from watcher.ledger.record import BalanceRecord, text_of
from watcher.model.filters import FilterMatcher
from watcher.model.keys import Filter, Key
from watcher.model.times import parse_rfc3339
from watcher.model.watches import WatchIndex
from watcher.runtime.slicing import run_in_slices

LOOK = 1.0
"""Seconds between two looks at whether there are others than before."""
REST = 10.0
"""It rests for so many times as long as it took to find the first ones."""
STEP = 250
"""Balances between two turns of the loop."""
LABELS = ("provider", "chain", "account", "token", "kind", "label")

Place = tuple[bool, Key]
"""Without a name, and the key: the order in which they have gauges."""


class BalanceGauges:
    """`most`: so many at most; `ledgers`: what is known of the balances that are polled here; `watches`: those of the config as it is now."""

    def __init__(
        self, most: Callable[[], int], ledgers: Callable[[], Sequence[Ledger]], watches: Callable[[], WatchIndex]
    ) -> None:
        self._most = most
        self._ledgers = ledgers
        self._watches = watches
        self._chosen: list[Key] = []
        self._left_out = 0
        self._chosen_of: tuple[object, ...] = ()

    async def run(self) -> None:
        """Find the first again whenever there may be others."""
        while True:
            began = anyio.current_time()
            if self._most() and self._chosen_of != (now := self._seen()):
                self._chosen, self._left_out = await run_in_slices(self._choose())
                self._chosen_of = now
            await anyio.sleep(max(LOOK, REST * (anyio.current_time() - began)))

    def _seen(self) -> tuple[object, ...]:
        counts = [(ledger, len(ledger)) for ledger in self._ledgers()]
        return (self._most(), self._watches(), *counts)

    def _choose(self) -> Generator[None, None, tuple[list[Key], int]]:
        """The first, in order, and how many there are beside them."""
        most, watches = self._most(), self._watches()
        first, worst, count = list[Place](), None, 0
        for keys in _pieces(key for ledger in self._ledgers() for key in ledger.known_keys()):
            count += len(keys)
            for key in keys:
                info = watches.info(key)
                place = (info.label is None and not info.tags, key)
                if worst is None or place < worst:
                    first.append(place)
            if len(first) > most:
                first.sort()
                del first[most:]
                worst = first[-1] if first else (False, Key("", "", "", ""))
            yield
        return [key for _, key in sorted(first)], count - len(first)

    def families(self, rights: Filter) -> Iterator[Metric]:
        """As far as those rights go; nothing where the config asks for none."""
        if not self._most():
            return
        amounts = GaugeMetricFamily(
            "watcher_balance", "The newest accepted amount, as a float, in the unit of its key.", labels=LABELS
        )
        times = GaugeMetricFamily(
            "watcher_balance_observed_timestamp_seconds",
            "When the last answer arrived that had this amount.",
            labels=LABELS,
        )
        matcher, watches = FilterMatcher.of(rights), self._watches()
        for key, record in self._known(filter(matcher.matches, self._chosen)):
            labels = [key.provider, key.chain, key.account, key.token, key.kind, watches.info(key).label or ""]
            amounts.add_metric(labels, float(record.amount or 0))
            seen = text_of(record.last_seen)
            if seen is not None:
                times.add_metric(labels, parse_rfc3339(seen) / 1e6)
        yield amounts
        yield times
        if rights == Filter():
            text = "Balances that are known and have none of the balance_gauges."
            yield GaugeMetricFamily("watcher_balances_without_gauge", text, value=self._left_out)

    def _known(self, keys: Iterable[Key]) -> Iterator[tuple[Key, BalanceRecord]]:
        ledgers = self._ledgers()
        for key in keys:
            for ledger in ledgers:
                record = ledger.get(key)
                if record is not None and record.version >= 0 and record.amount is not None:
                    yield key, record
                    break


def _pieces(keys: Iterable[Key]) -> Iterator[list[Key]]:
    piece = []
    for key in keys:
        piece.append(key)
        if len(piece) == STEP:
            yield piece
            piece = []
    yield piece
