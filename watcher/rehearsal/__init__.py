"""Rehearsal: a config tried in virtual time, over what has happened, before it runs.

Pure but for `recorded.py`, which reads a journal, and `workers.py`, which has several processes rehearse at once.
"""
