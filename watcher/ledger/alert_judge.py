"""Alerts against what is committed: which crossings a commit makes, and what is kept of each alert on each balance.

An alert is judged from its state as committed and from the amount that is about to be committed, by `Rule.crossing`. State,
crossing and change go to the journal in one transaction, so a crossing is made once: judging the same amount anew makes
nothing. Only what has ever crossed has a state.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from decimal import Decimal

import msgspec

from watcher.ledger.record import BalanceRecord
from watcher.model.alert_index import NO_ALERTS, AlertIndex, Rule, Side
from watcher.model.alerts import Crossing, Direction, crossing_id
from watcher.model.events import BalanceChanged, BalanceState
from watcher.model.keys import Key
from watcher.model.readings import Unit

PREFIX = "alert:"
"""Of the keys of notes that hold the state of an alert."""
MOST_CALM = 100_000
"""Balances of which it is kept between which amounts nothing crosses."""
INFINITE = Decimal("Infinity")


class AlertState(msgspec.Struct, frozen=True):
    """One alert on one balance, since it has crossed for the first time: as a note, in JSON."""

    alert: str
    key: str
    fired: Side | None
    versions: dict[Direction, int]
    """Of the last crossing of each direction: no id is told twice."""
    threshold: str
    """In the unit of the amount, when it crossed last."""
    observed_at: str


class _Judged(msgspec.Struct, frozen=True):
    """A balance whose amount is being committed; or is committed, and judged anew."""

    key: Key
    unit: Unit
    amount: str
    version: int
    previous_amount: str | None
    observed_at: str
    row: bool
    """Its amount is being committed."""


class Judgement(msgspec.Struct, frozen=True):
    """What a commit says of the alerts on one balance."""

    crossings: list[Crossing]
    states: list[AlertState]
    """Those that are others afterwards."""
    notes: dict[str, bytes]
    """The same, as the journal keeps them."""


class Calm(msgspec.Struct, frozen=True, gc=False):
    """Between these amounts, and not at them, nothing crosses. Wrong only in that there may be more."""

    unit: Unit
    low: Decimal
    high: Decimal


_UNKNOWN = Calm("base", INFINITE, -INFINITE)
"""Stands for what was not looked up yet."""


class AlertJudge:
    """Of one partition. `judge` what is taken; then it is `committed` or not."""

    def __init__(self) -> None:
        self.index: AlertIndex = NO_ALERTS
        self.active = False
        """There is something to judge: an alert, or one that has fired and is gone from the config."""
        self.in_flight: dict[Key, Judgement] = {}
        self.fired: Counter[str] = Counter()
        """Alert → balances on which it has fired, as committed."""
        self._states: defaultdict[Key, dict[str, AlertState]] = defaultdict(dict)
        self._calm: dict[Key, Calm | None] = {}
        """None: no alert speaks of it."""

    def use(self, index: AlertIndex) -> None:
        """Judge by these from now on. States stay."""
        self.index = index
        self._calm = {}
        self._look()

    def restore(self, notes: Mapping[str, bytes]) -> None:
        """The states are those that the journal has. What was in flight is in them or was not committed."""
        self.in_flight, self._states, self._calm = {}, defaultdict(dict), {}
        self.fired.clear()
        for name, data in notes.items():
            if name.startswith(PREFIX):
                state = msgspec.json.decode(data, type=AlertState)
                self._keep(Key.parse(state.key), state)
        self._look()

    def judge(self, epoch: str, key: Key, state: BalanceState, event: BalanceChanged | None) -> None:
        """What the row means for the alerts, in the log `epoch`: from here on in flight. HOT."""
        calm = self._calm.get(key, _UNKNOWN)
        if calm is _UNKNOWN or (calm is not None and calm.unit != state.unit):
            calm = self._keep_calm(key, state.unit)
        if calm is None or calm.low < Decimal(state.amount) < calm.high:
            return
        previous = None if event is None else event.previous_amount
        self._settle(
            epoch, _Judged(key, state.unit, state.amount, state.version, previous, state.observed_at, row=True)
        )

    def judge_anew(self, epoch: str, key: Key, record: BalanceRecord, observed_at: str) -> None:
        """The same of the committed amount, which was seen again at that time (RFC 3339)."""
        assert record.denomination is not None
        assert record.amount is not None
        unit, amount = record.denomination.unit, record.amount
        self._settle(epoch, _Judged(key, unit, amount, record.version, None, observed_at, row=False))

    def _settle(self, epoch: str, one: "_Judged") -> None:
        if not _encodable(one.key):
            return  # no journal takes it
        crossings, states = self._outcome(epoch, one)
        if states:
            notes = {note_key(state.alert, state.key): msgspec.json.encode(state) for state in states}
            self.in_flight[one.key] = Judgement(crossings, states, notes)

    def would_cross(self, key: Key, unit: Unit, amount: str) -> bool:
        """Whether something becomes of an alert where this committed amount is judged anew."""
        rules = self.index.rules(key, unit)
        if not rules:
            return False
        states, number = self._states.get(key, {}), Decimal(amount)
        return any(rule.crossing(_fired(states, rule), number) is not None for rule in rules)

    def crossings(self) -> list[Crossing]:
        """Those in flight."""
        return [crossing for judgement in self.in_flight.values() for crossing in judgement.crossings]

    def notes(self) -> dict[str, bytes]:
        """Those in flight."""
        return {name: data for judgement in self.in_flight.values() for name, data in judgement.notes.items()}

    def judged(self) -> dict[str, Key]:
        """The names of those notes, each with the balance that it is of."""
        return {name: key for key, judgement in self.in_flight.items() for name in judgement.notes}

    def committed(self) -> None:
        """What was in flight is in the journal."""
        for key, judgement in self.in_flight.items():
            self._calm.pop(key, None)
            for state in judgement.states:
                self._keep(key, state)
        self.in_flight = {}
        self._look()

    def not_committed(self) -> None:
        """It is not: judge anew."""
        self.in_flight = {}

    def _look(self) -> None:
        self.active = bool(self.index) or bool(self.fired)

    def _keep(self, key: Key, state: AlertState) -> None:
        former = self._states[key].get(state.alert)
        self._states[key][state.alert] = state
        self.fired[state.alert] += (state.fired is not None) - (former is not None and former.fired is not None)
        if not self.fired[state.alert]:
            del self.fired[state.alert]

    def _keep_calm(self, key: Key, unit: Unit) -> Calm | None:
        if len(self._calm) >= MOST_CALM:
            self._calm.clear()
        rules, states = self.index.rules(key, unit), self._states.get(key, {})
        found = self._calm[key] = _calm(unit, rules, states) if rules or _gone(states, rules) else None
        return found

    def _outcome(self, epoch: str, one: "_Judged") -> tuple[list[Crossing], list[AlertState]]:
        rules, states = self.index.rules(one.key, one.unit), self._states.get(one.key, {})
        amount = Decimal(one.amount)
        crossings: list[Crossing] = []
        found: list[AlertState] = []
        for rule in rules:
            direction = rule.crossing(_fired(states, rule), amount)
            if direction is not None:
                former = states.get(rule.name)
                found.append(_crossed(former, rule, direction, one))
                # After an edit at one version: who has been told it is not told again.
                if former is None or former.versions.get(direction) != one.version:
                    crossings.append(_crossing(epoch, rule, direction, one))
        if one.row:
            found += [msgspec.structs.replace(state, fired=None) for state in _gone(states, rules)]
        return crossings, found


def _encodable(key: Key) -> bool:
    """It may be made of whatever a provider wrote, half a character too."""
    text = str(key)
    return text.isascii() or text.encode(errors="ignore").decode() == text


def note_key(alert: str, key: str) -> str:
    """Of the state of that alert on that balance. Never contains `/`."""
    return PREFIX + hashlib.blake2b(f"{key}\n{alert}".encode(), digest_size=16).hexdigest()


def _fired(states: Mapping[str, AlertState], rule: Rule) -> Side | None:
    state = states.get(rule.name)
    return None if state is None else state.fired


def _gone(states: Mapping[str, AlertState], rules: Collection[Rule]) -> list[AlertState]:
    """Those that have fired, and speak of the balance no more."""
    if not states:
        return []
    names = {rule.name for rule in rules}
    return [state for state in states.values() if state.fired is not None and state.alert not in names]


def _calm(unit: Unit, rules: Collection[Rule], states: Mapping[str, AlertState]) -> Calm:
    low, high = -INFINITE, INFINITE
    if _gone(states, rules):
        return Calm(unit, high, low)
    for rule in rules:
        fired = _fired(states, rule)
        if fired is None:
            low, high = (max(low, rule.limit), high) if rule.side == "below" else (low, min(high, rule.limit))
        elif fired == rule.side:
            low, high = (low, min(high, rule.clear)) if rule.side == "below" else (max(low, rule.clear), high)
        else:
            return Calm(unit, INFINITE, -INFINITE)
    return Calm(unit, low, high)


def _crossed(former: AlertState | None, rule: Rule, direction: Direction, one: _Judged) -> AlertState:
    versions = {} if former is None else former.versions
    return AlertState(
        alert=rule.name,
        key=str(one.key),
        fired=None if direction == "cleared" else direction,
        versions={**versions, direction: one.version},
        threshold=rule.threshold,
        observed_at=one.observed_at,
    )


def _crossing(epoch: str, rule: Rule, direction: Direction, one: _Judged) -> Crossing:
    key = one.key
    return Crossing(
        id=crossing_id(epoch, rule.name, key, one.version, direction),
        alert=rule.name,
        direction=direction,
        threshold=rule.threshold,
        amount=one.amount,
        previous_amount=one.previous_amount,
        provider=key.provider,
        chain=key.chain,
        account=key.account,
        token=key.token,
        kind=key.kind,
        version=one.version,
        observed_at=one.observed_at,
    )
