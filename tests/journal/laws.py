"""The laws of the log, checked by reading the file itself: nothing of the journal's own code is asked."""

import contextlib
import json
import sqlite3


def records(path):
    """(events in order, states) as plain dicts; JSON files only."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        events = [
            (seq, json.loads(data))
            for seq, data in connection.execute("SELECT seq, data FROM event WHERE type = 'changed' ORDER BY seq")
        ]
        states = [json.loads(data) for (data,) in connection.execute("SELECT data FROM state")]
    return events, states


def name(record):
    return "/".join(record[part] for part in ("provider", "chain", "account", "token", "kind"))


def violations(path):
    """Every law of the contract, for every key, over everything in the file. `[]` is what one wants to see."""
    events, states = records(path)
    found, last, ids = [], {}, set()
    for place, (seq, event) in enumerate(events):
        key, before = name(event), last.get(name(event))
        if seq != events[0][0] + place:
            found.append(f"{seq}: a hole in the log")
        if event["id"] in ids:
            found.append(f"{seq}: id told twice")
        if event["amount"] == event["previous_amount"]:
            found.append(f"{seq}: no change")
        if before is None and event["version"] != 1:
            found.append(f"{seq}: begins with version {event['version']}")
        if before is not None and event["version"] != before["version"] + 1:
            found.append(f"{seq}: version {event['version']} after {before['version']}")
        if before is not None and event["previous_amount"] != before["amount"]:
            found.append(f"{seq}: {event['previous_amount']} was not the amount before")
        ids.add(event["id"])
        last[key] = event
    for state in states:
        event = last.pop(name(state), None)
        told = (event["version"], event["amount"]) if event else (0, state["amount"])
        if (state["version"], state["amount"]) != told:
            found.append(f"{name(state)}: the state is not what the last event says")
    return found + [f"{key}: events without a state" for key in last]
