"""Which crossings a committed chain makes, told anew from the tables of the config: in fractions, alert by alert, without any index."""

from fractions import Fraction
from typing import NamedTuple

PARTS = ("provider", "chain", "account", "token", "kind")


class Told(NamedTuple):
    """A crossing, as far as the chain decides it."""

    alert: str
    direction: str
    threshold: Fraction
    amount: str
    previous_amount: str | None
    version: int


def listed(value):
    return [value] if isinstance(value, str) else value


def speaks_of(table, key, names):
    """`names`: the key's label and its tags."""
    label, tags = names
    return (
        all(getattr(key, part) in listed(table[part]) for part in PARTS if part in table)
        and ("label" not in table or label in listed(table["label"]))
        and ("tag" not in table or bool({*tags} & {*listed(table["tag"])}))
    )


def in_unit(text, table, unit):
    return Fraction(text) * (10 ** table.get("decimals", 0) if unit == "base" else 1)


def threshold_of(table, unit):
    return in_unit(table.get("below") or table["above"], table, unit)


def becomes(table, unit, fired, amount):
    """below, above, cleared or None."""
    side, sign = ("below", -1) if "below" in table else ("above", 1)
    limit = threshold_of(table, unit)
    clear = in_unit(table["clear"], table, unit) if "clear" in table else limit
    amount = Fraction(amount)
    if fired == side:
        return "cleared" if sign * amount <= sign * clear else None
    if sign * amount > sign * limit:
        return side
    return "cleared" if fired else None


class Oracle:
    """The alerts on every balance, as the chain so far has left them."""

    def __init__(self):
        self.fired = {}
        """(alert, key) → below or above."""
        self.told = set()
        self.count = 0

    def due(self, tables, key, names, state):
        """What the amount as it stands would make."""
        return [
            (table, direction)
            for table in tables
            if speaks_of(table, key, names)
            and (direction := becomes(table, state.unit, self.fired.get((table["name"], key)), state.amount))
        ]

    def step(self, tables, key, names, state, previous_amount, *, row):
        """The crossings of a commit of that state; or, without a row, of what was committed before."""
        found = []
        for table, direction in self.due(tables, key, names, state):
            name = table["name"]
            self.fired[name, key] = None if direction == "cleared" else direction
            one = Told(name, direction, threshold_of(table, state.unit), state.amount, previous_amount, state.version)
            if (name, key, state.version, direction) not in self.told:
                found.append(one)
            self.told.add((name, key, state.version, direction))
        if row:
            speaking = {table["name"] for table in tables if speaks_of(table, key, names)}
            for name, other in list(self.fired):
                if other == key and name not in speaking:
                    self.fired[name, key] = None
        self.count += len(found)
        return found
