"""File descriptors: how many this process may have, and who gets them.

The usual soft limit is 1,024, and a process that reaches it cannot poll, commit or log. So the limit is raised as far as the
config asks for, and the relay gets what the rest of the process leaves.
"""

import resource

from watcher.poller.connections import MAX_CONNECTIONS
from watcher.relay.http.admission import PENDING_SOCKETS, NoDescriptors, divide_descriptors

OURS = 96
"""For the journal (with connections to brokers), the log, the event loop, listeners, and sockets that are being closed."""


def descriptors_left(streams: int, providers: int) -> int:
    """Raise the soft limit as far as needed and allowed. Returns how many descriptors are left for the relay's port."""
    kept = OURS + MAX_CONNECTIONS * providers
    return raised(kept + PENDING_SOCKETS + streams) - kept


def connections(wished: int, providers: int) -> int:
    """How many streams there may be at a time, where the config asks for `wished`."""
    try:
        return divide_descriptors(descriptors_left(wished, providers), wished)[0]
    except NoDescriptors:
        return 0


def raised(needed: int) -> int:
    """Raise the soft limit to at least `needed`, if the hard limit allows it; never lower it. Returns the soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS has a bound of its own, also where there is no hard limit
            return soft
        return wanted
    return soft
