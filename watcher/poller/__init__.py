"""The loop of each provider: wait for a slot, ask, send, read, hand over, and tell the schedule how it went.

`turns.py` decides what is asked next, `exchange.py` speaks HTTP, `stats.py` keeps the figures and writes the log,
`loop.py` ties them together. One provider's tasks, client and budget are its own: no other provider waits for it.
"""

from watcher.poller.exchange import client_for
from watcher.poller.loop import Poller, budget_of, relearn, schedules_of
from watcher.poller.stats import Stats

__all__ = ["Poller", "Stats", "budget_of", "client_for", "relearn", "schedules_of"]
