"""Change data capture for balances: polled HTTP APIs become a stream of `BalanceChanged` events."""
