"""Who polls what, when several processes share one log: pure decisions, made on what the members tell."""
