"""Where every hint goes: to the poller of its provider in this process, or on to the process that has it.

A hint is never believed: it brings the next read of a watch forward. What becomes of it is counted by its source.
"""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import TypeVar

import anyio
import msgspec
import structlog

from watcher.hints.figures import HTTP, KAFKA, SENDER, SourceFigures
from watcher.journal import Forbidden, HintExchange
from watcher.model.addresses import filter_forms
from watcher.model.filters import FilterMatcher
from watcher.model.hints import Hint, HintError, decode, encode
from watcher.model.keys import Filter, Scope
from watcher.model.log import JournalError, Unavailable
from watcher.model.watches import WatchIndex
from watcher.poller.poller import Poller
from watcher.redaction.safe_text import one_line
from watcher.relay.http.hint_routes import FEW_HINTS, Accepted, NotPolledHere
from watcher.runtime.backoff import Backoff
from watcher.runtime.slicing import run_at_once, run_in_slices

MOST_SENDERS = 32
"""Tokens that have a score of their own at one time. Who comes when there are so many shares `http`."""
RESTARTS = Backoff(5.0, 300.0)
"""Of what a bug of ours has ended."""
MOST_WAITING = 1000
"""Hints of webhooks that wait to be sent on; the oldest give way."""

T = TypeVar("T")
log = structlog.get_logger()


class HintRouter:
    """Of one process. To the sources of its config it is the `HintSink`; `posted`, `delivered` and `receive` are for strangers.

    watches, pollers: what holds at that moment. exchange: None where hints stay in this process. polls: whether this process
    polls at all. now: monotonic seconds. wall: microseconds.
    """

    def __init__(
        self,
        watches: Callable[[], WatchIndex],
        pollers: Callable[[], Sequence[Poller]],
        exchange: HintExchange | None,
        now: Callable[[], float],
        wall: Callable[[], int],
        *,
        polls: bool,
    ) -> None:
        self.figures: dict[str, SourceFigures] = {}
        """By the name of the source."""
        self.covered: dict[str, Collection[Scope]] = {}
        """Source → what it tells of changes in, now."""
        self._watches = watches
        self._pollers = pollers
        self._exchange = exchange
        self._now = now
        self._wall = wall
        self._senders: Collection[str] = frozenset()
        self._polls = polls
        self._waiting: deque[Hint] = deque(maxlen=MOST_WAITING)
        self._came = anyio.Event()
        self._turns, self._few_turns = anyio.Lock(), anyio.Lock()
        self.figures[HTTP] = SourceFigures(name=HTTP, type="http", connected=True, since=wall())
        if exchange is not None:
            self.figures[KAFKA] = SourceFigures(name=KAFKA, type="kafka", connected=True, since=wall())

    def take(self, source: str, hints: Sequence[Hint]) -> None:
        """Of a source that is asked about what is polled here alone."""
        run_at_once(self._marking(self.figures[source], hints))

    def missed(self, source: str) -> None:
        for poller in self._pollers():
            poller.hint_covered(source)

    def covers(self, source: str, scopes: Collection[Scope]) -> None:
        if scopes == self.covered.get(source):  # the pollers know
            return
        self.covered[source] = scopes
        if (figures := self.figures.get(source)) is not None:
            figures.providers = frozenset(scope.provider for scope in scopes)
        for poller in self._pollers():
            poller.cover(source, scopes)

    def begun(self, poller: Poller) -> None:
        """It polls from now on: some sources were there before it, and what they said until now reached nobody."""
        for source, scopes in self.covered.items():
            poller.cover(source, scopes)
            poller.hint_covered(source)
        self._forget_senders(poller)  # it may have learned from one that ended before they were taken away

    def forget(self, source: str, figures: SourceFigures) -> None:
        """There is no such source any more. `figures`: its own; another one may have taken its name."""
        self.covers(source, ())
        del self.covered[source]
        if self.figures.get(source) is figures:
            del self.figures[source]

    def use_senders(self, names: Collection[str]) -> None:
        """Tokens with these names may post hints from now on, and no others. What was learned of the others is forgotten."""
        self._senders = names
        for figures in list(self.figures.values()):
            if figures.is_sender and figures.name.removeprefix(SENDER) not in names:
                del self.figures[figures.name]
        for poller in self._pollers():
            self._forget_senders(poller)

    def _forget_senders(self, poller: Poller) -> None:
        for schedule in poller.schedules:
            for source in list(schedule.hint_scores):
                if source.startswith(SENDER) and source not in self.figures:
                    schedule.forget_hints_of(source)

    def of_sender(self, name: str) -> SourceFigures:
        """What is posted by this token is counted here: under its name from its first request on, as long as there is room."""
        if (found := self.figures.get(SENDER + name)) is not None:
            return found
        known = sum(figures.is_sender for figures in self.figures.values())
        if name not in self._senders or known >= MOST_SENDERS:
            return self.figures[HTTP]
        figures = SourceFigures(name=SENDER + name, type="http", connected=True, since=self._wall())
        self.figures[figures.name] = figures
        return figures

    async def posted(self, hints: Sequence[Hint], rights: Filter, sender: str) -> Accepted:
        """What somebody with these rights sent; each names its provider. A hint of what they do not allow to see is as unknown as
        one of what nobody watches. `sender`: the name of a token, or nothing.

        Raises NotPolledHere; Unavailable where one is for another process and cannot be sent on now.
        """
        if self._exchange is None and not self._polls:
            raise NotPolledHere
        figures = self.of_sender(sender)
        few = len(hints) <= FEW_HINTS
        known = await self._in_turn(self._known(hints, rights), few=few)
        unknown = len(hints) - len(known)
        if unknown:
            self._count_unknown(figures, unknown)
        here = self._polled_here()
        await self._in_turn(self._marking(figures, [hint for hint in known if hint.provider in here]), few=few)
        away = [hint for hint in known if hint.provider not in here]
        if away:
            await self._send_on(away)
            figures.count("accepted", self._now(), len(away))
        return Accepted(len(known), unknown)

    async def delivered(self, source: str, hints: Sequence[Hint]) -> None:
        """What a webhook may be about, which came to one process alone: each names what may be an account. What is polled
        elsewhere is sent on soon."""
        await self._in_turn(self._delivering(self.figures[source], hints))

    def _delivering(self, figures: SourceFigures, hints: Sequence[Hint]) -> Generator[None, None, None]:
        """`figures`: a reload may take the source away meanwhile."""
        watches, here, found = self._watches(), self._polled_here(), 0
        addresses = {hint.account for hint in hints}
        for hint in hints:
            yield
            for named in _narrowed(hint, addresses, watches):
                found += 1
                if named.provider in here:
                    yield from self._mark(figures, named)
                elif self._exchange is not None:
                    figures.count("accepted", self._now())
                    self._waiting.append(named)
                    self._came.set()
        if not found:
            self._count_unknown(figures, 1)

    async def send_delivered(self) -> None:
        """For ever: what webhooks brought for others. What cannot be sent is lost, as a webhook may be."""
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            going = list(self._waiting)
            self._waiting.clear()
            try:
                await self._send_on(going)
            except Unavailable as error:
                log.warning("hint.not_sent", hints=len(going), why=str(error))

    async def receive(self) -> None:
        """For ever: what others sent for what is polled here. Raises Forbidden."""
        if self._exchange is None or not self._polls:
            return
        for tries in itertools.count(1):
            try:
                async for records in self._exchange.receive():
                    await self._in_turn(self._receiving(records))
            except JournalError:
                raise
            except Exception:  # a bug: what a stranger wrote must not end what polls well without it
                log.exception("hints.failed", source=KAFKA)
            await anyio.sleep(RESTARTS.pause(tries))

    def tell_rejected(self, source: str, error: str) -> None:
        """Of a hint that is none; whoever finds that counts it."""
        log.warning("hint.rejected", source=source, error=one_line(error))

    async def _in_turn(self, work: Generator[None, None, T], *, few: bool = False) -> T:
        """Many that come at once have no more of the loop than one. `few`: of few hints, which wait for no longer ones: with a
        slice of each of those before its own, whoever sends one hint after the other would soon have too many that wait."""
        return await run_in_slices(work, self._few_turns if few else self._turns)

    def _receiving(self, records: Sequence[bytes]) -> Generator[None, None, None]:
        """Whoever polls the provider counts it. Of what nobody watches every process says so."""
        here, watches, figures = self._polled_here(), self._watches(), self.figures[KAFKA]
        for record in records:
            try:
                hint = decode(record)
            except HintError as error:
                figures.count("rejected", self._now())
                self.tell_rejected(KAFKA, str(error))
            else:
                if hint.provider in here:
                    yield from self._mark(figures, hint)
                elif not watches.may_read(str(hint.provider)):
                    self._count_unknown(figures, 1)
            yield

    def _known(self, hints: Sequence[Hint], rights: Filter) -> Generator[None, None, list[Hint]]:
        """Those of something that is watched and that these rights may see."""
        watches, matcher, known = self._watches(), FilterMatcher.of(rights), []
        for hint in hints:
            if any(map(matcher.touches, _touched(hint, watches))):
                known.append(hint)
            yield
        return known

    def _marking(self, figures: SourceFigures, hints: Sequence[Hint]) -> Generator[None, None, None]:
        for hint in hints:
            yield from self._mark(figures, hint)
            yield

    def _mark(self, figures: SourceFigures, hint: Hint) -> Generator[None, None, None]:
        """One hint may touch every watch there is. Of a source that is gone meanwhile it says nothing more."""
        marked = 0
        if self.figures.get(figures.name) is not figures:
            return
        for poller in [poller for poller in self._pollers() if hint.provider in (None, poller.name)]:
            marked += yield from poller.hint(hint, figures.name)
        if marked:
            figures.count("accepted", self._now())
        else:
            self._count_unknown(figures, 1)

    def _count_unknown(self, figures: SourceFigures, number: int) -> None:
        figures.count("unknown", self._now(), number)
        log.info("hint.unknown", source=figures.name, hints=number)

    def _polled_here(self) -> set[str]:
        return {poller.name for poller in self._pollers()}

    async def _send_on(self, hints: Sequence[Hint]) -> None:
        """Raises Unavailable."""
        if self._exchange is None:  # its poller is being made
            raise Unavailable("the provider of a hint is not polled at the moment: send it again")
        try:
            await self._exchange.send([encode(hint) for hint in hints])
        except Forbidden as error:
            raise Unavailable(str(error)) from error


def _narrowed(hint: Hint, addresses: Collection[str], watches: WatchIndex) -> Iterator[Hint]:
    """What its account has that is watched, for each provider: of the tokens among these addresses, or all, without one there."""
    for provider in list(watches.providers):
        named = msgspec.structs.replace(hint, provider=provider)
        touched = list(_touched(named, watches))
        tokens = dict.fromkeys(scope.token for scope in touched if scope.token in addresses)
        if tokens:
            yield from (msgspec.structs.replace(named, token=token) for token in tokens)
        elif touched:
            yield named


def _touched(hint: Hint, watches: WatchIndex) -> Iterator[Scope]:
    """What it may be of, within what is watched: as narrow as the two together name it. It names its provider."""
    provider = str(hint.provider)
    tokens = (None,) if hint.token is None else filter_forms(hint.token)
    if provider not in watches.providers:
        if watches.may_read(provider):  # this process knows nothing of what is watched
            yield from (Scope(provider, hint.chain, account, token) for account in hint.accounts() for token in tokens)
        return
    for account in hint.accounts():
        for watch in watches.of_account(provider, account):
            if hint.touches(watch.scope):
                chain, token = watch.scope.chain or hint.chain, watch.scope.token
                for named in (token,) if token is not None else tokens:
                    yield Scope(provider, chain, account, named)
