"""From reading to change: what one observation of one balance means, given what is known of it.

Replicas lag, caches repeat themselves and answers overtake one another. These rules decide whether an observation is stale,
repeats what is known, is a change, or is only a candidate until a later request repeats it.
docs/semantics.md says the same for users.
"""

from enum import Enum, auto
from typing import NamedTuple

import msgspec

from watcher.ledger.record import Arrival, BalanceRecord, Candidate
from watcher.model.events import RecentAmount
from watcher.model.readings import Ordering

ABSENT = "0"
"""What a balance is that its provider does not name."""
MOST_RECENT_AMOUNTS = 32


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One key in one good answer."""

    amount: str
    order: int | None
    ordering: Ordering
    settle: float
    """Seconds."""
    sent: float
    """Monotonic seconds."""
    arrival: Arrival
    absent: bool = False
    """The provider does not name the balance, which makes it `ABSENT` once confirmed."""
    behind: bool = False
    """A newer complete listing did not name this balance."""
    collapsed_from: int = 0
    """Of an absence in a collapse: how many balances were known to be there of which most are missing now. Else 0."""
    rows: int = 0
    """Of an absence: how many balances its listing names."""


class Ruling(Enum):
    STALE = auto()
    """Older than what is known: dropped."""
    OVERTAKEN = auto()
    """Perhaps older than what is known, since there is no order: dropped."""
    UNCHANGED = auto()
    """What is known already."""
    CANDIDATE = auto()
    """A candidate: ask again."""
    CHANGED = auto()
    """A new amount."""


class Outcome(NamedTuple):
    """What one observation means, and what it leaves in the record. Changes nothing by itself: see `Store.apply`."""

    ruling: Ruling
    candidate: Candidate | None
    recent_amounts: tuple[RecentAmount, ...]


class Proof(Enum):
    """What it takes to believe a candidate; the requests must have been sent after the candidate arrived.

    Besides, for any candidate: where ENOUGH later answers over at least `settle` seconds all differ from what is known,
    the newest is believed. A proof that only a quiet balance can give would silence the busy ones for ever.
    """

    REPEAT = auto()
    """The next answer says it again."""
    GREATER = auto()
    """An answer with a greater ordering field says it again."""
    STANDING = auto()
    """The same, or ENOUGH answers say it again: the ordering field may stand still for ever."""
    DIFFERENT = auto()
    """An answer that is not older than the candidate differs from what is known as well, whatever it says."""
    COLLAPSE = auto()
    """Three answers over at least `settle` seconds lack it."""
    ENOUGH = auto()
    """Only what is proof for any candidate."""


ENOUGH = 3
"""Later answers that are proof, for any candidate."""


def outcome_of(known: BalanceRecord, observation: Observation) -> Outcome:
    """What the observation means and leaves behind. Changes nothing."""
    ruling, candidate, recent = rule(known, observation), known.candidate, known.recent_amounts
    if ruling is Ruling.CANDIDATE:
        return Outcome(ruling, next_candidate(candidate, observation), recent_after_candidate(known, observation))
    if ruling is Ruling.CHANGED:
        return Outcome(ruling, None, recent_after_change(known, observation))
    if ruling is Ruling.UNCHANGED:
        recent = still_recent(recent, observation.arrival.observed_at, observation.settle)
        candidate = None if candidate is None else after_unchanged(candidate, observation)
    return Outcome(ruling, candidate, recent)


def rule(known: BalanceRecord, observation: Observation) -> Ruling:
    """What the observation means. Changes nothing."""
    older = observation.order is not None and known.order is not None and observation.order < known.order
    if older and (observation.absent or not known.absent_by_listing):
        return Ruling.STALE
    if observation.amount == known.amount:
        return Ruling.UNCHANGED
    if _overtaken(known, observation):
        return Ruling.OVERTAKEN
    proof = Proof.ENOUGH if older else _needed_proof(known, observation)
    if proof is None or (known.candidate is not None and _proved(known.candidate, observation, proof)):
        return Ruling.CHANGED
    return Ruling.CANDIDATE


def after_unchanged(candidate: Candidate, observation: Observation) -> Candidate | None:
    """What is left of the candidate after an observation of the known amount.

    It is over, unless the observation is no newer than the candidate: it takes ENOUGH of those, for their order may stand
    still for ever. Until then whatever is to prove the candidate must begin anew.
    """
    if observation.sent <= candidate.received:
        return candidate
    if candidate.absent or observation.order is None or candidate.order is None or observation.order > candidate.order:
        return None
    if candidate.denied + 1 >= ENOUGH:
        return None
    began = observation.arrival.received
    return msgspec.structs.replace(candidate, since=began, differing=0, repeated=0, denied=candidate.denied + 1)


def next_candidate(candidate: Candidate | None, observation: Observation) -> Candidate:
    """The candidate that stands after an observation that was not believed: the older of two that say the same, else the newer."""
    received = observation.arrival.received
    if candidate is None:
        return Candidate(
            observation.amount,
            observation.order,
            received,
            observation.absent,
            observation.collapsed_from,
            since=received,
        )
    differing = candidate.differing + (observation.sent > candidate.since)
    ordered = candidate.order is not None or observation.order is None
    if candidate.amount == observation.amount and (ordered or (candidate.absent and observation.absent)):
        order = observation.order if candidate.order is None else candidate.order
        repeated = candidate.repeated + (observation.sent > candidate.received)
        return msgspec.structs.replace(candidate, order=order, differing=differing, repeated=repeated, denied=0)
    if candidate.order is not None and observation.order is not None and observation.order < candidate.order:
        return msgspec.structs.replace(candidate, differing=differing, denied=0)
    return Candidate(
        observation.amount,
        observation.order,
        received,
        observation.absent,
        observation.collapsed_from,
        candidate.since,
        differing,
    )


def recent_after_change(known: BalanceRecord, observation: Observation) -> tuple[RecentAmount, ...]:
    """The amounts to remember once the observation replaces what is known."""
    return _with_amount(known, known.amount, observation)


def recent_after_candidate(known: BalanceRecord, observation: Observation) -> tuple[RecentAmount, ...]:
    """The amounts to remember once the observation became a candidate.

    Two amounts within one tick of a refresh time: the candidate may be gone before it is ever believed, and what
    repeats it later, under a newer time, is a return like any other.
    """
    return (
        _with_amount(known, observation.amount, observation)
        if observation.ordering == "weak" and not observation.absent
        else known.recent_amounts
    )


def _with_amount(known: BalanceRecord, amount: str | None, observation: Observation) -> tuple[RecentAmount, ...]:
    recent_amounts = still_recent(known.recent_amounts, observation.arrival.observed_at, observation.settle)
    if amount is None:
        return recent_amounts
    others = tuple(each for each in recent_amounts if each.amount != amount)
    return (*others, RecentAmount(amount, observation.arrival.observed_at))[-MOST_RECENT_AMOUNTS:]


def still_recent(recent_amounts: tuple[RecentAmount, ...], now: int, settle: float) -> tuple[RecentAmount, ...]:
    """Those that were replaced at most `settle` seconds before `now` (wall-clock microseconds)."""
    recent = tuple(each for each in recent_amounts if _recent(each, now, settle))
    return recent_amounts if len(recent) == len(recent_amounts) else recent


def _overtaken(known: BalanceRecord, observation: Observation) -> bool:
    """Without a trusted order, a request sent before the last accepted answer arrived may have been answered before."""
    if observation.ordering == "strict" and observation.order is not None:
        return False
    return isinstance(known.last_seen, Arrival) and observation.sent < known.last_seen.received


def _needed_proof(known: BalanceRecord, observation: Observation) -> Proof | None:
    """The proof that it takes to believe the observation; None: it is believed at once."""
    if observation.absent:
        began = 0 if known.candidate is None else known.candidate.collapsed_from
        return Proof.COLLAPSE if observation.collapsed_from or 2 * observation.rows < began else Proof.REPEAT
    returns = _returns(known, observation)
    if observation.order is not None:
        if observation.order == known.order:
            return Proof.STANDING
        if returns and observation.ordering == "weak":
            return Proof.GREATER
        if returns and known.absent_without_order:
            return Proof.STANDING
        if isinstance(known.last_seen, str) and known.version >= 0:
            return Proof.DIFFERENT
    if returns and observation.ordering != "strict":
        return Proof.REPEAT
    return Proof.REPEAT if observation.behind else None


def _returns(known: BalanceRecord, observation: Observation) -> bool:
    now = observation.arrival.observed_at
    return any(
        each.amount == observation.amount and _recent(each, now, observation.settle) for each in known.recent_amounts
    )


def _recent(former: RecentAmount, now: int, settle: float) -> bool:
    return now - former.replaced_at <= settle * 1_000_000


def _proved(candidate: Candidate, observation: Observation, proof: Proof) -> bool:
    settled = observation.arrival.received >= candidate.since + observation.settle
    later = observation.sent > candidate.received
    repeats = later and candidate.amount == observation.amount
    if proof is Proof.COLLAPSE:
        long = observation.arrival.received >= candidate.received + observation.settle
        return repeats and candidate.repeated + 1 >= ENOUGH - 1 and long
    if proof is Proof.DIFFERENT and later and not _older(observation, candidate):
        return True
    if repeats and proof is not Proof.ENOUGH and _newer(observation, candidate):
        return True
    # A refresh time that has not moved is the same answer again, out of a cache; but no cache keeps it for ever.
    cached = observation.ordering == "weak" and observation.order is not None
    if repeats and proof is Proof.REPEAT and (not cached or observation.sent > candidate.received + observation.settle):
        return True
    if repeats and proof is Proof.STANDING and candidate.repeated + 1 >= ENOUGH and not cached:
        return True
    enough = candidate.differing + (observation.sent > candidate.since) >= ENOUGH and settled
    return enough and (repeats or not observation.absent)


def _newer(observation: Observation, candidate: Candidate) -> bool:
    return observation.order is not None and candidate.order is not None and observation.order > candidate.order


def _older(observation: Observation, candidate: Candidate) -> bool:
    return observation.order is not None and candidate.order is not None and observation.order < candidate.order


def greatest(one: int | None, other: int | None) -> int | None:
    return other if one is None or (other is not None and other > one) else one
