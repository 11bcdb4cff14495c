"""One run of a fleet: a seed's faults, one after another, each until every provider is asked again; then both verdicts."""

import asyncio
import random
import time
from collections import Counter, defaultdict

from tests.chaos.fleet_faults import possible
from tests.chaos.fleet_judge import Event, FleetJudge
from tests.chaos.fleet_sandbox import quotas
from tests.chaos.fleet_system import WORLDS, running
from tests.chaos.system import STALLED, Stuck

QUIET = (2.0, 5.0)
"""Seconds of rest after each fault: the pace of these is what the others' delays are compared with."""
AT_THE_PROVIDER = {"refused", "limit exceeded", "overlap"}
"""The laws that a fault planted by a control breaks: a slow machine breaks none of them."""


class FleetReport:
    """What a run has shown. `trouble`: what did not come about, in words."""

    def __init__(self):
        self.events = []
        self.requests = 0
        self.checker = None
        self.judge = FleetJudge(quotas(WORLDS))
        self.trouble = None
        self.seconds = 0.0

    @property
    def faults(self):
        return Counter(event.kind for event in self.events)

    @property
    def violations(self):
        return self.judge.violations + (self.checker.violations if self.checker else Counter())

    @property
    def examples(self):
        return self.judge.examples + (self.checker.examples if self.checker else [])

    @property
    def good(self):
        return self.trouble is None and self.checker is not None and not self.violations

    @property
    def seen(self):
        """Whether a planted fault has shown itself."""
        return not AT_THE_PROVIDER.isdisjoint(self.judge.violations)

    def gaps(self):
        """Kind → (how many providers it concerned, longest seconds unpolled, most that was allowed)."""
        kinds = defaultdict(list)
        for gap in self.judge.gaps:
            kinds[gap.kind].append(gap)
        return {
            kind: (len(found), max(gap.seconds for gap in found), max(gap.allowed for gap in found))
            for kind, found in sorted(kinds.items())
        }


async def chaos(folder, *, seconds, seed, size, rate, faults="none", static=False, control=None, only=None, say=print):
    """Run and judge. Raises nothing that the fleet has done."""
    report, began = FleetReport(), time.monotonic()
    try:
        async with running(
            folder, seed=seed, size=size, rate=rate, faults=faults, static=static, control=control
        ) as fleet:
            since = time.monotonic()
            try:
                await harm(fleet, report, seconds, only, say)
            finally:
                seen = [arrival for arrival in fleet.arrivals if arrival.at >= since]
                report.requests = len(seen)
                report.judge = FleetJudge(quotas(WORLDS))
                report.judge.judge(seen, report.events, max((arrival.at for arrival in seen), default=since))
            if not control:
                report.checker = await verdict(fleet, say)
    except* Stuck as stuck:
        report.trouble = str(stuck.exceptions[0])
    report.seconds = time.monotonic() - began
    return report


async def harm(fleet, report, seconds, only, say):
    """Faults until the time is up. One that is planted ends the run when it is seen, and nobody need go on after it."""
    dice = random.Random(f"{fleet.seed}/fleet")
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        choice = possible(fleet, only)
        (fault,) = dice.choices(list(choice), list(choice.values()))
        await asyncio.sleep(dice.uniform(*QUIET))
        say(
            f"{time.monotonic() - began:7.1f} s  {len(fleet.arrivals):7} requests  {len(fleet.live)} members  {fault.__name__}"
        )
        at = time.monotonic()
        try:
            done = await fault(fleet, dice)
            settled = await fleet.whole(STALLED if fleet.control else 120.0)
        except Stuck as stuck:
            if not fleet.control:
                raise
            say(f"stuck: {stuck}")
            return
        report.events.append(Event(fault.__name__, at, settled, *done))
        if fleet.control:
            report.judge = FleetJudge(quotas(WORLDS))
            report.judge.judge(fleet.arrivals, report.events, settled)
            if report.seen:
                return
    await asyncio.sleep(QUIET[0])


async def verdict(fleet, say):
    """Settle, stop, read the log once more, and compare it with the truth."""
    say("settling")
    truth = await fleet.settle()
    await fleet.leave(*fleet.live)
    await fleet.witness.stop()
    checker = fleet.new_checker()
    await asyncio.to_thread(fleet.witness.log.again, checker)
    checker.finish()
    checker.judge_memory(fleet.checker)
    checker.judge_truth(truth)
    return checker
