"""One run: a seed's faults, one after another, each followed by the proof that the system goes on; then the verdict."""

import asyncio
import random
import time
from collections import Counter

from tests.chaos.faults import FAULTS
from tests.chaos.system import PATIENCE, STALLED, Stuck, running


class Report:
    """What a run has shown."""

    def __init__(self):
        self.faults = Counter()
        self.witnessed = None
        """The checker that watched it happen."""
        self.final = None
        """The checker that read everything again at the end; None when the run broke off."""
        self.trouble = None
        """What did not come about, in words."""
        self.first_seen = None
        """Seconds and faults until the first violation was seen."""
        self.seconds = 0.0
        self.network = {}

    @property
    def violations(self):
        """By law. The final reading tells what the witness told once more, and more."""
        checker = self.final or self.witnessed
        found = Counter(checker.violations if checker else {})
        for law, count in (self.witnessed.violations if self.witnessed else {}).items():
            found[law] = max(found[law], count)
        return found

    @property
    def examples(self):
        return (self.final or self.witnessed).examples or self.witnessed.examples

    @property
    def good(self):
        return self.trouble is None and self.final is not None and not self.violations


async def chaos(
    folder, journal, *, seconds, seed, rate, faults="none", control=None, only=None, brisk=False, say=print, node=None
):
    """Run and judge. A run with a control ends at the first violation; `node` is `running`'s. Raises nothing that the system has
    done. `brisk`: nobody looks after each fault whether a hot balance is silent, so more of them find room."""
    report, began = Report(), time.monotonic()
    program = "tests.chaos.planted" if control else "watcher"
    try:
        async with running(
            folder, journal, seed=seed, rate=rate, faults=faults, control=control, program=program, node=node
        ) as system:
            report.witnessed = system.checker
            watch = asyncio.create_task(seen(system, report, say))
            try:
                await (until_seen if control else unhurried)(
                    harm(system, report, seconds, only, brisk=brisk, say=say), watch
                )
            finally:
                watch.cancel()
            if not (control and report.violations):
                await verdict(system, report, say)
    except* Stuck as stuck:
        report.trouble = str(stuck.exceptions[0])
    report.seconds = time.monotonic() - began
    return report


async def seen(system, report, say):
    """Until the witness has seen a violation."""
    began = time.monotonic()
    while not system.checker.violations:  # noqa: ASYNC110 (the witness is a thread)
        await asyncio.sleep(0.1)
    report.first_seen = (time.monotonic() - began, report.faults.total() + 1)
    say(f"first violation after {report.first_seen[0]:.1f} s: {system.checker.examples[0]}")


async def unhurried(harming, _watch):
    await harming


async def until_seen(harming, watch):
    """A control run has shown what it should with the first violation."""
    task = asyncio.create_task(harming)
    await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=task.cancelling() > 0)


async def harm(system, report, seconds, only, *, brisk, say):
    """Faults until the time is up."""
    dice = random.Random(f"{system.seed}/faults")
    possible = {fault: weight for fault, weight in FAULTS[system.kind].items() if not only or fault.__name__ in only}
    until = time.monotonic() + seconds
    began = time.monotonic()
    while time.monotonic() < until:
        (fault,) = dice.choices(list(possible), list(possible.values()))
        say(
            f"{time.monotonic() - began:7.1f} s  {system.checker.events:7} events  {system.checker.crossings.count:6} crossings  {fault.__name__}"
        )
        try:
            await fault(system, dice)
            report.faults[fault.__name__] += 1
            await system.progress(fault.__name__, STALLED if system.control else PATIENCE)
            # The other controls break other laws, and sooner.
            if system.control == "silent-when-busy" or not (system.control or brisk):
                await system.heard(fault.__name__)
        except Stuck as stuck:
            if not system.control:
                raise
            say(f"stuck: {stuck}")
            if await left_behind(system, report):
                return
            await system.start()
        await asyncio.sleep(dice.uniform(0, 1))


async def left_behind(system, report):
    """A daemon with a planted fault may go on without a word to anybody: whether what it left, states without events,
    shows a violation. A machine that is merely slow shows none, and is no reason to give up."""
    await system.end_daemons()
    checker = system.new_checker()
    await asyncio.to_thread(system.witness.log.again, checker)
    checker.finish()
    if checker.violations:
        report.final = checker
    return bool(checker.violations)


async def verdict(system, report, say):
    """Settle, stop, read everything once more, and compare with the truth."""
    say("settling")
    truth = await system.settle()
    await system.stop()
    await system.witness.stop()
    report.final = system.new_checker()
    await asyncio.to_thread(system.witness.log.again, report.final)
    report.final.finish()
    report.final.judge_memory(system.checker)
    report.final.judge_truth(truth)
    report.network = dict(system.proxy.stats) if system.proxy else {}
