"""Who comes in: each connection is counted from accept to close, and those that are no stream are kept few.

What a stranger can have without a word is a descriptor. So a connection whose request has not come, or whose answer
is still on its way, is a guest among a bounded number; when there is one too many, an older one of the address that
has most of them goes. Whoever fills the room pushes out itself.
"""

import asyncio
import contextlib
import errno
import functools
import ipaddress
import operator
import socket
from collections.abc import Callable
from typing import Any, Protocol

import structlog

VISITORS = 1024
"""Connections that are no stream: TLS or the head of the request under way, an answer not taken yet."""
WITH_TLS = 256
"""Of them, where a handshake costs five times as much memory."""
BACKLOG = 1024
"""Connections that the kernel keeps for us."""
AT_ONCE = 8
"""Connections accepted in one turn of the loop."""
SMALLEST = 32
"""Descriptors below which there is no point in listening."""
OUT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ANSWERED, ASKING, TELLING, STARTING = STAGES = range(4)
"""Of a visitor: it has its answer and has not closed, has not asked, is told the answer, has asked. In this order they are
missed the least."""
BUSY = 64
"""Visitors in the last stage, which takes no more than our own time, beyond which nobody is accepted: they come first."""
PAUSE = 0.5
"""Seconds in which nobody is accepted when there is no descriptor."""

logger = structlog.get_logger()


class NoDescriptors(Exception):
    """Too few descriptors to serve anybody."""


def shares(room: int | None, connections: int) -> tuple[int, int]:
    """How many streams, of so many wished for, and how many others there may be in a room of so many descriptors.

    None: of any number. Raises NoDescriptors.
    """
    if room is None:
        return connections, VISITORS
    if room < SMALLEST:
        raise NoDescriptors
    visitors = min(VISITORS, room // 4)
    return min(connections, room - visitors), visitors


class Visiting(Protocol):
    """The connection on top of a guest's socket."""

    def dismiss(self) -> None: ...


class AcceptedSocket(socket.socket):
    """An accepted connection. It is known until it is closed, by whomever."""

    __slots__ = ("address", "door", "number", "received", "since", "stage", "visitor", "waiting")

    def __init__(self, accepted: socket.socket, address: str, door: "Admission", since: float) -> None:
        kind = (accepted.family, accepted.type, accepted.proto)
        super().__init__(*kind, fileno=accepted.detach())
        self.address = address
        self.door = door
        self.number = self.fileno()
        self.since = since
        """When it came, by the loop's clock."""
        self.stage = ASKING
        """Of a visitor. The door is told when it changes."""
        self.received = bytearray()
        """What it said before there was a visitor."""
        self.waiting: Callable[[], object] | None = None
        """While there is nothing on top of it: stops whoever waits for its bytes."""
        self.visitor: Visiting | None = None

    def close(self) -> None:
        super().close()
        self.visitor = None
        self.door.gone(self)

    def dismiss(self) -> None:
        if self.visitor is not None:
            self.visitor.dismiss()
        elif self.waiting is not None:
            self.waiting()
            self.close()
        else:
            with contextlib.suppress(OSError):  # it has gone by itself
                self.shutdown(socket.SHUT_RDWR)  # TLS is on its way on top of it, sees that and closes it


class Admission:
    """Everybody who is connected to one port."""

    def __init__(self, visitors: int) -> None:
        self.guests: dict[int, AcceptedSocket] = {}
        """All, by descriptor."""
        self.accepted = 0
        self.crowded = 0
        """Guests that went because there were too many."""
        self.starting = 0
        """Those who have asked and wait for us alone."""
        self.exhausted = 0
        """Times that the system had no descriptor for one."""
        self._most = visitors
        self._each = max(1, visitors * 3 // 4)
        """Of one address: a proxy has but one, and so has everybody behind it."""
        self._visitors: dict[str, _Visitors] = {}
        """By address."""
        self._visiting = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self, guest: AcceptedSocket) -> None:
        self.accepted += 1
        here = self._visitors.get(guest.address)
        if here is not None and here.count >= self._each:
            self._make_room(here)
        elif self._visiting >= self._most:
            self._make_room(max(self._visitors.values(), key=operator.attrgetter("count")))
        here = self._visitors.setdefault(guest.address, _Visitors())
        here.stages[guest.stage][guest] = None
        here.count += 1
        self._visiting += 1
        self.guests[guest.number] = guest
        self._empty.clear()

    def move(self, guest: AcceptedSocket, stage: int) -> None:
        """It has come so far."""
        here = self._visitors.get(guest.address)
        if here is not None and guest in here.stages[guest.stage]:
            del here.stages[guest.stage][guest]
            here.stages[stage][guest] = None
            self.starting += (stage == STARTING) - (guest.stage == STARTING)
        guest.stage = stage

    def _make_room(self, among: "_Visitors") -> None:
        oldest = next(iter(next(filter(None, among.stages))))
        self.stays(oldest)
        if oldest.stage == ANSWERED:  # it only had not closed yet
            oldest.dismiss()
            return
        self.crowded += 1
        logger.warning("relay.crowded", address=oldest.address, help="connections that ask for nothing are closed")
        oldest.dismiss()

    def stays(self, guest: AcceptedSocket) -> None:
        """It is a stream now, or leaves."""
        here = self._visitors.get(guest.address)
        if here is not None and guest in here.stages[guest.stage]:
            del here.stages[guest.stage][guest]
            here.count -= 1
            self.starting -= guest.stage == STARTING
            self._visiting -= 1
            if not here.count:
                del self._visitors[guest.address]

    def gone(self, guest: AcceptedSocket) -> None:
        self.stays(guest)
        if self.guests.get(guest.number) is guest:
            del self.guests[guest.number]
        if not self.guests:
            self._empty.set()

    def late(self, before: float) -> list[AcceptedSocket]:
        """Those that came before and have not asked."""
        found = []
        for here in self._visitors.values():
            for guest in here.stages[ASKING]:
                if guest.since > before:
                    break
                found.append(guest)
        return found

    def stuck(self, before: float) -> list[AcceptedSocket]:
        """Those that came before, have asked and got no word: were they to stay, nobody would be accepted."""
        return [guest for here in self._visitors.values() for guest in here.stages[STARTING] if guest.since <= before]

    async def emptied(self) -> None:
        await self._empty.wait()


class _Visitors:
    """Those of one address that are no stream."""

    __slots__ = ("count", "stages")

    def __init__(self) -> None:
        self.count = 0
        self.stages: tuple[dict[AcceptedSocket, None], ...] = tuple({} for _ in STAGES)
        """In the order in which they came so far."""


@functools.lru_cache(VISITORS)
def network(address: Any) -> str:
    """Whose connections are counted together: an IPv4 address, or the 64 bits of IPv6 that one customer has."""
    if not isinstance(address, tuple):
        return ""
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or int(found) >> 64)
    return str(found)
