"""Changes and crossings in a terminal, one a line, in columns that stay where they are."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from watcher.client.provider_news import HintWatch, ProviderWatch, UnreadNews, UnreadWatch
from watcher.client.stream import Event, FullSnapshot, Stream
from watcher.logs.output import free_space
from watcher.model.alerts import Crossing
from watcher.model.events import BalanceChanged, HintSourceHealth
from watcher.redaction import safe_text
from watcher.redaction.secret import without_user
from watcher.relay.messages import ProviderStatus, Update

log = structlog.get_logger()

COLUMNS = 7
"""Four names and three amounts."""
NAME = 40
"""Characters of a name, at most. Amounts are shown whole."""
MOST_ALERT = 64
"""Characters of the name of an alert."""
DIM, GREEN, RED, PLAIN = "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


async def tail(
    url: str,
    *,
    filters: Mapping[str, Sequence[str]],
    json: bool,
    since: str | None,
    token: str | None,
    out: TextIO,
    colour: bool,
) -> None:
    """Follow the relay until cancelled. With `json` a line is `{"cursor": …, "label": …, "event": {…}}`, `label` where there is one;
    the event of a crossing is the one that has an `alert`.

    Raises RelayRefused, ReaderClosed, and OSError when no relay is there to begin with; later cuts are waited out.
    """
    columns = TailColumns(colour=colour)

    def gap(snapshot: FullSnapshot) -> None:
        if not json:
            out.write(columns.gap(snapshot) + "\n")
            out.flush()

    def cut(problem: str) -> None:
        if not stream.subscribed:
            raise OSError(
                f"no relay answers at {without_user(url)} ({safe_text.one_line(problem)}): start one with `watcher run`, or name another address"
            )
        log.warning("tail.cut", problem=safe_text.one_line(problem), text="trying again")

    shown = safe_text.json if out.isatty() else str  # into a pipe go the bytes as they are
    stream = Stream(
        url, filters=filters, since=since, token=token, on_snapshot=gap, on_cut=cut, on_nothing=log_of_nothing
    )
    stream.on_providers = log_of_providers(filters.get("provider"))
    async with contextlib.aclosing(stream.events()) as events:
        async for event in events:
            out.write((shown(as_json(event)) if json else columns.of(event)) + "\n")
            out.flush()
            # Who does not read us is not read for either: the relay cuts us in the end, and we resume behind this one.
            await free_space(out)


def log_of_nothing(text: str) -> None:
    log.warning("tail.nothing_matches", text=safe_text.one_line(text, 400))


def log_of_providers(providers: Sequence[str] | None) -> Callable[[Mapping[str, ProviderStatus]], None]:
    """For a Stream: logs trouble of these providers (None: of all) and its end, alerts on balances that are not read, and what
    hints do. A pipe holds events alone.
    """
    watch, unread_watch, log_hints = ProviderWatch(providers), UnreadWatch(providers), log_of_hints(providers)

    def log_news(statuses: Mapping[str, ProviderStatus]) -> None:
        log_hints(statuses)
        for unread in unread_watch.news(statuses):
            log_of_unread(unread)
        for news in watch.news(statuses):
            name = safe_text.one_line(news.provider, NAME)
            if news.is_trouble:
                reason = None if news.reason is None else safe_text.one_line(news.reason, 200)
                log.warning("provider.trouble", provider=name, state=news.state, reason=reason, since=news.since)
            else:
                log.warning("provider.recovered", provider=name)  # whoever was told of the trouble is told of its end

    return log_news


def log_of_unread(news: UnreadNews) -> None:
    """Whoever was told of the beginning is told of the end."""
    event = "alert.read_again" if news.over else "alert.unread"
    names = {"alert": safe_text.one_line(news.alert, MOST_ALERT), "provider": safe_text.one_line(news.provider, NAME)}
    log.warning(event, **names, balances=news.balances, since=safe_text.one_line(news.since, NAME))


def log_of_hints(providers: Sequence[str] | None) -> Callable[[Mapping[str, ProviderStatus]], None]:
    """The same for sources of hints, which are news for whoever asks for more than warnings."""
    watch = HintWatch(providers)

    def log_news(statuses: Mapping[str, ProviderStatus]) -> None:
        for news in watch.news(statuses):
            names = {
                "provider": safe_text.one_line(news.provider, NAME),
                "source": safe_text.one_line(news.source, NAME),
            }
            log.info("hints.connected" if news.connected else "hints.away", since=news.since, **names)
        for provider, hints in watch.figures(statuses, asyncio.get_running_loop().time()):
            sources = "; ".join(map(source_words, hints.sources))
            delays = {"hinted": seconds(hints.hinted_delay), "unhinted": seconds(hints.unhinted_delay)}
            log.info("hints.figures", provider=safe_text.one_line(provider, NAME), sources=sources, **delays)

    return log_news


def source_words(source: HintSourceHealth) -> str:
    name = safe_text.one_line(source.source, NAME)
    if not source.connected:
        return f"{name} away"
    right = "none judged yet" if source.precision is None else f"{source.precision:.0%} right"
    return f"{name} {source.per_second:.1f} a second, {right}"


def seconds(delay: float | None) -> str | None:
    """From a change to its read."""
    return None if delay is None else f"{delay:.1f} s"


def as_json(event: Event) -> str:
    label = {} if event.label is UNSET else {"label": event.label}
    return msgspec.json.encode({"cursor": event.cursor, **label, "event": event.event}).decode()


class TailColumns:
    """Lines whose columns are as wide as the widest cell so far, so that they jump seldom."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._widths = [0] * COLUMNS

    def of(self, event: Event) -> str:
        if isinstance(event, Update):
            return self.line(event.event, event.label)
        return self.alert(event.event, event.label)

    def line(self, event: BalanceChanged, label: str | UnsetType = UNSET) -> str:
        """`label`: of the balance, where it has one."""
        up = not event.delta.startswith("-")
        names = self._names(event, event.symbol or short(event.token), label)
        amounts = [*map(safe_text.one_line, (event.previous_amount, event.amount, f"{'+' if up else ''}{event.delta}"))]
        self._widen(names, 0)
        self._widen(amounts, len(names))
        before, now, delta = (
            safe_text.pad_left(a, width) for a, width in zip(amounts, self._widths[len(names) :], strict=True)
        )
        arrow = "▲" if up else "▼"
        change = self._paint(GREEN if up else RED, f"{arrow} {delta}")
        return "  ".join([*self._padded(names), self._paint(DIM, before), "→", now, change])

    def alert(self, event: Crossing, label: str | UnsetType = UNSET) -> str:
        """An alert that fired or was cleared, in the columns of changes as far as it has them."""
        names = self._names(event, short(event.token), label)
        self._widen(names, 0)
        over = event.direction == "cleared"
        words = self._paint(GREEN if over else RED, f"{'CLEARED' if over else 'ALERT'} {crossing_words(event)}")
        return "  ".join([*self._padded(names), words])

    def _names(self, event: BalanceChanged | Crossing, token: str, label: str | UnsetType) -> list[str]:
        name = safe_text.one_line(token, NAME)
        if event.kind != "total":
            name += f" {safe_text.one_line(event.kind, NAME)}"
        account = safe_text.one_line(short(event.account), NAME)
        if label is not UNSET:
            account = f"{safe_text.one_line(label, NAME)} {account}"
        where = [safe_text.one_line(text, NAME) for text in (event.observed_at[11:23], event.provider)]
        return [*where, account, name]

    def _padded(self, names: list[str]) -> list[str]:
        first, *others = map(safe_text.pad_right, names, self._widths)
        return [self._paint(DIM, first), *others]

    def gap(self, snapshot: FullSnapshot) -> str:
        reason, cursor = safe_text.one_line(str(snapshot.reason)), safe_text.one_line(snapshot.cursor)
        text = f"-- gap ({reason}): {len(snapshot.rows)} balances stand at {cursor}"
        return self._paint(DIM, text)

    def _widen(self, cells: list[str], first: int) -> None:
        """The columns from that one on."""
        for column, cell in enumerate(cells, first):
            self._widths[column] = max(self._widths[column], safe_text.width(cell))

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{PLAIN}" if self._colour else text


def crossing_words(event: Crossing) -> str:
    """`hot-wallet below 100: 99.5, was 120`, and `hot-wallet: 101, was 99.5`."""
    alert, amount = safe_text.one_line(event.alert, MOST_ALERT), safe_text.one_line(event.amount)
    threshold = "" if event.direction == "cleared" else f" {event.direction} {safe_text.one_line(event.threshold)}"
    before = "" if event.previous_amount is None else f", was {safe_text.one_line(event.previous_amount)}"
    return f"{alert}{threshold}: {amount}{before}"


def short(text: str) -> str:
    """An address that can be told from its neighbours and fits a column."""
    return text if len(text) <= 14 else f"{text[:6]}…{text[-6:]}"
