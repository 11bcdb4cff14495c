"""How often each listing was complete, remembered in the journal by a small note each."""

from collections.abc import Mapping

import msgspec

from watcher.ledger.record import Arrival, BalanceRecord, text_of
from watcher.ledger.store import fade
from watcher.model.keys import Key, Scope
from watcher.model.readings import Answer

COMPLETE = 2
"""Complete listings after which a key that appears is a change and no baseline."""


class Note(msgspec.Struct, frozen=True):
    """What the journal keeps of a listing."""

    complete: int
    """Complete answers taken, counted up to `COMPLETE`."""
    observed_at: str


class Listing(msgspec.Struct):
    """What is known of one scope that is listed."""

    scope: Scope
    complete: int = 0
    saved: int = 0
    """What the journal knows of `complete`."""
    last_seen: Arrival | str | None = None
    """The last complete answer that was not stale."""
    greatest_order: int | None = None
    """The greatest ordering field in any answer."""
    behind: int = 0
    """The note follows the pending changes up to this number."""
    fingerprint: bytes = b""
    """Of the last answer; empty: not known, or it was not believed in all it said."""
    rows: int = 0
    """How many readings that answer had."""
    with_recent_amounts: list[BalanceRecord] = []
    """Of which that answer spoke and which had other amounts not long before it."""
    was_restarted: bool = False
    """It was, in this process: the journal may not know yet."""

    def is_repeated_by(self, answer: Answer) -> bool:
        """Whether all that the answer says was said, and taken in, by the one before it."""
        return answer.fingerprint != b"" and answer.fingerprint == self.fingerprint and self.complete >= COMPLETE

    def repeat(self, arrival: Arrival, settle: float) -> None:
        """The last answer arrived once more: only the time is new."""
        assert isinstance(self.last_seen, Arrival)
        self.last_seen.received, self.last_seen.observed_at = arrival.received, arrival.observed_at
        self.with_recent_amounts = fade(self.with_recent_amounts, arrival, settle)

    def note(self) -> bytes:
        return msgspec.json.encode(Note(self.complete, text_of(self.last_seen) or ""))


class Listings:
    """Every listing, and which notes the journal does not have yet."""

    def __init__(self) -> None:
        self.unsaved: dict[str, Listing] = {}
        self._known: dict[str, Listing] = {}
        self._restored: Mapping[str, bytes] = {}
        self._flight: dict[str, int] = {}

    def of(self, scope: Scope) -> Listing:
        name = scope.note_key
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = Listing(scope)
            self._restore_note(name, found)
        return found

    def count(self, scope: Scope, behind: int) -> None:
        """One more complete answer; its note must not overtake the pending changes up to `behind`."""
        listing = self.of(scope)
        if listing.complete < COMPLETE:
            listing.complete += 1
            listing.behind = behind
            self.unsaved[scope.note_key] = listing

    def restart(self, scope: Scope) -> None:
        """An answer named balances that were not taken in. What they are now is their baseline once there is room, and
        no change: it begins anew."""
        listing = self.of(scope)
        listing.complete, listing.behind, listing.was_restarted = 0, 0, True
        listing.fingerprint, listing.with_recent_amounts = b"", []
        if listing.saved or scope.note_key in self._flight:
            self.unsaved[scope.note_key] = listing
        else:
            self.unsaved.pop(scope.note_key, None)

    def restart_covering(self, key: Key) -> None:
        """The same of every listing that speaks of the key."""
        for listing in self._covering(key):
            self.restart(listing.scope)

    def forget_answers_on(self, key: Key) -> None:
        """What they said last of the key does not hold: the same answer once more says something."""
        for listing in self._covering(key):
            listing.fingerprint, listing.with_recent_amounts = b"", []

    def _covering(self, key: Key) -> list[Listing]:
        return [listing for listing in self._known.values() if listing.scope.covers(key)]

    def not_committed(self) -> None:
        """What was taken is not in the journal."""
        self._flight = {}

    def take(self, first: int) -> dict[str, bytes]:
        """Notes that may be committed when the first change left behind is number `first`."""
        ready = {name: listing for name, listing in self.unsaved.items() if listing.behind < first}
        self._flight = {name: listing.complete for name, listing in ready.items()}
        return {name: listing.note() for name, listing in ready.items()}

    def committed(self) -> None:
        for name, complete in self._flight.items():
            self._known[name].saved = complete
            if self._known[name].complete == complete:
                del self.unsaved[name]
        self._flight = {}

    def restore(self, notes: Mapping[str, bytes]) -> None:
        self._restored = notes
        self._flight = {}
        for name, listing in self._known.items():
            self._restore_note(name, listing)

    def _restore_note(self, name: str, listing: Listing) -> None:
        """What memory knows better than the journal is saved again."""
        listing.saved = 0
        listing.fingerprint, listing.with_recent_amounts = b"", []
        if name in self._restored:
            note = msgspec.json.decode(self._restored[name], type=Note)
            listing.saved = note.complete
            listing.complete = listing.complete if listing.was_restarted else max(listing.complete, note.complete)
            listing.last_seen = listing.last_seen or note.observed_at
        if listing.saved != listing.complete:
            self.unsaved[name] = listing
        else:
            self.unsaved.pop(name, None)
