"""What `watcher at` and `watcher history` write: columns for people, CSV for spreadsheets, lines of JSON for programs."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from watcher.client.tail import NAME, short
from watcher.model.alerts import Crossing
from watcher.model.events import JSON, BalanceChanged
from watcher.model.log import Published
from watcher.model.watches import WatchIndex, WatchInfo
from watcher.past.asked import PastRow, in_tokens
from watcher.redaction import safe_text

Form = Literal["table", "csv", "json"]
Show = Callable[[str], str]
"""Makes a line of JSON fit for where it goes: a pipe takes it as it is."""

FORMULA = tuple("=+-@\t\r＝＋－＠")
"""How a cell begins that a spreadsheet may take for a formula. The wide ones are read as the others in some."""
KEY = ("provider", "chain", "account", "token", "kind")
TEXTS = {*KEY, "symbol", "label", "tags", "alert"}
"""Columns that hold words of others. All others hold numbers, times, ids and words of ours."""
AT = ("at", *KEY, "symbol", "label", "tags", "watched", "status", "amount", "unit", "decimals", "tokens",
      "previous_amount", "between_from", "between_to", "last_seen")  # fmt: skip
HISTORY = ("type", "observed_at", *KEY, "symbol", "label", "tags", "version", "previous_amount", "amount", "delta",
           "unit", "decimals", "previous_observed_at", "slot", "as_of", "alert", "direction", "threshold", "id")  # fmt: skip

_encode = msgspec.json.Encoder().encode
_crossing = msgspec.json.Decoder(Crossing).decode


class Table:
    """Lines whose columns are as wide as the widest cell so far. `right`: columns of numbers."""

    def __init__(self, head: Sequence[str], right: Iterable[int]) -> None:
        self._head = head
        self._right = frozenset(right)
        self._widths = [len(name) for name in head]
        self._begun = False

    def lines(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """The next rows, behind the head at first."""
        cells = [[safe_text.one_line(cell) for cell in row] for row in rows]
        for row in cells:
            self._widths = [max(w, safe_text.width(cell)) for w, cell in zip(self._widths, row, strict=True)]
        if cells and not self._begun:
            self._begun = True
            yield self._line(self._head)
        yield from map(self._line, cells)

    def _line(self, row: Sequence[str]) -> str:
        pads = [safe_text.pad_left if n in self._right else safe_text.pad_right for n in range(len(row))]
        return "  ".join(pad(cell, w) for pad, cell, w in zip(pads, row, self._widths, strict=True)).rstrip()


def csv_line(names: Sequence[str], cells: Sequence[object]) -> str:
    """One record of RFC 4180, without its line break; None is an empty cell.

    Words of others stand with an escape for what is not plainly seen, line breaks too, and behind an apostrophe where a
    spreadsheet would take them for a formula.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(map(_cell, names, cells))
    return text.getvalue()


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name not in TEXTS:
        return str(value)
    shown = safe_text.safe_line(str(value))
    return f"'{shown}" if str(value).startswith(FORMULA) else shown


class AtWriter:
    """The rows of `watcher at`. `at`: the time, as it is shown."""

    def __init__(self, form: Form, at: str) -> None:
        self._form = form
        self._at = at
        self._table = Table(("PROVIDER", "ACCOUNT", "TOKEN", "AMOUNT", "STATUS"), right=(3,))

    def head(self) -> Iterator[str]:
        """What stands before any row."""
        if self._form == "csv":
            yield csv_line(AT, AT) + "\r"

    def lines(self, rows: Sequence[PastRow], shown: Show) -> Iterator[str]:
        if self._form == "json":
            yield from (shown(_encode(row).decode()) for row in rows)
        elif self._form == "csv":
            yield from (csv_line(AT, self._cells(row)) + "\r" for row in rows)
        else:
            yield from self._table.lines([_at_columns(row) for row in rows])

    def _cells(self, row: PastRow) -> Sequence[object]:
        begin, end = row.between or (None, None)
        key = (row.provider, row.chain, row.account, row.token, row.kind)
        amounts = (row.amount, row.unit, row.decimals, in_tokens(row.amount, row.unit, row.decimals))
        names = (row.symbol, row.label, " ".join(row.tags), _word(row.watched))
        return (self._at, *key, *names, row.status, *amounts, row.previous_amount, begin, end, row.last_seen)


class HistoryWriter:
    """The events of `watcher history`."""

    def __init__(self, form: Form, watches: WatchIndex) -> None:
        self._form = form
        self._watches = watches
        self._table = Table(("OBSERVED", "PROVIDER", "ACCOUNT", "TOKEN", "BEFORE", "NOW", "CHANGE"), right=(4, 5, 6))

    def head(self) -> Iterator[str]:
        """What stands before any event."""
        if self._form == "csv":
            yield csv_line(HISTORY, HISTORY) + "\r"

    def lines(self, events: Sequence[Published], shown: Show) -> Iterator[str]:
        if self._form == "json":
            yield from (shown(self._json(event)) for event in events)
            return
        read = [(self._watches.info(event.key), _read(event)) for event in events]
        if self._form == "csv":
            yield from (csv_line(HISTORY, _history_cells(info, event)) + "\r" for info, event in read)
        else:
            yield from self._table.lines([_history_columns(info, event) for info, event in read])

    def _json(self, event: Published) -> str:
        label = self._watches.info(event.key).label
        named = "" if label is None else f'"label":{_encode(label).decode()},'
        return f'{{"type":"{event.type}",{named}"event":{event.data.decode()}}}'


def _read(event: Published) -> BalanceChanged | Crossing:
    return JSON.event(event.data) if event.type == "changed" else _crossing(event.data)


def _word(truth: bool) -> str:  # noqa: FBT001 (a cell)
    return "true" if truth else "false"


def _at_columns(row: PastRow) -> Sequence[str]:
    status: str = row.status
    if row.status == "changing" and row.between is not None:
        before = _amount(row.previous_amount or "", row.unit, row.decimals)
        status = f"changing from {before} between {row.between[0]} and {row.between[1]}"
    elif row.status == "unseen":
        status = f"unseen since {row.last_seen}"
    return (*_place(row, row.label), _token(row), _amount(row.amount, row.unit, row.decimals), status)


def _place(row: PastRow | BalanceChanged | Crossing, label: str | None) -> Sequence[str]:
    account = short(row.account)
    return row.provider, account if label is None else f"{label[:NAME]} {account}"


def _token(row: PastRow | BalanceChanged | Crossing) -> str:
    symbol = None if isinstance(row, Crossing) else row.symbol
    name = symbol or short(row.token)
    return name if row.kind == "total" else f"{name} {row.kind}"


def _amount(amount: str, unit: str, decimals: int | None) -> str:
    """In tokens; as it is, and said to be, where their size is not known."""
    tokens = in_tokens(amount, unit, decimals)
    return f"{amount} base" if tokens is None else tokens


def _history_columns(info: WatchInfo, event: BalanceChanged | Crossing) -> Sequence[str]:
    time = event.observed_at.replace("T", " ").rstrip("Z")
    where = (time, *_place(event, info.label), _token(event))
    if isinstance(event, Crossing):
        said = f"alert {event.alert[:NAME]}: {event.direction}"
        said += "" if event.direction == "cleared" else f" {event.threshold}"
        return (*where, event.previous_amount or "", event.amount, said)
    amounts = (event.previous_amount, event.amount)
    before, now = (_amount(each, event.unit, event.decimals) for each in amounts)
    sign, delta = ("-", event.delta[1:]) if event.delta.startswith("-") else ("+", event.delta)
    return (*where, before, now, f"{sign}{_amount(delta, event.unit, event.decimals)}")


def _history_cells(info: WatchInfo, event: BalanceChanged | Crossing) -> Sequence[object]:
    found = {name: getattr(event, name, None) for name in HISTORY}
    found["type"] = "crossed" if isinstance(event, Crossing) else "changed"
    found["label"], found["tags"] = info.label, " ".join(info.tags)
    return [found[name] for name in HISTORY]
