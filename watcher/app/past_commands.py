"""`watcher at` and `watcher history`: the past, from the journal of the config, whether `run` runs or not."""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TextIO

import anyio
import msgspec

from watcher.app.daemon import journal_of, wall
from watcher.app.exit_status import Exit
from watcher.app.past_output import AtWriter, Form, HistoryWriter, Show
from watcher.app.provider_sources import unasked_providers, watch_index
from watcher.app.settings import Settings
from watcher.journal import Reader
from watcher.logs.output import free_space
from watcher.model.log import Expired, SnapshotRevoked
from watcher.model.times import format_rfc3339
from watcher.past import asked, history
from watcher.past.asked import Wanted, time_of
from watcher.past.state_at import PastError, state_at
from watcher.redaction import safe_text
from watcher.runtime.progress import Progress, still_at

ROWS = 500
"""Rows and events that are written at a stretch."""
DELETED = "what was asked for was deleted while it was read ([retention] in the config): ask again"


class Asked(msgspec.Struct, frozen=True):
    """What both commands are given."""

    wanted: Wanted
    form: Form


def moment(text: str, what: str) -> int:
    """Wall-clock microseconds of what somebody wrote as `what`. Raises Exit."""
    with _refusals():
        return time_of(text, what)


async def at(config: Settings, environment: Mapping[str, str], one: Asked, time: int) -> None:
    """`watcher at`. Raises Exit, JournalError."""
    with _refusals():
        async with _reading(config, environment) as reader:
            watches = watch_index(unasked_providers(config))
            matcher = one.wanted.matcher(watches)
            found = await state_at(reader, time, matcher.of_journal, now=wall(), progress=_Progress("looking back"))
    writer, out, shown = AtWriter(one.form, format_rfc3339(time)), sys.stdout, _shown()
    await _write(writer.head(), out)
    written = 0
    for page in asked.pages(found, ROWS if one.form != "table" else max(len(found), 1)):
        rows = asked.rows(page, matcher, watches)
        written += len(rows)
        await _write(writer.lines(rows, shown), out)
    if not written and one.form == "table":
        safe_text.print_line("no balance that matches was known then")


async def past_events(
    config: Settings, environment: Mapping[str, str], one: Asked, first: int | None, last: int | None, *, crossed: bool
) -> None:
    """`watcher history`. Raises Exit, JournalError."""
    written = 0
    with _refusals():
        async with _reading(config, environment) as reader:
            watches = watch_index(unasked_providers(config))
            writer, out, shown = HistoryWriter(one.form, watches), sys.stdout, _shown()
            interval = await history.interval_of(reader, first, last, wall())
            await _write(writer.head(), out)
            bounds = await reader.bounds()
            matcher, step = one.wanted.matcher(watches), _Progress("reading the log")
            async with history.reading(
                reader, interval, matcher, (bounds.oldest, bounds.head), crossed=crossed, progress=step
            ) as parts:
                async for events in parts:
                    written += len(events)
                    await _write(writer.lines(events, shown), out)
    if not written and one.form == "table":
        safe_text.print_line(
            f"nothing that matches from {format_rfc3339(interval.first)} to {format_rfc3339(interval.last)}"
        )


def _shown() -> Show:
    return safe_text.json if sys.stdout.isatty() else str


async def _write(lines: Iterator[str], out: TextIO) -> None:
    """Whoever reads it slowly is waited for. Raises ReaderClosed, OSError."""
    for number, line in enumerate(lines):
        out.write(line + "\n")
        if number % ROWS == 0:
            await free_space(out)
    await free_space(out)
    out.flush()


@contextlib.asynccontextmanager
async def _reading(config: Settings, environment: Mapping[str, str]) -> AsyncIterator[Reader]:
    """A reader of the journal, which fences nobody. Raises JournalError."""
    journal = journal_of(config, environment)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(journal.close)
        async with anyio.create_task_group() as tasks:
            with still_at("opening the journal", tasks):
                await journal.check()
                reader = await journal.reader()
        stack.push_async_callback(reader.close)
        yield reader


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns what cannot be answered into an Exit."""
    try:
        yield
    except PastError as mistake:
        raise Exit(2, str(mistake)) from None
    except (Expired, SnapshotRevoked) as problem:
        raise Exit(69, DELETED) from problem


class _Progress:
    """A line every few seconds, in the log: on a terminal alone, unless more is asked for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lines: Progress | None = None

    def __call__(self, done: int, of: int) -> None:
        if self._lines is None:
            self._lines = Progress(self._what, of)
        self._lines.at(done)
