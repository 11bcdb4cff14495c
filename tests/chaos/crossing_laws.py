"""The laws of crossings, judged from plain records: which must stand beside the committed chain, and that none else does.

The chain of a balance is its baseline, where it has one, and its changes. With the `[[alert]]` tables of the config it decides
every crossing and each of their fields. Nothing of the watcher's own code is asked.
"""

from collections import Counter, defaultdict
from decimal import Context, Decimal
from typing import NamedTuple

PARTS = ("provider", "chain", "account", "token", "kind")
EXACT = Context(prec=200)


class Step(NamedTuple):
    """What was committed of a balance with one version."""

    amount: str
    previous_amount: str | None
    observed_at: str
    unit: str


class AlertTable:
    """One alert, as its table of the config says. `tagged`: providers all of whose watches have the one tag that there is."""

    def __init__(self, table, tagged=()):
        self.name = table["name"]
        self.beyond = "below" if "below" in table else "above"
        self._threshold = table[self.beyond]
        self._clear = table.get("clear", self._threshold)
        self._decimals = table.get("decimals", 0)
        self._wanted = {part: _listed(table[part]) for part in PARTS if part in table}
        if "tag" in table:
            self._wanted["provider"] = [one for one in self._wanted.get("provider", tagged) if one in tagged]

    def speaks_of(self, parts):
        return all(parts[part] in wanted for part, wanted in self._wanted.items())

    def threshold(self, unit):
        return self._in(unit, self._threshold)

    def turn(self, fired, amount, unit):
        """The direction of the crossing that this amount makes, or None."""
        here, threshold, clear = Decimal(amount), self.threshold(unit), self._in(unit, self._clear)
        if self.beyond == "below":  # by comparisons alone: arithmetic would round
            beyond, back = here < threshold, here >= clear
        else:
            beyond, back = here > threshold, here <= clear
        if fired:
            return "cleared" if back else None
        return self.beyond if beyond else None

    def _in(self, unit, text):
        return EXACT.scaleb(Decimal(text), self._decimals) if unit == "base" else Decimal(text)


def _listed(value):
    return [value] if isinstance(value, str) else value


class CrossingLaws:
    """Fed as a Checker is; `broken(law, text)` is told what is wrong."""

    def __init__(self, tables, broken, tagged=()):
        self.count = 0
        """Crossings that were fed."""
        self.directions = Counter()
        self._alerts = [AlertTable(table, tagged) for table in tables]
        self._broken = broken
        self._chains = defaultdict(dict)
        """key → version → Step."""
        self._parts = {}
        self._speaking = {}
        """key → the alerts that speak of it."""
        self._next = {}
        """key → the version that is judged next."""
        self._fired = set()
        """(alert, key) of those that have fired and were not cleared."""
        self._ids = set()
        self._newest = {}
        """(alert, key) → the version of its last crossing."""
        self._found = {}
        """(key, version, alert, direction) → a crossing that nothing has called for yet."""
        self._missing = {}
        """The same → what it must say."""
        self._touched = set()

    def begins(self, key, version):
        """The first thing that was committed of that balance had this version: without a baseline it is 1."""
        self._next.setdefault(key, version)

    def change(self, key, event):
        self._take(key, event, event["version"], event["previous_amount"])

    def baseline(self, key, state):
        self.begins(key, 0)
        self._take(key, state, 0, None)

    def _take(self, key, record, version, previous):
        self._chains[key][version] = Step(record["amount"], previous, record.get("observed_at"), record.get("unit"))
        self._parts.setdefault(key, record)
        self._touched.add(key)

    def crossing(self, place, crossing):
        """`place`: as for an event."""
        self.count += 1
        key = "/".join(crossing[part] for part in PARTS)
        self.directions[crossing["direction"]] += 1
        what = (key, crossing["version"], crossing["alert"], crossing["direction"])
        if crossing["id"] in self._ids:
            self._broken("crossing told twice", f"{what} at {place}: its id was told before")
        self._ids.add(crossing["id"])
        if crossing["version"] <= self._newest.get((crossing["alert"], key), -1):
            self._broken("crossings out of order", f"{what} at {place}")
        self._newest[crossing["alert"], key] = crossing["version"]
        self._touched.add(key)
        if (wanted := self._missing.pop(what, None)) is not None:
            self._compare(what, wanted, crossing)
        elif what in self._found:
            self._broken("crossing told twice", f"{what} at {place}")
        else:
            self._found[what] = crossing

    def _compare(self, what, wanted, crossing):
        for field, value in wanted.items():
            given = crossing[field]
            same = Decimal(given) == value if field == "threshold" else given == value
            if not same:
                self._broken("a field of a crossing is wrong", f"{what}: {field} is {given}, and must be {value}")

    def _advance(self, key):
        """Judge what has come of the chain, as far as it has no gap."""
        chain, version = self._chains[key], self._next.get(key)
        if version is None:
            return
        parts = self._parts.get(key)
        if parts is not None and key not in self._speaking:
            self._speaking[key] = [alert for alert in self._alerts if alert.speaks_of(parts)]
        while (step := chain.get(version)) is not None:
            for alert in self._speaking[key]:
                self._judge(alert, key, version, step)
            version += 1
        self._next[key] = version

    def _judge(self, alert, key, version, step):
        direction = alert.turn((alert.name, key) in self._fired, step.amount, step.unit)
        if direction is None:
            return
        (self._fired.discard if direction == "cleared" else self._fired.add)((alert.name, key))
        what = (key, version, alert.name, direction)
        wanted = {
            "threshold": alert.threshold(step.unit),
            "amount": step.amount,
            "previous_amount": step.previous_amount,
            "observed_at": step.observed_at,
        }
        if (crossing := self._found.pop(what, None)) is not None:
            self._compare(what, wanted, crossing)
        else:
            self._missing[what] = wanted

    def view(self):
        """What was fed up to now is one consistent view of the log: each crossing stands with its change, or neither does."""
        for key in self._touched:
            self._advance(key)
        self._touched.clear()
        for what in (*self._missing, *self._found):
            self._broken("change and crossing apart", f"{what}")
        # Told once. What comes for it later is another one.
        self._missing.clear()
        self._found.clear()

    def finish(self):
        """Everything was fed."""
        for key in self._chains:
            self.begins(key, 1)
            self._advance(key)
        for what in self._missing:
            self._broken("a crossing is missing", f"{what}")
        for what in self._found:
            key, version, *_ = what
            without = version not in self._chains.get(key, ())
            self._broken("a crossing without its change" if without else "a crossing that is none", f"{what}")
