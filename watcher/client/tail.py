"""Changes in a terminal, one a line, in columns that stay where they are."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from watcher.client.provider_news import HintWatch, ProviderWatch
from watcher.client.stream import FullSnapshot, Stream
from watcher.logs.output import free_space
from watcher.model.events import BalanceChanged, HintSourceHealth
from watcher.redaction import safe_text
from watcher.redaction.secret import without_user
from watcher.relay.messages import ProviderStatus, Update

log = structlog.get_logger()

NAME = 40
"""Characters of a name, at most. Amounts are shown whole."""
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
    """Follow the relay until cancelled. With `json` a line is `{"cursor": …, "label": …, "event": {…}}`, `label` where there is one.

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
    async with contextlib.aclosing(aiter(stream)) as updates:
        async for update in updates:
            out.write((shown(as_json(update)) if json else columns.line(update.event, update.label)) + "\n")
            out.flush()
            # Who does not read us is not read for either: the relay cuts us in the end, and we resume behind this one.
            await free_space(out)


def log_of_nothing(text: str) -> None:
    log.warning("tail.nothing_matches", text=safe_text.one_line(text, 400))


def log_of_providers(providers: Sequence[str] | None) -> Callable[[Mapping[str, ProviderStatus]], None]:
    """For a Stream: logs trouble of these providers (None: of all) and its end, and what hints do. A pipe holds changes alone."""
    watch, log_hints = ProviderWatch(providers), log_of_hints(providers)

    def log_news(statuses: Mapping[str, ProviderStatus]) -> None:
        log_hints(statuses)
        for news in watch.news(statuses):
            name = safe_text.one_line(news.provider, NAME)
            if news.is_trouble:
                reason = None if news.reason is None else safe_text.one_line(news.reason, 200)
                log.warning("provider.trouble", provider=name, state=news.state, reason=reason, since=news.since)
            else:
                log.warning("provider.recovered", provider=name)  # whoever was told of the trouble is told of its end

    return log_news


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


def as_json(update: Update) -> str:
    label = {} if update.label is UNSET else {"label": update.label}
    return msgspec.json.encode({"cursor": update.cursor, **label, "event": update.event}).decode()


class TailColumns:
    """Lines whose columns are as wide as the widest cell so far, so that they jump seldom."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._widths: list[int] = []

    def line(self, event: BalanceChanged, label: str | UnsetType = UNSET) -> str:
        """`label`: of the balance, where it has one."""
        up = not event.delta.startswith("-")
        name = safe_text.one_line(event.symbol or short(event.token), NAME)
        if event.kind != "total":
            name += f" {safe_text.one_line(event.kind, NAME)}"
        account = safe_text.one_line(short(event.account), NAME)
        if label is not UNSET:
            account = f"{safe_text.one_line(label, NAME)} {account}"
        where = [safe_text.one_line(text, NAME) for text in (event.observed_at[11:23], event.provider)]
        cells = [*where, account, name]
        amounts = [*map(safe_text.one_line, (event.previous_amount, event.amount, f"{'+' if up else ''}{event.delta}"))]
        self._widen([*cells, *amounts])
        count = len(cells)
        padded = [safe_text.pad_right(cell, width) for cell, width in zip(cells, self._widths[:count], strict=True)]
        before, now, delta = (
            safe_text.pad_left(a, width) for a, width in zip(amounts, self._widths[count:], strict=True)
        )
        arrow = "▲" if up else "▼"
        padded[0] = self._paint(DIM, padded[0])
        change = self._paint(GREEN if up else RED, f"{arrow} {delta}")
        return "  ".join([*padded, self._paint(DIM, before), "→", now, change])

    def gap(self, snapshot: FullSnapshot) -> str:
        reason, cursor = safe_text.one_line(str(snapshot.reason)), safe_text.one_line(snapshot.cursor)
        text = f"-- gap ({reason}): {len(snapshot.rows)} balances stand at {cursor}"
        return self._paint(DIM, text)

    def _widen(self, cells: list[str]) -> None:
        before = self._widths or [0] * len(cells)
        self._widths = [max(width, safe_text.width(cell)) for width, cell in zip(before, cells, strict=True)]

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{PLAIN}" if self._colour else text


def short(text: str) -> str:
    """An address that can be told from its neighbours and fits a column."""
    return text if len(text) <= 14 else f"{text[:6]}…{text[-6:]}"
