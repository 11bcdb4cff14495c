"""Fence, lease, hand-over and release of one partition: some members, and every order in which their steps can be taken.

docs/fleet-model.md says what is proved. Time is counted in ticks, and a step takes none. No step ever has to be taken: a member
that is frozen, a commit that is late and a message that is lost are those whose next step comes after any number of ticks, or
never. A rule that all orders keep is proved for the bound; without it some order breaks what is to be proved.

Times are kept as ticks that are left, for as long as they matter, and not as dates. So the states are finite, and they stand for
any length of time and any number of hand-overs.
"""

import string
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

NEVER = -1
TICK = "a tick"

RULES = {
    "no lease": "a request leaves whatever the lease says",
    "lease looked at at the grant only": "what was granted in time leaves at any later time",
    "lease counted from the end of the commit": "a commit whose answer comes late gives a lease that ends late",
    "clock stands still": "a member that was suspended reads a clock that was suspended too",
    "doubt stamped at the fence": "what the former owner may still send counts as sent already",
    "saved in flight stamped at the fence": "what was granted and not sent at the save counts as sent at the fence",
    "doubt not counted": "only what the former owner has saved counts",
    "stamps not handed over": "the next owner begins with an empty window",
    "grants from the fence on": "the next owner does not wait for the end of the former one's lease",
    "fence timed before it": "the wait counts from when the fence was asked for",
    "released written before in-flight ended": "a request leaves after the next owner was told that none does",
    "released before its own first request": "an owner that waits for the end of the former one's lease says that nobody sends",
    "released with the former owner's stamps": "an owner that has never polled says that nothing is in doubt of the one before",
    "restore before fence": "what was committed between the two is missed",
    "grants before the restored stamps are saved": "the owner after the next one does not learn of the first one's doubt",
    "unsaved grants without a bound": "more is sent than the next owner takes to be in doubt",
    "release outlives the next open": "the owner after the next one takes the release for that of the one before it",
    "memory kept across another owner": "who opens anew after a doubt goes on although another one has owned meanwhile",
}
"""Rules that can be left out → what then happens."""


class Phase(IntEnum):
    """Of one member."""

    OUT = 0
    ASKS = 1
    """Only where the fence is timed before it, or the state read before it: it has been asked for."""
    FENCING = 2
    """The fence stands, and the member does not know it yet."""
    FENCED = 3
    OWNER = 4
    ANEW = 5
    """An owner that has opened anew after a doubt, and has fenced another one that came in between. It does not know yet."""


HOLDS = {Phase.OWNER, Phase.ANEW}
"""Phases with a limiter and a lease."""


class Saved(NamedTuple):
    """What a limiter saves."""

    stamps: tuple[int, ...] = ()
    """Ticks for which each still counts, longest first."""
    in_flight: int = 0


class Commit(NamedTuple):
    """Under way: started, perhaps in the log, its answer not read yet."""

    lease: int
    """Ticks of the lease that it gives, counted from its start."""
    saved: Saved
    release: bool = False
    landed: bool = False


class Member(NamedTuple):
    """A process, as far as this partition is concerned. Times are ticks left."""

    phase: Phase = Phase.OUT
    read: tuple[Saved, bool] | None = None
    """Only where the state is read before the fence."""
    begin: int = 0
    """Until its first request may leave."""
    lease: int = 0
    stamps: tuple[int, ...] = ()
    """Ticks for which each still counts, longest first: restored ones, and its own."""
    granted: int = 0
    """Requests between the grant and the wire."""
    unsaved: int = NEVER
    """Until the first grant since the last save is too old."""
    saving: int = NEVER
    """The same of a grant that is being saved."""
    pace: int = 0
    """Until the next even grant."""
    commit: Commit | None = None


class Log(NamedTuple):
    """One partition of the journal."""

    owner: int = NEVER
    """Who has fenced last."""
    saved: Saved = Saved()
    released: bool = True
    """As in a fresh log, where nobody can be in doubt."""


class State(NamedTuple):
    members: tuple[Member, ...]
    log: Log = Log()
    newest: int = NEVER
    """The member whose opening is the latest."""
    opens: int = 0
    """Ticks until that one's first request may leave."""
    arrivals: tuple[int, ...] = ()
    """Requests at the provider: ticks for which each still counts, longest first."""


class Broken(NamedTuple):
    """What a step has led to that no order of steps may lead to."""

    reason: str


def tick(ticks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(left - 1 for left in ticks if left > 1)


def longest_first(ticks) -> tuple[int, ...]:
    return tuple(sorted(ticks, reverse=True))


def less(left: int) -> int:
    return left - 1 if left > 0 else left


class Model:
    """The rules, with at most one left out.

    late: ticks for which grants may go unsaved, and of a lease. window, requests: the provider's limit.
    """

    def __init__(self, late: int, window: int, requests: int, members: int = 2, without: str | None = None) -> None:
        self.late, self.window, self.requests, self.without = late, window, requests, without
        self.interval = window // requests
        self.doubt = -(-late // self.interval)
        """Grants that can go unsaved."""
        self._asks = without in ("fence timed before it", "restore before fence")
        self.start = State((Member(),) * members)

    def steps(self, state: State) -> Iterator[tuple[str, State | Broken]]:
        """(what happens, what it leads to)."""
        yield from self._ticks(state)
        for me, member in enumerate(state.members):
            for name, rule in STEPS[member.phase].items():
                for after in rule(self, state, me, member):
                    yield f"{string.ascii_uppercase[me]} {name}", after

    # Time

    def _ticks(self, state: State) -> Iterator[tuple[str, State]]:
        aged = tuple(self._aged(member) for member in state.members)
        ways = [aged]
        if self.without == "clock stands still":
            ways += [(*aged[:me], member, *aged[me + 1 :]) for me, member in enumerate(state.members)]
        saved = state.log.saved
        for members in ways:
            yield (
                TICK,
                state._replace(
                    members=members,
                    log=state.log._replace(saved=saved._replace(stamps=tick(saved.stamps))),
                    opens=less(state.opens),
                    arrivals=tick(state.arrivals),
                ),
            )

    def _aged(self, member: Member) -> Member:
        if member.phase == Phase.OUT:
            return member
        commit, read = member.commit, member.read
        if commit is not None:
            saved = commit.saved._replace(stamps=tick(commit.saved.stamps))
            commit = commit._replace(lease=less(commit.lease), saved=saved)
        if read is not None:
            read = (read[0]._replace(stamps=tick(read[0].stamps)), read[1])
        return member._replace(
            read=read,
            begin=less(member.begin),
            lease=less(member.lease),
            stamps=tick(member.stamps),
            unsaved=less(member.unsaved),
            saving=less(member.saving),
            pace=less(member.pace),
            commit=commit,
        )

    # Requests

    def grants(self, state: State, me: int, member: Member) -> Iterator[State]:
        leased = member.lease > 0 or self.without == "no lease"
        saved = (member.unsaved != 0 and member.saving != 0) or self.without == "unsaved grants without a bound"
        ready = member.begin == 0 and member.pace == 0 and leased and saved
        leaving = member.commit is not None and member.commit.release
        room = len(member.stamps) + member.granted < self.requests
        if ready and room and not leaving:
            unsaved = self.late if member.unsaved == NEVER else member.unsaved
            yield put(state, me, member._replace(granted=member.granted + 1, unsaved=unsaved, pace=self.interval))

    def sends(self, state: State, me: int, member: Member) -> Iterator[State | Broken]:
        """The look at the lease and the write are one step; they are microseconds apart.

        The answer comes at once: a later one only lets the limiter count the request for longer.
        """
        looks = self.without not in ("no lease", "lease looked at at the grant only")
        if member.granted and (member.lease > 0 or not looks):
            if state.newest != me and state.opens == 0:
                yield Broken("overlap: a former owner sends when the next one may")
                return
            arrivals = longest_first((*state.arrivals, self.window))
            if len(arrivals) > self.requests:
                yield Broken(f"limit: {len(arrivals)} requests in {self.window} ticks")
                return
            yield self._covered(put(state._replace(arrivals=arrivals), me, self._stamped(member)))

    def refuses(self, state: State, me: int, member: Member) -> Iterator[State]:
        """At the wire, the lease being over. Its slot counts as spent."""
        if member.granted and not member.lease:
            yield put(state, me, self._stamped(member))

    def _stamped(self, member: Member) -> Member:
        stamps = longest_first((*member.stamps, self.window))[: self.requests]
        return member._replace(granted=member.granted - 1, stamps=stamps)

    def _covered(self, state: State) -> State | Broken:
        """For each request at the provider the newest owner has a stamp of its own, which counts as long or longer."""
        me, sent = state.newest, state.arrivals
        if me != NEVER and state.members[me].phase in HOLDS and state.log.owner == me:
            counted = state.members[me].stamps
            if len(sent) > len(counted) or any(left > stamp for left, stamp in zip(sent, counted, strict=False)):
                return Broken(f"not counted: the owner's stamps are {counted}, the provider's {sent} (ticks left)")
        return state

    # Commits

    def commits_rows(self, state: State, me: int, member: Member) -> Iterator[State]:
        """Without the limiter's note. At once: an answer that comes late gives no more, since the lease counts from the start."""
        if member.commit is None and state.log.owner == me:
            yield put(state, me, member._replace(lease=self.late))

    def starts_to_save(self, state: State, me: int, member: Member) -> Iterator[State]:
        """A commit with the limiter's note; or the last one, with the release, once nothing is out."""
        if member.commit is not None:
            return
        saved = Saved(member.stamps, member.granted)
        saving = min((left for left in (member.unsaved, member.saving) if left != NEVER), default=NEVER)
        saver = member._replace(commit=Commit(self.late, saved), saving=saving, unsaved=NEVER)
        yield put(state, me, saver)
        ended = not member.granted or self.without == "released written before in-flight ended"
        begun = not member.begin or self.without == "released before its own first request"
        if self.without == "released with the former owner's stamps":
            saved = state.log.saved
        if ended and begun:
            yield put(state, me, saver._replace(commit=Commit(self.late, saved, release=True)))

    def save_lands(self, state: State, me: int, member: Member) -> Iterator[State]:
        commit = member.commit
        if commit is not None and not commit.landed and state.log.owner == me:
            log = Log(me, commit.saved, commit.release or state.log.released)
            yield put(state._replace(log=log), me, member._replace(commit=commit._replace(saved=Saved(), landed=True)))

    def save_succeeds(self, state: State, me: int, member: Member) -> Iterator[State]:
        commit = member.commit
        if commit is None or not commit.landed or commit.release:
            return  # who has released ends
        lease = self.late if self.without == "lease counted from the end of the commit" else commit.lease
        yield put(state, me, member._replace(commit=None, lease=max(lease, member.lease), saving=NEVER))

    # Owners

    def asks_for_the_fence(self, state: State, me: int, member: Member) -> Iterator[State]:
        if self._asks:
            read = (state.log.saved, state.log.released) if self.without == "restore before fence" else None
            yield put(state, me, member._replace(phase=Phase.ASKS, read=read, begin=self.late))

    def fences(self, state: State, me: int, member: Member) -> Iterator[State]:
        if member.phase == Phase.ASKS or not self._asks:
            log = state.log._replace(owner=me)
            yield put(state._replace(log=log), me, member._replace(phase=Phase.FENCING))

    def opens_anew(self, state: State, me: int, member: Member) -> Iterator[State]:
        """A commit got no answer in time: it is in the log, or never will be. Alone, the owner goes on with what it knows."""
        if member.commit and member.commit.release:
            return
        member = member._replace(commit=None)
        if state.log.owner != me:
            state = state._replace(log=state.log._replace(owner=me))
            if self.without == "memory kept across another owner":
                state = state._replace(newest=me, opens=0)
            else:
                member = member._replace(phase=Phase.ANEW)
        yield put(state, me, member)

    def learns_of_its_fence(self, state: State, me: int, member: Member) -> Iterator[State]:
        """From here on the time is counted: after the fence, whenever that is known."""
        if state.log.owner == me:
            begin = member.begin if self.without == "fence timed before it" else self.late
            fenced = Member(Phase.FENCED, begin=begin, read=member.read)
            yield put(state._replace(newest=me, opens=begin), me, fenced)

    def restores(self, state: State, me: int, member: Member) -> Iterator[State | Broken]:
        """And claims: the record of an owner stands in the log before its first grant."""
        if state.log.owner != me:
            return
        saved, released = member.read or (state.log.saved, state.log.released)
        begin = 0 if released or self.without == "grants from the fence on" else member.begin
        stamps = saved.stamps if released else self._in_doubt(saved, member.begin)
        first = NEVER if self.without == "grants before the restored stamps are saved" else 0
        owner = Member(Phase.OWNER, begin=begin, lease=self.late, stamps=stamps, unsaved=first)
        kept = released and self.without == "release outlives the next open"
        log = state.log._replace(released=kept)
        yield self._covered(put(state._replace(log=log, opens=begin), me, owner))

    def _in_doubt(self, saved: Saved, begin: int) -> tuple[int, ...]:
        """The stamps, with what the former owner may have granted until `begin` as spent then."""
        last = begin + self.window
        doubtful = last - self.late if self.without == "doubt stamped at the fence" else last
        count = 0 if self.without == "doubt not counted" else self.doubt
        in_flight = last - self.late if self.without == "saved in flight stamped at the fence" else last
        stamps = () if self.without == "stamps not handed over" else saved.stamps
        lives = (*stamps, *(saved.in_flight * [in_flight]), *(count * [doubtful]))
        # More than fill a window make no difference: of those that do, the first to end is the first to leave room.
        return longest_first(left for left in lives if left > 0)[: self.requests]

    def ends(self, state: State, me: int, member: Member) -> Iterator[State]:
        """It is killed, or has learned that the partition is another's: its lease ends."""
        if member.phase != Phase.OUT:
            yield put(state, me, Member())

    # States that differ in nothing that matters

    def canonical(self, state: State) -> State:
        return state._replace(
            members=tuple(self._reduced(state, me, member) for me, member in enumerate(state.members))
        )

    def _reduced(self, state: State, me: int, member: Member) -> Member:
        """A fenced member's commit lands no more, and the answer to one that has landed may come at once when it brings no lease.
        A member whose lease is over for good can only end or open anew.
        """
        if member.phase not in HOLDS or self.without is not None:
            return member
        owns = state.log.owner == me
        commit = member.commit
        if commit is not None and commit.release and (commit.landed or not owns):
            return Member()
        if commit is not None and not owns and not commit.landed:
            member = member._replace(commit=None)
        elif commit is not None and not owns and commit.lease <= member.lease:
            member = member._replace(commit=None, saving=NEVER)
        if member.lease or member.commit or (owns and member.phase != Phase.ANEW):
            return member
        return Member(Phase.FENCING) if member.phase == Phase.ANEW and owns else Member()


ENDS = {"ends": Model.ends}
FENCES = {"fences": Model.fences}
LEARNS = {"learns that it has fenced": Model.learns_of_its_fence}
POLLS = {"grants": Model.grants, "sends": Model.sends, "does not send": Model.refuses}
COMMITS = {
    "commits rows": Model.commits_rows,
    "starts to save": Model.starts_to_save,
    "has its save in the log": Model.save_lands,
    "learns that it has saved": Model.save_succeeds,
    "opens anew": Model.opens_anew,
}
STEPS = {
    Phase.OUT: {"asks for the fence": Model.asks_for_the_fence} | FENCES,
    Phase.ASKS: FENCES | ENDS,
    Phase.FENCING: LEARNS | ENDS,
    Phase.FENCED: {"restores": Model.restores} | ENDS,
    Phase.OWNER: POLLS | COMMITS | ENDS,
    Phase.ANEW: POLLS | LEARNS | ENDS,
}
"""Phase → the steps that a member can take in it."""


def put(state: State, me: int, member: Member) -> State:
    return state._replace(members=(*state.members[:me], member, *state.members[me + 1 :]))
