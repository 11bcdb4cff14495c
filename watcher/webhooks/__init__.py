"""Webhooks: each event to a receiver over HTTP, signed, in order and at least once."""
