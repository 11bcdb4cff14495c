"""A journal in memory that checks the laws of the contract on every row, and forgets nothing."""

from watcher.model.amounts import subtract
from watcher.model.events import event_id
from watcher.model.keys import Key

EPOCH = "e0"


class Book:
    """What stands committed. `write` fails with an AssertionError the moment a law is broken."""

    def __init__(self):
        self.states = {}
        self.notes = {}
        self.committed = {}
        """key → every amount that was ever committed, the baseline first."""
        self.events = []
        self.ids = set()

    def write(self, taken):
        rows, notes = taken.rows, taken.notes
        assert len({row.state.key for row in rows}) == len(rows), "a key twice in one commit"
        for row in rows:
            self._follow(row)
            self.states[row.state.key] = row.state
            self.committed.setdefault(row.state.key, []).append(row.state.amount)
        self.notes |= notes

    def _follow(self, row):
        state, event = row.state, row.event
        before = self.states.get(state.key)
        if event is None:
            assert before is None, "a second baseline"
            assert state.version == 0
            return
        self._agree(state, event)
        assert event.previous_amount == ("0" if before is None else before.amount)
        assert event.version == (1 if before is None else before.version + 1)
        assert event.amount != event.previous_amount
        assert event.delta == subtract(event.amount, event.previous_amount)
        assert event.previous_observed_at <= event.observed_at
        if before is not None:
            assert before.observed_at <= event.previous_observed_at
            by_listing = before.amount == "0" and before.slot is before.as_of is None  # its order is that of a listing
            assert before.order is None or by_listing or (state.order is not None and before.order <= state.order)
        else:
            self.committed[state.key] = ["0"]
        assert event.id not in self.ids
        assert event.id == event_id(EPOCH, state.key, event.version)
        self.ids.add(event.id)
        self.events.append(event)

    def _agree(self, state, event):
        """The last event equals the state."""
        for field in ("key", "amount", "version", "unit", "decimals", "symbol", "slot", "as_of", "observed_at"):
            assert getattr(state, field) == getattr(event, field)

    def amount(self, key: Key) -> str | None:
        state = self.states.get(key)
        return None if state is None else state.amount
