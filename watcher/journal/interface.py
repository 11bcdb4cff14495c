"""The journal: events and state, moved together or not at all.

The seam is small. A `Writer` fences older writers, restores and commits one partition; a `Reader` never fences and
gives snapshots and the log. SQLite (one partition) and Kafka (P partitions) implement both and share one conformance
suite. A `JournalPlugin` makes a journal from its URL and its table of the config. `ingest/committer.py` stands between
the pollers and a writer, whichever it is.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol

import msgspec

from watcher.model.alerts import Crossing
from watcher.model.events import BalanceState, CommitRow, Encoding, ProviderHealth
from watcher.model.keys import Filter
from watcher.model.log import Bounds, Commit, Cursor, JournalError, Snapshot
from watcher.model.past import Closing, HistorySlice

INTERFACE = 2
"""Counts on when a journal has to do more than before: 2 with crossings, closings and the past."""


class Fenced(JournalError):
    """Another instance writes this journal now. This one must end (exit status 75)."""


class Lost(JournalError):
    """Another member of our fleet has claimed this partition since: let it go. The others go on."""


class WrongJournal(JournalError):
    """Topics, marker or file are missing, foreign or configured otherwise (exit status 2)."""


class NotMade(WrongJournal):
    """Nothing stands there yet: `init` makes it. No topic of the log, no file."""


class OlderFormat(WrongJournal):
    """What stands there is of a format that `run` and `init` bring to the newest one."""


class Forbidden(JournalError):
    """We have not the right to (exit status 78)."""


class Rejected(JournalError):
    """Nothing of the batch was committed, and with these records in it it never will be: they are not sent again.

    `records`: which they are, and why: by `str(key)`, or by the name of a note. Empty: one of the batch, nobody knows
    which; the partition must be opened again.
    """

    def __init__(self, reason: str, records: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.records = dict(records or {})


class Unwritable(JournalError):
    """The database cannot be written: no such folder, no permission, disk full, corrupt (exit status 69)."""


class Batch(msgspec.Struct, frozen=True):
    """What one commit moves together. A key appears at most once."""

    rows: list[CommitRow]
    notes: dict[str, bytes] = {}
    """Small records beside the balances (listings, limiter stamps, learned rates, alerts). Their keys never contain `/`."""
    crossings: Sequence[Crossing] = ()
    """Of keys that need not be among the rows. Beside them stands a note of what their alerts have come to: by it a journal of
    several topics knows what was one commit."""
    closings: Sequence[Closing] = ()
    """Of keys that need not be among the rows. One of the same day and key is replaced."""


class Restored(msgspec.Struct, frozen=True):
    """Everything that one partition holds committed."""

    states: list[BalanceState]
    notes: dict[str, bytes]
    epoch: str
    """The log's, as it stands in every cursor: what is committed from here on belongs to it."""
    fenced_at: float
    """Seconds of the clock of leases, read when the fence had succeeded, and before anything was read: from then on no
    commit of an older writer succeeds."""
    released: bool
    """Nothing is in doubt: the last owner released the partition, or was this very writer, or there was none."""
    doubt: float = inf
    """Seconds from the fence for which an owner may ask yet, as far as the last one has said; with `released` nobody does."""


class Writer(Protocol):
    """One partition's only writer, for as long as nobody else opens it."""

    async def open(self) -> Restored:
        """Fence whoever wrote before, then give what is committed. May be called again after Unavailable.

        Raises Lost where another member of our fleet owns it by now.
        """

    async def commit(self, batch: Batch) -> None:
        """All of the batch or nothing. Raises Unavailable when in doubt, Fenced or Lost when replaced, Rejected for what is
        in it."""

    async def release(self, *, in_doubt: float = 0.0) -> None:
        """The last word of an owner that has committed all it had and asks no provider any more: whoever opens next need
        wait for nothing. It is over with the next `open`, whoever's it is. Raises as `commit` does; `close` follows.

        in_doubt: it has asked nothing, since an owner before it may ask for so many seconds yet. It lets go; `released` stays
        False, and `doubt` says it to the next one. A journal may leave this out.
        """

    async def close(self) -> None:
        """Give the partition back. Never hangs."""


class Reader(Protocol):
    """A look at the journal that disturbs nobody."""

    async def bounds(self) -> Bounds: ...

    async def glance(self, wanted: Filter, most: int) -> Snapshot | None:
        """The committed state, at once, if it has at most so many balances; else None."""

    async def snapshot(self, wanted: Filter) -> Snapshot:
        """The committed state, whatever its size. Waits while as many views stand as may; whoever asks closes it."""

    async def notes(self) -> dict[str, bytes]:
        """The small records beside the balances, as they are committed."""

    def follow(self, cursor: Cursor) -> AsyncIterator[Commit]:
        """Everything committed from `cursor` on, in order, then live, for ever. Raises Expired."""

    async def kept_from(self) -> int:
        """Wall-clock microseconds: every event that was observed at or after it is in the log."""

    def between(
        self, wanted: Filter, first: int, last: int, until: Cursor, behind: Cursor | None = None
    ) -> AsyncIterator[HistorySlice]:
        """Events observed from `first` to `last` (wall-clock microseconds, both included) that stand before `until`, and not
        before `behind`, in the order of the log; then it ends. Slices may be empty: they say how far it is. Raises Expired,
        Unavailable."""

    def first_changes(self, wanted: Filter, time: int, until: Cursor) -> AsyncIterator[HistorySlice]:
        """Of each balance the first change that was observed after `time` (wall-clock microseconds) and stands before `until`,
        and behind the last one that was observed no later than `time`. A balance comes once at most, in no promised order;
        where its last change was observed no later, it may come or not. Slices may be empty, as those of `between`. Raises
        Expired, Unavailable.

        `journal.first_changes` makes it from `between`.
        """

    async def closing_days(self) -> list[str]:
        """Days of which closings are kept, the oldest first."""

    def closings(self, day: str, wanted: Filter) -> AsyncIterator[Sequence[Closing]]:
        """What was kept of the end of that day; of each key once. Raises Unavailable."""

    async def close(self) -> None: ...


class HintExchange(Protocol):
    """How a hint reaches whichever process polls its provider. Beside the log: nothing of it is kept, ordered or believed."""

    async def send(self, hints: Sequence[bytes]) -> None:
        """To everybody who receives. Each as `model.hints.encode` makes it. Raises Unavailable, and Forbidden for a right that
        we have not: for whoever sent the hints, since all else goes on without."""

    def receive(self) -> AsyncIterator[Sequence[bytes]]:
        """What anybody sends from now on, ours too, for ever: each time some hints, undecoded, none longer than `MOST_BYTES`.

        It endures outages, and goes on with what comes after one. Of more than is taken the newest come. Raises Forbidden.
        """

    async def close(self) -> None: ...


class Journal(Protocol):
    """Where the log lives: opens what the configuration names."""

    partitions: int
    gather: float
    """Seconds between a commit and the next one: what lets a busy journal take more at a time. 0: none."""

    @property
    def path(self) -> Path | None:
        """Its file on this machine; None: it is no file."""

    def writer(self, partition: int) -> Writer: ...

    async def reader(self) -> Reader: ...

    async def heartbeat(self, health: Sequence[ProviderHealth]) -> None:
        """Publish each provider's health. Telemetry: outside every transaction, and a failure is not an error, but for a right
        that we have not (Forbidden)."""

    async def released(self) -> bool:
        """Whether nobody writes, as far as a look tells that fences nobody: False where it tells nothing. Raises JournalError."""

    async def swap_note(self, key: str, before: bytes | None, after: bytes, /) -> bool:
        """Put a note in the place of `before` (None: of none), and fence nobody. False: it was not done."""

    def hint_exchange(self) -> HintExchange | None:
        """One for this process, which closes it. None: hints stay in the process that is sent them."""

    async def prepare(self) -> str | None:
        """Before `run` polls: make what may be made without being asked. One line on what stands there; None: it makes nothing."""

    async def init(self, *, new_log: bool = False) -> str:
        """Create what is missing, safe to repeat. Returns one line that says what stands there now.

        `new_log` begins a new log on what stands there: state, events and versions stay, cursors of before are over.
        """

    async def check(self) -> None:
        """Raises WrongJournal or Unavailable when `run` must not start on it."""

    async def close(self) -> None: ...


class JournalOptions(msgspec.Struct, frozen=True):
    """What every journal is given, beside its own table."""

    url: str
    encoding: Encoding
    retention: float
    """Seconds that events are kept."""
    clock: Callable[[], int]
    """Gives wall-clock microseconds."""
    environment: Mapping[str, str]
    """Where the secrets are that its table names."""
    boottime: Callable[[], float]
    """The clock of leases: gives seconds that run on while the machine is suspended. Called on the event loop."""
    checkpoints: float = inf
    """Seconds that the closings of a day are kept; inf: for ever."""


class PrivateFile(msgspec.Struct, frozen=True):
    """A file that nobody else should read."""

    what: str
    """How a warning begins: "[kafka] sasl_password_file", "journal"."""
    path: Path
    unless: str = ""
    """When others may read it: "if no relay of another user reads it"."""


class JournalPlugin(Protocol):
    """A kind of journal. Its name in the entry point group `balance_watcher.journals` is the scheme of its URLs, and
    the table `[SCHEME]` of the config is its own."""

    Settings: type[msgspec.Struct] | None
    """Its table: frozen, kw_only, forbid_unknown_fields, a default for each key. None: it has none."""
    example: str
    """What a user may write as `journal`: "kafka://HOST:PORT"."""
    interface: int
    """The INTERFACE that it was written for, as a plain number."""

    def check(self, url: str, settings: Any, /) -> None:
        """Raises SettingsError for a URL or a table that its types cannot refuse. Opens and reads nothing."""

    def open(self, options: JournalOptions, settings: Any, /) -> Journal:
        """The journal. Reads the secrets; reaches nothing yet. Raises SettingsError, WrongJournal."""

    def private_files(self, url: str, settings: Any, /) -> Iterable[PrivateFile]:
        """Files that hold secrets or balances."""
