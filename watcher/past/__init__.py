"""The past: what was held when, and how sure that is."""
