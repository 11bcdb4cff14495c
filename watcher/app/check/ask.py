"""Requests of `check`, each in a free slot of the limits: what the daemon's stamps in the journal count is counted here too."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import anyio

from watcher.app.check.plan import count_words
from watcher.app.check.report import AnsweredBalance, Report
from watcher.app.exit_status import Exit
from watcher.app.findings import Finding
from watcher.app.limit_words import duration_words
from watcher.app.provider_sources import Source
from watcher.limits.budget import Budget
from watcher.limits.lease import LATE, STAMPS
from watcher.limits.limiter import Limiter
from watcher.model.targets import Lane, Target
from watcher.poller.assembly import budget_of
from watcher.poller.connections import HttpConnections
from watcher.poller.http_exchange import HttpExchange
from watcher.providers.failures import Failure, Misconfigured, RefusedCredential
from watcher.providers.protocol import Provider
from watcher.redaction.safe_text import one_line, pad_left, pad_right, width

SHOWN = 12
"""Balances shown of one provider."""
PATIENCE = 90.0
"""Seconds that one request waits for a free slot, at most."""
SLACK = 5.0
"""Seconds for which a running daemon is watched at least, and for twice its shortest window: what leaves no slot in that
time leaves none."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at the stamps of a running daemon: it saves them about as often."""

Notes = Mapping[str, bytes]


class Questions:
    """All that one `check` asks of one provider. `wall` gives wall-clock microseconds, `notes` what the journal holds.

    live: a daemon seems to run. Its stamps are looked at until they leave room, and it does not count what is asked here.
    """

    def __init__(
        self,
        source: Source,
        report: Report,
        wall: Callable[[], int],
        notes: Callable[[], Awaitable[Notes]],
        *,
        live: bool,
    ) -> None:
        self._source = source
        self._name = source.provider.name
        self._report = report
        self._wall = wall
        self._notes = notes
        self._live = live
        self._sent: list[tuple[float, str | None]] = []
        """When each request was answered, and by which endpoint."""
        self.stamps: bytes | None = None
        """The note that was counted from; None: there was none."""

    async def ask(self, *, every: bool) -> bytes | None:
        """One request, or one for every watch. The note with them counted in; None: nothing was asked.

        What fails is reported; a provider's first failure ends its questions.
        """
        balances: list[AnsweredBalance] = []
        provider = self._source.provider
        budget = await self._budget()
        async with HttpConnections(lambda: True) as transport:  # a few requests, under no lease
            exchange = HttpExchange(provider, transport, self._source.credentials(), self._wall)
            try:
                for lane, targets in requests(provider, every=every):
                    if (found := await self._with_room(budget, lane.endpoint)) is None:
                        break
                    budget = found
                    balances += await self._answer(exchange, Limiter(budget), lane, targets)
                else:
                    self._show(balances)
            except Failure as failure:
                self._report.refused(self._name, one_line(failure.reason, 1000), _exit_of(self._name, failure))
        entry = self._report.providers[self._name]
        entry.asked, entry.balances = len(self._sent), balances
        return budget.save(anyio.current_time(), self._wall()) if self._sent else None

    async def _answer(
        self, exchange: HttpExchange, limiter: Limiter, lane: Lane, targets: Sequence[Target]
    ) -> list[AnsweredBalance]:
        provider = self._source.provider
        request = provider.ask(lane, targets, 60.0)
        try:
            with limiter.held(limiter.grant(anyio.current_time(), lane.endpoint)):
                response = await exchange.send(request)
        finally:
            self._sent.append((anyio.current_time(), lane.endpoint))
        exchange.release(response)
        found = provider.read(request, response)
        if found.remark:
            self._report.tell("warning", f"{self._name}: {found.remark}", f"providers.{self._name}")
        return [
            AnsweredBalance(r.key.chain, r.key.account, r.key.token, r.symbol, r.key.kind, r.amount or "0", r.unit)
            for r in found.readings
        ]

    async def _budget(self) -> Budget:
        """The limits, with what the journal counts and what was sent here."""
        budget = budget_of(self._source.provider)
        self.stamps = (await self._notes()).get(STAMPS + self._name)
        if self.stamps is not None:
            now, wall = anyio.current_time(), self._wall()
            try:
                # Whoever asks saves: who has saved nothing for so long has asked nothing since.
                silent = wall - Budget.saved_at(self.stamps) > 2 * LATE * 1e6
                budget.restore(self.stamps, now, wall, released=silent, begin=now)
            except ValueError:
                self._report.tell("warning", f"{self._name}: its stamps cannot be read: the next run begins anew")
        for when, endpoint in self._sent:
            budget.count(when, endpoint)
        return budget

    async def _with_room(self, budget: Budget, endpoint: str | None) -> Budget | None:
        """The budget once a request may leave; None when that takes too long, which is reported."""
        began, reported, patience = anyio.current_time(), False, PATIENCE
        if self._live:
            patience = min(PATIENCE, max(SLACK, 2 * budget.shortest_window(endpoint)))
        while (when := budget.ready_at(now := anyio.current_time(), endpoint)) > now:
            if now - began >= patience or (not self._live and when - began > patience):
                self._no_room(when - now)
                return None
            if not reported:
                self._report.progress(
                    f"{self._name}: waits {duration_words(min(when - now, patience))} for a free slot"
                )
                reported = True
            await anyio.sleep(min(when - now, LOOK_AGAIN) if self._live else when - now)
            if self._live:
                budget = await self._budget()
        return budget

    def _no_room(self, wait: float) -> None:
        why = "a running daemon uses all that the limits allow" if self._live else "the limits are used up"
        left = "" if self._live or wait == float("inf") else f" for {duration_words(wait)} yet"
        step = "look at /readyz of the daemon" if self._live else "check again later"
        self._report.found(
            Finding("warning", f"providers.{self._name}", f"{self._name} is not asked: {why}{left}", step)
        )

    def _show(self, balances: Sequence[AnsweredBalance]) -> None:
        for line in table(self._name, balances):
            self._report.say(line)


def requests(provider: Provider, *, every: bool) -> Iterator[tuple[Lane, tuple[Target, ...]]]:
    """The first request of the first group; with `every` as many as it takes to read all targets once."""
    if not every:
        group = provider.groups[0]
        yield group.lanes[0], group.targets[: group.lanes[0].batch]
        return
    for group in provider.groups:
        lane = group.widest
        for start in range(0, len(group.targets), lane.batch):
            yield lane, group.targets[start : start + lane.batch]


def _exit_of(name: str, failure: Failure) -> Exit:
    if isinstance(failure, RefusedCredential):
        return Exit(78, f"{name} refuses the credential: look at the key it is given")
    if isinstance(failure, Misconfigured):
        return Exit(2, f"{name} refuses what is asked: look at its watches")
    return Exit(69, f"{name} did not answer with balances: {type(failure).__name__.lower()}")


def table(name: str, balances: Sequence[AnsweredBalance]) -> Iterator[str]:
    """The balances of an answer, as lines of a table."""
    yield f"{name}: answers with {count_words(len(balances), 'balance', 'balances')}"
    rows = [
        (one.account, one_line(one.symbol, 32) if one.symbol else one.token, one.kind, one.amount, one.unit)
        for one in balances[:SHOWN]
    ]
    widths = [max((width(row[i]) for row in rows), default=0) for i in range(5)]
    for account, token, kind, amount, unit in rows:
        yield (
            f"  {pad_right(account, widths[0])}  {pad_right(token, widths[1])}  {kind:<{widths[2]}}  {pad_left(amount, widths[3])}  "
            f"{'base units' if unit == 'base' else 'tokens'}"
        )
    if len(balances) > SHOWN:
        yield f"  … and {len(balances) - SHOWN} more"
