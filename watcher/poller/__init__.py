"""The loop of each provider: wait for a slot, ask, send, read, hand over, and report to the schedule how it went.

`poller.py` ties the room together. `failure_policy.py` decides what a failure leads to, `http_exchange.py` speaks HTTP
over `connections.py`, `transport_errors.py` says why there was no answer, `poll_stats.py` keeps the figures and writes
the log, `checkpoints.py` saves what a restart must know. One provider's tasks, connections and budget are its own: no
other provider waits for it.
"""
