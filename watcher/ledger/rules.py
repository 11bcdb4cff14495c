"""From reading to change: what one sight of one balance means, given what is known of it.

Replicas lag, caches repeat themselves and answers overtake one another. These rules decide whether a sight is stale,
says what is known already, tells a change, or only makes one a candidate until a later request repeats it.
docs/semantics.md says the same for users.
"""

from enum import Enum, auto

import msgspec

from watcher.events import Had, Ordering, Unit, rfc3339

ABSENT = "0"
"""What a balance is that its provider does not name."""
MOST_HAD = 32


class Moment(msgspec.Struct, gc=False):
    """When an answer arrived. One object for all that the answer says, so that its repetition can move it for all."""

    received: float
    """Monotonic seconds."""
    observed_at: int
    """Wall-clock microseconds."""


class Label(msgspec.Struct, frozen=True, gc=False):
    """What a provider says of a balance beside its amount. Few differ, so they are shared."""

    unit: Unit
    decimals: int | None
    symbol: str | None


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An amount that was seen once and is not believed yet."""

    amount: str
    order: int | None
    """Of an absence: the greatest in the listing."""
    received: float
    """Monotonic seconds: a request sent before proves nothing."""
    absent: bool


class Record(msgspec.Struct, gc=False):
    """What is known of one key: the newest accepted amount, committed or not. There may be a million of these."""

    amount: str | None = None
    """None: nothing was ever accepted."""
    version: int = -1
    """The committed one; -1: none is."""
    order: int | None = None
    """The greatest ordering field that was accepted."""
    seen: Moment | str | None = None
    """The last accepted sight of `amount`; text (RFC 3339): committed by an earlier run, not seen again since."""
    had: tuple[Had, ...] = ()
    """Amounts replaced within the last `settle` seconds, oldest first."""
    label: Label | None = None
    unslotted: bool = False
    """`amount` is an absence that was told without an ordering field."""
    candidate: Candidate | None = None


class Sight(msgspec.Struct, frozen=True, gc=False):
    """One key in one good answer."""

    amount: str
    order: int | None
    ordering: Ordering
    settle: float
    """Seconds."""
    sent: float
    """Monotonic seconds."""
    moment: Moment
    absent: bool = False
    """The provider does not name the balance, which makes it `ABSENT` once confirmed."""
    behind: bool = False
    """A newer complete listing did not name this balance."""


class Ruling(Enum):
    STALE = auto()
    """Older than what is known: dropped."""
    SAME = auto()
    """What is known already."""
    DOUBTED = auto()
    """A candidate: ask again."""
    TOLD = auto()
    """A new amount."""


class Proof(Enum):
    """What it takes to believe a doubted amount; the request must have been sent after the candidate arrived."""

    REPEAT = auto()
    """The next answer says it again."""
    GREATER = auto()
    """An answer with a greater ordering field says it again."""


def rule(known: Record, sight: Sight) -> Ruling:
    """What the sight means. Changes nothing."""
    if sight.order is not None and known.order is not None and sight.order < known.order:
        return Ruling.STALE
    if sight.amount == known.amount:
        return Ruling.SAME
    if _overtaken(known, sight):
        return Ruling.STALE
    proof = _doubt(known, sight)
    if proof is None or _proved(known.candidate, sight, proof):
        return Ruling.TOLD
    return Ruling.DOUBTED


def refuted(candidate: Candidate, sight: Sight) -> bool:
    """A sight of the known amount ends the candidate, unless it is no newer than the candidate."""
    if candidate.absent or sight.order is None or candidate.order is None:
        return sight.sent > candidate.received
    return sight.sent > candidate.received and sight.order > candidate.order


def doubted(candidate: Candidate | None, sight: Sight) -> Candidate:
    """The candidate that stands after a doubted sight: the older of two that say the same, else the newer."""
    if candidate is not None:
        if candidate.amount == sight.amount and (candidate.order is not None or sight.order is None):
            return candidate
        if candidate.order is not None and sight.order is not None and sight.order < candidate.order:
            return candidate
    return Candidate(sight.amount, sight.order, sight.moment.received, sight.absent)


def replaced(known: Record, sight: Sight) -> tuple[Had, ...]:
    """The amounts to remember once the sight replaces what is known."""
    return _and_had(known, known.amount, sight)


def overheard(known: Record, sight: Sight) -> tuple[Had, ...]:
    """The amounts to remember once the sight was doubted.

    Two amounts within one tick of a refresh time: the doubted one may be gone before it is ever believed, and what
    repeats it later, under a newer time, is a return like any other.
    """
    return _and_had(known, sight.amount, sight) if sight.ordering == "weak" and not sight.absent else known.had


def _and_had(known: Record, amount: str | None, sight: Sight) -> tuple[Had, ...]:
    had = remembered(known.had, sight.moment.observed_at, sight.settle)
    if amount is None:
        return had
    others = tuple(each for each in had if each.amount != amount)
    return (*others, Had(amount, sight.moment.observed_at))[-MOST_HAD:]


def remembered(had: tuple[Had, ...], now: int, settle: float) -> tuple[Had, ...]:
    """Those that were replaced at most `settle` seconds before `now` (wall-clock microseconds)."""
    recent = tuple(each for each in had if _recent(each, now, settle))
    return had if len(recent) == len(had) else recent


def _overtaken(known: Record, sight: Sight) -> bool:
    """Without a trusted order, a request sent before the last accepted answer arrived may have been answered before."""
    if sight.ordering == "strict" and sight.order is not None:
        return False
    return isinstance(known.seen, Moment) and sight.sent < known.seen.received


def _doubt(known: Record, sight: Sight) -> Proof | None:
    """Why the sight is not believed at once, as the proof that it takes; None when it is."""
    if sight.absent:
        return Proof.REPEAT
    returns = _returns(known, sight)
    if sight.order is not None:
        if sight.order == known.order or (isinstance(known.seen, str) and known.version >= 0):
            return Proof.GREATER
        if returns and (known.unslotted or sight.ordering == "weak"):
            return Proof.GREATER
    if returns and sight.ordering != "strict":
        return Proof.REPEAT
    return Proof.REPEAT if sight.behind else None


def _returns(known: Record, sight: Sight) -> bool:
    now = sight.moment.observed_at
    return any(each.amount == sight.amount and _recent(each, now, sight.settle) for each in known.had)


def _recent(had: Had, now: int, settle: float) -> bool:
    return now - had.replaced_at <= settle * 1_000_000


def _proved(candidate: Candidate | None, sight: Sight, proof: Proof) -> bool:
    if candidate is None or candidate.amount != sight.amount or sight.sent <= candidate.received:
        return False
    if sight.order is not None and candidate.order is not None and sight.order > candidate.order:
        return True
    # A refresh time that has not moved is the same answer again, out of a cache; but no cache keeps it for ever.
    cached = sight.ordering == "weak" and sight.order is not None
    return proof is Proof.REPEAT and (not cached or sight.sent > candidate.received + sight.settle)


def greatest(one: int | None, other: int | None) -> int | None:
    return other if one is None or (other is not None and other > one) else one


def text_of(seen: Moment | str | None) -> str | None:
    """RFC 3339."""
    return rfc3339(seen.observed_at) if isinstance(seen, Moment) else seen
