"""Rehearsal: a config tried in virtual time before it runs."""
