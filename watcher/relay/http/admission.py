"""Who is let in: each socket is counted from accept to close, and those that are no stream are kept few.

Anybody who connects takes a descriptor, without a token or a request. So the sockets whose request has not come, or
whose answer is still on its way, are bounded in number. When there is one too many, an older one of the address that has
most of them is closed: whoever fills the room pushes out its own.
"""

import asyncio
import contextlib
import enum
import errno
import functools
import ipaddress
import operator
import socket
from collections.abc import Callable
from typing import Any, Protocol

import structlog

PENDING_SOCKETS = 1024
"""Sockets that are no stream: TLS or the head of the request under way, an answer not taken yet."""
PENDING_WITH_TLS = 256
"""Of them, where a handshake costs five times as much memory."""
BACKLOG = 1024
"""Connections that the kernel keeps for us."""
ACCEPTS_A_TURN = 8
"""Sockets accepted in one turn of the loop."""
LEAST_DESCRIPTORS = 32
"""Descriptors below which there is no point in listening."""
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What `accept` fails with when the system has nothing left for a socket."""
HANDLING_AT_ONCE = 64
"""Sockets that wait for our own work alone, beyond which nobody is accepted: they come first."""
ACCEPT_PAUSE = 0.5
"""Seconds in which nobody is accepted when there is no descriptor."""

logger = structlog.get_logger()


class NoDescriptors(Exception):
    """Too few descriptors to serve anybody."""


class Stage(enum.IntEnum):
    """How far a pending socket has come. In this order they are missed the least."""

    CLOSING = 0
    """It has its answer and has not closed."""
    READING = 1
    """Its request has not come, or not the whole body of it."""
    WRITING = 2
    """Its answer is being written."""
    HANDLING = 3
    """Its request has come and waits for us."""


def divide_descriptors(room: int | None, connections: int) -> tuple[int, int]:
    """How many streams, of so many wished for, and how many pending sockets there may be with so many descriptors.

    None: any number of descriptors. Raises NoDescriptors.
    """
    if room is None:
        return connections, PENDING_SOCKETS
    if room < LEAST_DESCRIPTORS:
        raise NoDescriptors
    pending = min(PENDING_SOCKETS, room // 4)
    return min(connections, room - pending), pending


class Dismissable(Protocol):
    """The connection on top of an accepted socket."""

    def dismiss(self) -> None: ...


class AcceptedSocket(socket.socket):
    """An accepted socket. It is known until it is closed, by whomever."""

    __slots__ = ("_admission", "_connection", "_received", "_stop_waiting", "address", "number", "since", "stage")

    def __init__(self, accepted: socket.socket, address: str, admission: "Admission", since: float) -> None:
        """`address`: see `address_group`. `since`: when it came, by the loop's clock."""
        kind = (accepted.family, accepted.type, accepted.proto)
        super().__init__(*kind, fileno=accepted.detach())
        self.address = address
        self.number = self.fileno()
        self.since = since
        self.stage = Stage.READING
        self._admission = admission
        self._received = bytearray()
        """What came before there was a connection."""
        self._stop_waiting: Callable[[], object] | None = None
        """While there is nothing on top of it: stops whoever waits for its bytes."""
        self._connection: Dismissable | None = None

    @property
    def is_served(self) -> bool:
        """There is a connection on top of it."""
        return self._connection is not None

    def wait_with(self, stop: Callable[[], object] | None) -> None:
        """Whoever waits for its bytes ends that with `stop`; None: nobody does any more."""
        self._stop_waiting = stop

    def add_received(self, data: bytes) -> bytearray:
        """These bytes came; all that came."""
        self._received += data
        return self._received

    def take_received(self) -> bytes:
        received, self._received = bytes(self._received), bytearray()
        return received

    def serve(self, connection: Dismissable) -> None:
        """That connection stands on top of it from now on."""
        self._connection = connection

    def reach(self, stage: Stage) -> None:
        """It has come so far."""
        self._admission.move(self, stage)
        self.stage = stage

    def close(self) -> None:
        super().close()
        self._connection = None
        self._admission.remove(self)

    def dismiss(self) -> None:
        if self._connection is not None:
            self._connection.dismiss()
        elif self._stop_waiting is not None:
            self._stop_waiting()
            self.close()
        else:
            with contextlib.suppress(OSError):  # the other side has closed it
                self.shutdown(socket.SHUT_RDWR)  # TLS is on its way on top of it, sees that and closes it


class Admission:
    """Everybody who is connected to one port."""

    def __init__(self, most_pending: int) -> None:
        self.sockets: dict[int, AcceptedSocket] = {}
        """All, by descriptor."""
        self.accepted = 0
        self.crowded_out = 0
        """Pending sockets that were closed because there were too many."""
        self.handling = 0
        """Sockets whose request waits for us alone."""
        self.exhausted = 0
        """Times that the system had no descriptor for a socket."""
        self._most = most_pending
        self._most_of_one = max(1, most_pending * 3 // 4)
        """Of one address: a proxy has but one, and so has everybody behind it."""
        self._by_address: dict[str, _AddressSockets] = {}
        self._pending = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self, accepted: AcceptedSocket) -> None:
        self.accepted += 1
        here = self._by_address.get(accepted.address)
        if here is not None and here.count >= self._most_of_one:
            self._make_room(here)
        elif self._pending >= self._most:
            self._make_room(max(self._by_address.values(), key=operator.attrgetter("count")))
        self._by_address.setdefault(accepted.address, _AddressSockets()).add(accepted)
        self._pending += 1
        self.sockets[accepted.number] = accepted
        self._empty.clear()

    def no_descriptor(self) -> None:
        """The system had none for a socket."""
        self.exhausted += 1

    def move(self, accepted: AcceptedSocket, stage: Stage) -> None:
        """A socket is about to reach that stage."""
        here = self._by_address.get(accepted.address)
        if here is not None and accepted in here:
            here.move(accepted, stage)
            self.handling += (stage is Stage.HANDLING) - (accepted.stage is Stage.HANDLING)

    def _make_room(self, among: "_AddressSockets") -> None:
        oldest = among.least_missed()
        self.leave_pending(oldest)
        if oldest.stage is Stage.CLOSING:  # it has its answer: nothing is lost
            oldest.dismiss()
            return
        self.crowded_out += 1
        logger.warning("relay.crowded", address=oldest.address, help="connections that ask for nothing are closed")
        oldest.dismiss()

    def leave_pending(self, accepted: AcceptedSocket) -> None:
        """It is a stream now, or closes."""
        here = self._by_address.get(accepted.address)
        if here is not None and accepted in here:
            here.remove(accepted)
            self.handling -= accepted.stage is Stage.HANDLING
            self._pending -= 1
            if not here.count:
                del self._by_address[accepted.address]

    def remove(self, accepted: AcceptedSocket) -> None:
        """It is closed."""
        self.leave_pending(accepted)
        if self.sockets.get(accepted.number) is accepted:
            del self.sockets[accepted.number]
        if not self.sockets:
            self._empty.set()

    def late(self, before: float) -> list[AcceptedSocket]:
        """Those that came before that time and whose request has not come."""
        return [each for here in self._by_address.values() for each in here.reading_since(before)]

    def stuck(self, before: float) -> list[AcceptedSocket]:
        """Those that came before that time and still wait for our work: as long as they stay, nobody may be accepted."""
        return [each for here in self._by_address.values() for each in here.at(Stage.HANDLING) if each.since <= before]

    async def emptied(self) -> None:
        await self._empty.wait()


class _AddressSockets:
    """The pending sockets of one address."""

    __slots__ = ("_stages", "count")

    def __init__(self) -> None:
        self.count = 0
        self._stages: tuple[dict[AcceptedSocket, None], ...] = tuple({} for _ in Stage)
        """In the order in which they came so far."""

    def __contains__(self, accepted: AcceptedSocket) -> bool:
        return accepted in self._stages[accepted.stage]

    def add(self, accepted: AcceptedSocket) -> None:
        self._stages[accepted.stage][accepted] = None
        self.count += 1

    def move(self, accepted: AcceptedSocket, stage: Stage) -> None:
        del self._stages[accepted.stage][accepted]
        self._stages[stage][accepted] = None

    def remove(self, accepted: AcceptedSocket) -> None:
        del self._stages[accepted.stage][accepted]
        self.count -= 1

    def at(self, stage: Stage) -> list[AcceptedSocket]:
        return list(self._stages[stage])

    def reading_since(self, before: float) -> list[AcceptedSocket]:
        return [each for each in self._stages[Stage.READING] if each.since <= before]

    def least_missed(self) -> AcceptedSocket:
        """The oldest of the lowest stage."""
        return next(iter(next(filter(None, self._stages))))


@functools.lru_cache(PENDING_SOCKETS)
def address_group(address: Any) -> str:
    """Whose sockets are counted together: an IPv4 address, or the 64 bits of IPv6 that one customer has."""
    if not isinstance(address, tuple):
        return ""
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or int(found) >> 64)
    return str(found)
