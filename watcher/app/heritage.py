"""What pollers that end leave to those that a reload makes: what was spent of a credential, and what is known of it.

A provider counts requests by credential, whatever our tables are called. So a table that was renamed goes on with what was spent
under its old name; and where tables divide one credential anew, whatever lies beyond the new room of one counts for the others.
"""

from collections.abc import Mapping, Sequence

import msgspec

from watcher.app.provider_sources import Source
from watcher.app.reload import Credential, Difference, credential
from watcher.limits.budget import Budget, Predecessor
from watcher.poller.assembly import budget_of
from watcher.poller.poller import Poller


class Heritage(msgspec.Struct, frozen=True):
    """What one poller is left."""

    former: Poller | None = None
    """The retired one that it replaces."""
    others: Sequence[Predecessor] = ()
    """What was asked with its credential under other names."""
    moved: bool = False
    """Its stamps in the journal are old: what was spent went on under another name since."""
    renewed: bool = False
    """Its key is another one than the former had."""

    @property
    def spent(self) -> list[Predecessor]:
        return [*([] if self.former is None else [Predecessor(self.former.budget)]), *self.others]


class Heritages:
    """Those that nobody has come into yet, over all reloads of a process."""

    def __init__(self) -> None:
        self._waiting: dict[str, Heritage] = {}
        self._gone: dict[str, tuple[Credential, Budget]] = {}
        """Providers that were removed: who comes later, under another name, may have the same credential."""
        self._moved: set[str] = set()
        """Those of them whose spending went on elsewhere."""

    def settle(
        self,
        change: Difference,
        before: Mapping[str, Source],
        after: Mapping[str, Source],
        retired: Mapping[str, Poller],
        renewed: Mapping[str, Poller],
    ) -> None:
        """Those that changed or went are `retired`. `renewed`: pollers that go on with another key."""
        budgets = {name: poller.budget for name, poller in (*retired.items(), *renewed.items())}
        absorbed: set[str] = set()
        for name in (*change.changed, *change.added):
            mine = credential(after[name])
            others = []
            for other, budget in budgets.items():
                if other != name and credential(before[other]) == mine:
                    stays = other in after and credential(after[other]) == mine
                    others.append(Predecessor(budget, budget_of(after[other].provider) if stays else None))
                    absorbed.add(other)
            for other, (theirs, budget) in self._gone.items():
                if other != name and theirs == mine:
                    others.append(Predecessor(budget))
                    absorbed.add(other)
            self._waiting[name] = Heritage(retired.get(name), others, name in self._moved, name in change.renewed)
        self._keep(change, before, retired, absorbed)

    def _keep(
        self, change: Difference, before: Mapping[str, Source], retired: Mapping[str, Poller], absorbed: set[str]
    ) -> None:
        """Until somebody comes with their credential."""
        for name in change.removed:
            if name in retired:
                self._gone[name] = credential(before[name]), retired[name].budget
            self._waiting.pop(name, None)
        self._moved |= self._gone.keys() & absorbed
        self._moved -= {*change.added}
        for name in (*absorbed, *change.added):
            self._gone.pop(name, None)

    def of(self, name: str) -> Heritage:
        """For the poller that begins now."""
        return self._waiting.pop(name, Heritage())

    def forget_former(self) -> None:
        """Who has not begun by now begins from the journal: another process may have gone on in between."""
        self._waiting = {
            name: msgspec.structs.replace(heritage, former=None, renewed=False)
            for name, heritage in self._waiting.items()
        }
