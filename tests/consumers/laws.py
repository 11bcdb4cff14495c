"""What a foreign consumer printed, judged: the laws of the log, and that key and headers say what the event says.

A line is a JSON object `{"topic", "partition", "offset", "key", "headers", "value"}`; `value` is what the consumer
decoded, or null where it could not. `broken` is what one wants to see empty.
"""

from collections import Counter

from tests.chaos.checker import Checker, name

CONTENT_TYPES = {"json": "application/json", "msgpack": "application/msgpack"}


class Judge:
    """One reading of a log, in the order in which the consumer had it."""

    def __init__(self, encoding):
        self.checker = Checker()
        self.keys = set()
        """Of balances."""
        self._content_type = CONTENT_TYPES[encoding]
        self._beside = Counter()
        self._last_offset = {}

    @property
    def broken(self):
        """Law → how often it was broken."""
        return dict(self.checker.violations + self._beside)

    def record(self, line):
        where, offset = (line["topic"], line["partition"]), line["offset"]
        if offset <= self._last_offset.get(where, -1):
            self._beside["out of order"] += 1
        self._last_offset[where] = offset
        if line["topic"].endswith("balances.changed.v1"):
            self._event((*where, offset), line)
        else:
            self._state((*where, offset), line)

    def _event(self, place, line):
        event, headers = line["value"], line["headers"]
        if name(event) != line["key"]:
            self._beside["the key is another balance's"] += 1
        told = {
            "ce_specversion": "1.0",
            "ce_type": "balance.changed.v1",
            "ce_source": headers.get("ce_source"),
            "ce_id": event["id"],
            "ce_time": event["observed_at"],
            "ce_subject": line["key"],
            "ce_balanceversion": str(event["version"]),
            "content-type": self._content_type,
        }
        if headers != told or not headers.get("ce_source", "").endswith(f"/{event['provider']}"):
            self._beside["headers do not say what the event says"] += 1
        self.checker.event(place, event)

    def _state(self, place, line):
        if line["value"] is None or name(line["value"]) != line["key"]:
            self._beside["no balance in the state topic"] += 1
            return
        if line["headers"] != {"content-type": self._content_type}:
            self._beside["headers do not say what the state says"] += 1
        self.keys.add(line["key"])
        self.checker.state(place, line["value"])

    def finish(self):
        self.checker.finish()
        return self
