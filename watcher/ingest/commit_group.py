"""What one commit moves together: what the ledger gave, and notes of others."""

from collections.abc import Collection, Mapping

import msgspec

from watcher.journal import Batch, Rejected
from watcher.ledger import Taken
from watcher.model.keys import Key


class CommitGroup(msgspec.Struct, frozen=True):
    taken: Taken
    notes: Mapping[str, bytes]

    def __bool__(self) -> bool:
        return bool(self.taken) or bool(self.notes)

    @property
    def batch(self) -> Batch:
        taken = self.taken
        return Batch(list(taken.rows), {**taken.notes, **self.notes}, taken.crossings)

    @property
    def balances(self) -> int:
        return len(self.taken.keys) if self.taken.judged else len(self.taken.rows)

    @property
    def alone(self) -> bool:
        """It cannot be made smaller: one balance, or one note."""
        return self.balances + len(self.notes) == 1

    def refused(self, error: Rejected) -> Mapping[str, str]:
        """The names of records that the journal will not take, each with the reason. None: the group must be made smaller to
        learn which."""
        if not error.records and self.alone:
            return dict.fromkeys([*map(str, self.taken.keys), *self.notes], str(error))
        return error.records

    def keys_of(self, names: Collection[str]) -> list[Key]:
        """Of the balances that have these names, or an alert whose state has one of them."""
        judged = {key for name, key in self.taken.judged.items() if name in names}
        return [key for key in self.taken.keys if key in judged or str(key) in names]
