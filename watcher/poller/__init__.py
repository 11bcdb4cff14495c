"""The loop of each provider: wait for a slot, ask, send, read, hand over, and tell the schedule how it went.

`turns.py` decides what is asked next and `pauses.py` what a failure leads to, `exchange.py` speaks HTTP over
`connections.py`, `trouble.py` says why there was no answer, `stats.py` keeps the figures and writes the log, `loop.py` ties
them together. One provider's tasks, connections and budget are its own: no other provider waits for it.
"""

from watcher.poller.connections import Connections
from watcher.poller.poll_stats import PollStats
from watcher.poller.poller import Poller, budget_of, restore_rates, schedules_of

__all__ = ["Connections", "PollStats", "Poller", "budget_of", "restore_rates", "schedules_of"]
