"""Descriptors: how many this process may have, and who gets them.

The usual soft limit is 1,024, and a process that reaches it cannot poll, commit or log. So it is raised to what the
config asks for, and what the relay's port may have is what is left when everything else has its own.
"""

import resource

from watcher.poller.connections import MOST
from watcher.relay.http.admission import PENDING_SOCKETS, NoDescriptors, divide_descriptors

OURS = 96
"""The journal, with a broker's connections, the log, the loop, the listeners, and what is just being closed."""


def room(streams: int, providers: int) -> int:
    """Raise the soft limit as far as it goes and is needed; how many descriptors are left for so many streams' port."""
    kept = OURS + MOST * providers
    return raised(kept + PENDING_SOCKETS + streams) - kept


def connections(wished: int, providers: int) -> int:
    """How many streams there may be at a time, when so many are wished for."""
    try:
        return divide_descriptors(room(wished, providers), wished)[0]
    except NoDescriptors:
        return 0


def raised(needed: int) -> int:
    """The soft limit, which is at least that if the hard one allows it. It is never lowered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS has a bound of its own below a hard limit without one
            return soft
        return wanted
    return soft
