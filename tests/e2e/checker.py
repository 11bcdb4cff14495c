"""The contract's laws, judged from plain records: nothing of the watcher's own code is asked."""

from collections import defaultdict
from decimal import Decimal

PARTS = ("provider", "chain", "account", "token", "kind")


def name(record):
    return "/".join(record[part] for part in PARTS)


def by_key(events):
    found = defaultdict(list)
    for event in events:
        found[name(event)].append(event)
    return found


def broken_laws(events, states):
    """What the events, in the order in which they were told, and the final states break: a line each."""
    lines, ids = [], set()
    for event in events:
        if event["id"] in ids:
            lines.append(f"id told twice: {event}")
        ids.add(event["id"])
    held = {name(state): state for state in states}
    for key, told in by_key(events).items():
        lines += [f"{key}: {line}" for line in _broken(told, held.get(key))]
    lines += [
        f"{key}: state at version {state['version']}, no event told"
        for key, state in held.items()
        if state["version"] and key not in by_key(events)
    ]
    return lines


def _broken(told, state):
    amount = told[0]["previous_amount"]
    for number, event in enumerate(told, 1):
        if event["version"] != number:
            yield f"version {event['version']} where {number} is due"
        if event["previous_amount"] != amount:
            yield f"version {number}: previous_amount {event['previous_amount']} after {amount}"
        if event["amount"] == event["previous_amount"]:
            yield f"version {number} changes nothing"
        if Decimal(event["amount"]) - Decimal(event["previous_amount"]) != Decimal(event["delta"]):
            yield f"version {number}: delta {event['delta']}"
        if event["previous_observed_at"] > event["observed_at"]:
            yield f"version {number}: observed before the last one"
        amount = event["amount"]
    if state is None or (state["version"], state["amount"]) != (len(told), amount):
        yield f"the last event is {len(told)}, {amount}; the state {state}"


def truths(report):
    """key → every amount that the balance really had, in order, the last one being that of now."""
    return {
        balance["key"]: [balance["initial"], *(change["amount"] for change in balance["changes"])]
        for provider in report["providers"].values()
        for balance in provider["balances"]
    }


def false_changes(events, truth):
    """Amounts that never were, or not in that order."""
    lines = []
    for key, told in by_key(events).items():
        history, place = truth.get(key, []), 0
        for amount, event in [(told[0]["previous_amount"], told[0]), *((event["amount"], event) for event in told)]:
            if amount not in history[place:]:
                was = [number for number, real in enumerate(history) if real == amount]
                lines.append(f"{key}: {amount} was number {was} of {len(history)}, not from {place} on: {event}")
                break
            place = history.index(amount, place)
    return lines


def unsettled(states, truth):
    """Balances whose state is not what they really are: key → (state, truth)."""
    held = {name(state): state["amount"] for state in states}
    return {key: (held.get(key), real[-1]) for key, real in truth.items() if held.get(key, "0") != real[-1]}


def refusals(report):
    return {name: provider["refusals"] for name, provider in report["providers"].items() if provider["refusals"]}
