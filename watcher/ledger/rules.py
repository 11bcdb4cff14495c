"""From reading to change: what one sight of one balance means, given what is known of it.

Replicas lag, caches repeat themselves and answers overtake one another. These rules decide whether a sight is stale,
says what is known already, tells a change, or only makes one a candidate until a later request repeats it.
docs/semantics.md says the same for users.
"""

from enum import Enum, auto

import msgspec

from watcher.model.events import Had
from watcher.model.readings import Ordering, Unit
from watcher.model.times import rfc3339

ABSENT = "0"
"""What a balance is that its provider does not name."""
MOST_HAD = 32
WENT_BACK = (10, 900.0)
"""Answers, and seconds, after which an order that everything is older than is given up: it was never right, or the
chain began anew."""


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
    """An amount that was seen and is not believed yet, and for how long nothing but differences has been seen."""

    amount: str
    order: int | None
    """Of an absence: the greatest in the listing."""
    received: float
    """Monotonic seconds: a request sent before confirms nothing."""
    absent: bool
    lacking: int
    """As its first sight had it."""
    since: float
    """Monotonic seconds: when the first of the answers arrived that all differ from what is known."""
    differing: int = 0
    """Answers after the first one of those, to requests sent after it."""
    repeated: int = 0
    """Answers that repeated `amount`, to requests sent after it was received."""
    denied: int = 0
    """Answers since then that said what is known, but no newer than this."""


class Lag(msgspec.Struct, gc=False):
    """All that came for a key since the last accepted reading was older than its greatest order."""

    since: float
    """Monotonic seconds."""
    answers: int = 0

    def over(self, now: float) -> bool:
        """One more such answer: is the greatest order to be given up?"""
        self.answers += 1
        answers, seconds = WENT_BACK
        return self.answers >= answers and now - self.since >= seconds


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
    unnamed: bool = False
    """`amount` is an absence that a listing told, and `order` is that listing's: the row itself had another, which may
    be that of its last write. A row that comes back with it is older by its order, and may be true all the same."""
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
    lacking: int = 0
    """Of an absence in a collapse: how many balances were known to be there of which most are missing now. Else 0."""
    rows: int = 0
    """Of an absence: how many balances its listing names."""


class Ruling(Enum):
    STALE = auto()
    """Older than what is known: dropped."""
    OVERTAKEN = auto()
    """Perhaps older than what is known, for there is no order to tell: dropped."""
    SAME = auto()
    """What is known already."""
    DOUBTED = auto()
    """A candidate: ask again."""
    TOLD = auto()
    """A new amount."""


class Proof(Enum):
    """What it takes to believe a doubted amount; the requests must have been sent after the candidate arrived.

    Besides, whatever the doubt: where ENOUGH later answers over at least `settle` seconds all differ from what is known,
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
    """Only what is proof whatever the doubt."""


ENOUGH = 3
"""Later answers that are proof, whatever the doubt."""


def rule(known: Record, sight: Sight) -> Ruling:
    """What the sight means. Changes nothing."""
    older = sight.order is not None and known.order is not None and sight.order < known.order
    if older and (sight.absent or not known.unnamed):
        return Ruling.STALE
    if sight.amount == known.amount:
        return Ruling.SAME
    if _overtaken(known, sight):
        return Ruling.OVERTAKEN
    proof = Proof.ENOUGH if older else _doubt(known, sight)
    if proof is None or (known.candidate is not None and _proved(known.candidate, sight, proof)):
        return Ruling.TOLD
    return Ruling.DOUBTED


def after_same(candidate: Candidate, sight: Sight) -> Candidate | None:
    """What is left of the candidate after a sight of the known amount.

    It is over, unless the sight is no newer than the candidate: it takes ENOUGH of those, for their order may stand
    still for ever. Until then whatever is to prove the candidate must begin anew.
    """
    if sight.sent <= candidate.received:
        return candidate
    if candidate.absent or sight.order is None or candidate.order is None or sight.order > candidate.order:
        return None
    if candidate.denied + 1 >= ENOUGH:
        return None
    began = sight.moment.received
    return msgspec.structs.replace(candidate, since=began, differing=0, repeated=0, denied=candidate.denied + 1)


def doubted(candidate: Candidate | None, sight: Sight) -> Candidate:
    """The candidate that stands after a doubted sight: the older of two that say the same, else the newer."""
    received = sight.moment.received
    if candidate is None:
        return Candidate(sight.amount, sight.order, received, sight.absent, sight.lacking, since=received)
    differing = candidate.differing + (sight.sent > candidate.since)
    ordered = candidate.order is not None or sight.order is None
    if candidate.amount == sight.amount and (ordered or (candidate.absent and sight.absent)):
        order = sight.order if candidate.order is None else candidate.order
        repeated = candidate.repeated + (sight.sent > candidate.received)
        return msgspec.structs.replace(candidate, order=order, differing=differing, repeated=repeated, denied=0)
    if candidate.order is not None and sight.order is not None and sight.order < candidate.order:
        return msgspec.structs.replace(candidate, differing=differing, denied=0)
    return Candidate(sight.amount, sight.order, received, sight.absent, sight.lacking, candidate.since, differing)


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
        began = 0 if known.candidate is None else known.candidate.lacking
        return Proof.COLLAPSE if sight.lacking or 2 * sight.rows < began else Proof.REPEAT
    returns = _returns(known, sight)
    if sight.order is not None:
        if sight.order == known.order:
            return Proof.STANDING
        if returns and sight.ordering == "weak":
            return Proof.GREATER
        if returns and known.unslotted:
            return Proof.STANDING
        if isinstance(known.seen, str) and known.version >= 0:
            return Proof.DIFFERENT
    if returns and sight.ordering != "strict":
        return Proof.REPEAT
    return Proof.REPEAT if sight.behind else None


def _returns(known: Record, sight: Sight) -> bool:
    now = sight.moment.observed_at
    return any(each.amount == sight.amount and _recent(each, now, sight.settle) for each in known.had)


def _recent(had: Had, now: int, settle: float) -> bool:
    return now - had.replaced_at <= settle * 1_000_000


def _proved(candidate: Candidate, sight: Sight, proof: Proof) -> bool:
    settled = sight.moment.received >= candidate.since + sight.settle
    later = sight.sent > candidate.received
    repeats = later and candidate.amount == sight.amount
    if proof is Proof.COLLAPSE:
        long = sight.moment.received >= candidate.received + sight.settle
        return repeats and candidate.repeated + 1 >= ENOUGH - 1 and long
    if proof is Proof.DIFFERENT and later and not _older(sight, candidate):
        return True
    if repeats and proof is not Proof.ENOUGH and _newer(sight, candidate):
        return True
    # A refresh time that has not moved is the same answer again, out of a cache; but no cache keeps it for ever.
    cached = sight.ordering == "weak" and sight.order is not None
    if repeats and proof is Proof.REPEAT and (not cached or sight.sent > candidate.received + sight.settle):
        return True
    if repeats and proof is Proof.STANDING and candidate.repeated + 1 >= ENOUGH and not cached:
        return True
    enough = candidate.differing + (sight.sent > candidate.since) >= ENOUGH and settled
    return enough and (repeats or not sight.absent)


def _newer(sight: Sight, candidate: Candidate) -> bool:
    return sight.order is not None and candidate.order is not None and sight.order > candidate.order


def _older(sight: Sight, candidate: Candidate) -> bool:
    return sight.order is not None and candidate.order is not None and sight.order < candidate.order


def greatest(one: int | None, other: int | None) -> int | None:
    return other if one is None or (other is not None and other > one) else one


def text_of(seen: Moment | str | None) -> str | None:
    """RFC 3339."""
    return rfc3339(seen.observed_at) if isinstance(seen, Moment) else seen
