"""The laws of the log, judged from plain records: nothing of the watcher's own code is asked.

A checker is fed every event and every state record in the order of the log, and at the end what really happened. With the
alerts of the config it judges their crossings too: see crossing_laws.py.
One is fed while the system runs, another with everything read anew at the end; what the first has seen must still be
there for the second.
"""

from collections import Counter, defaultdict

from tests.chaos.crossing_laws import CrossingLaws

PARTS = ("provider", "chain", "account", "token", "kind")


def name(record):
    return "/".join(record[part] for part in PARTS)


class Checker:
    """`violations` counts what was broken, by law; `examples` has the first few of them in words."""

    def __init__(self, alerts=(), tagged=()):
        """`alerts`: the `[[alert]]` tables; `tagged`: the providers whose watches all have a tag."""
        self.crossings = CrossingLaws(alerts, self._broken, tagged)
        self.events = 0
        self.states = 0
        self.violations = Counter()
        self.examples = []
        self._last = {}
        self._told = {}
        """(key, version) → (previous amount, amount), of every event."""
        self._held = {}
        """(key, version) → amount, of every state record."""
        self._newest = {}
        """key → (version, amount) of the last state record."""
        self._ids = set()
        self._touched = set()
        """Keys of the records that came since the last view."""
        self._seen = {}
        self._amounts = defaultdict(set)

    def amounts(self, keys):
        """key → amount of its last event, of those that have one."""
        return {key: self._last[key][1] for key in keys if key in self._last}

    @property
    def keys(self):
        return len(self._newest)

    def event(self, place, event):
        """`place`: anything hashable that names the record's place in the log."""
        self.events += 1
        self._seen[place] = (event["id"], event["version"], event["amount"])
        key, version, amount, previous = name(event), event["version"], event["amount"], event["previous_amount"]
        before = self._last.get(key)
        if event["id"] in self._ids:
            self._broken("id told twice", f"{key} version {version} at {place}")
        if before is None and version != 1:
            self._broken("version not contiguous", f"{key} begins with version {version} at {place}")
        if before is not None and version != before[0] + 1:
            self._broken("version not contiguous", f"{key} version {version} after {before[0]} at {place}")
        if before is not None and previous != before[1]:
            self._broken("previous_amount is not the amount before", f"{key} {previous} after {before[1]} at {place}")
        if previous == amount:
            self._broken("no change", f"{key} {amount} at {place}")
        self._ids.add(event["id"])
        self._touched.add(key)
        self._last[key] = (version, amount)
        self._told[key, version] = (previous, amount)
        self.crossings.change(key, event)
        self._amounts[key].update((previous, amount))

    def state(self, place, state):
        self.states += 1
        key, version, amount = name(state), state["version"], state["amount"]
        self._seen[place] = (None, version, amount)
        if self._held.setdefault((key, version), amount) != amount:
            self._broken("two states of one version", f"{key} version {version} at {place}")
        if key in self._newest and version < self._newest[key][0]:
            self._broken("the state went back", f"{key} version {version} after {self._newest[key][0]} at {place}")
        self._touched.add(key)
        self._newest[key] = (version, amount)
        if version == 0:
            self.crossings.baseline(key, state)

    def crossing(self, place, crossing):
        self._seen[place] = (crossing["id"], crossing["version"], crossing["amount"])
        if crossing["id"] in self._ids:
            self._broken("id told twice", f"a crossing of {name(crossing)} at {place}")
        self.crossings.crossing(place, crossing)

    def begun(self, state):
        """That state is the first thing that was committed of its balance."""
        if state["version"] == 0:
            self.crossings.baseline(name(state), state)
        self.crossings.begins(name(state), 1)

    def view(self):
        """What was fed up to now is one consistent view of the log: in none of them may the state lag behind."""
        for key in self._touched & self._last.keys():
            if self._newest.get(key) != self._last[key]:
                self._broken("events and state apart", f"{key}: {self._last[key]}, {self._newest.get(key)}")
        self._touched.clear()
        self.crossings.view()

    def silent(self, key, answers, seconds):
        """Every answer differed from what is committed, and nothing was told."""
        self._broken("silent", f"{key}: nothing told in {answers} answers and {seconds:.1f} s")

    def finish(self):
        """Everything was fed: judge events, states and crossings together."""
        self.crossings.finish()
        for (key, version), amount in self._held.items():
            told = self._told.get((key, version))
            if version > 0 and told is None:
                self._broken("a state without its event", f"{key} version {version}")
            elif version > 0 and told[1] != amount:
                self._broken("state and event differ", f"{key} version {version}: {amount}, told {told[1]}")
            first = self._told.get((key, 1))
            if version == 0 and first is not None and first[0] != amount:
                self._broken("previous_amount is not the baseline", f"{key}: {first[0]}, the baseline {amount}")
        for key, (version, amount) in self._last.items():
            if self._newest.get(key) != (version, amount):
                self._broken("the last event is not the state", f"{key}: {(version, amount)}, {self._newest.get(key)}")

    def judge_truth(self, truth):
        """`truth`: key → every amount that it really had, the last one being that of now. The system has settled."""
        for key, amounts in self._amounts.items():
            for amount in amounts - set(truth.get(key, ())):
                self._broken("an amount that never was", f"{key} {amount}")
        for key, amounts in truth.items():
            now = self._newest.get(key, (0, "0"))[1]
            if now != amounts[-1]:
                self._broken("the final amount is not the truth", f"{key}: {now}, really {amounts[-1]}")
        for key in self._newest.keys() - truth.keys():
            self._broken("a balance that never was", key)

    def judge_memory(self, earlier):
        """What `earlier` saw while it happened is still there, unchanged."""
        for place, seen in earlier._seen.items():
            if self._seen.get(place) != seen:
                self._broken("taken back after it was seen", f"{place}: {seen}, now {self._seen.get(place)}")

    def unsettled(self, truth):
        """Keys whose newest state is not what they are now; `truth`: key → amount."""
        return [key for key, amount in truth.items() if self._newest.get(key, (0, "0"))[1] != amount]

    def _broken(self, law, text):
        self.violations[law] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{law}: {text}")
