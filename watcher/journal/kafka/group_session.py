"""What a member knows of its own place in the group: how long it is still counted in, when it may ask for a join. Pure.

The coordinator takes a member for dead when it has not heard it for a session. A member that no longer hears Kafka has to
come to the same conclusion by itself, since nobody can tell it.
"""

import math


class GroupSession:
    """The session as its member sees it. Times in seconds, of a clock that runs on while the machine is suspended."""

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self.confirmed_at = now
        """Until then the coordinator counted us in, as far as its answers say; at first when we began."""
        self._joining = 0

    def join_sent(self) -> None:
        """A request that waits for other members has left. For as long as it waits the coordinator keeps us, though it hears
        no heartbeat: such a limbo lasts a whole session when another member has died. Counted out meanwhile, each member
        would let go of everything whenever one dies."""
        self._joining += 1

    def join_ended(self, now: float, *, confirmed: bool) -> None:
        """It was answered, or given up. `confirmed`: the answer speaks to a member; our session begins with it."""
        self._joining -= 1
        if confirmed:
            self.confirmed_at = max(self.confirmed_at, now)

    def heartbeat_answered(self, sent_at: float) -> None:
        """The coordinator's session began when it received it, which was later: we are never the last to know."""
        self.confirmed_at = max(self.confirmed_at, sent_at)

    def expires_at(self) -> float:
        return math.inf if self._joining else self.confirmed_at + self._seconds

    def expired(self, now: float) -> bool:
        """Whether the coordinator may have taken us for dead."""
        return now >= self.expires_at()


class RejoinPacing:
    """When a member may ask for a join: each one makes all members of the group join again.

    What asks may ask in turn for ever: a hash that no leader gives back, two members that fence one another.
    """

    def __init__(self, apart: float) -> None:
        """`apart`: seconds between two of them; the first is free."""
        self._apart = apart
        self._last = -math.inf
        self._wanted = False

    def want(self) -> None:
        self._wanted = True

    def take(self, now: float) -> bool:
        """Whether to ask for it now; then it is no longer wanted."""
        if not self._wanted or now - self._last < self._apart:
            return False
        self._wanted, self._last = False, now
        return True
