"""What is done to a fleet: each fault does its harm, undoes it, and says whom it concerns and for how long.

A member that is gone is not replaced at once: what comes next is a join then, an event of its own.
"""

import asyncio
import time
from typing import NamedTuple

from tests.chaos.faults import back
from tests.chaos.fleet_system import SESSION
from tests.chaos.system import Stuck

CLEAN = 3.0
"""Seconds that a provider may go unpolled when it is handed over in order."""
DIRTY = SESSION + 4.0
"""The same when its owner is gone, frozen or cut off: nobody knows before the session has passed."""


class Harm(NamedTuple):
    """What a fault has done."""

    harmed: frozenset
    """Processes."""
    bound: float
    """Seconds that a provider may go unpolled because of it."""
    dirty: bool
    deleted: frozenset = frozenset()
    """Providers that no config had for a while."""


def one_of(fleet, dice):
    return dice.choice(fleet.live)


async def join(fleet, dice):
    """One more process."""
    await fleet.join()
    return Harm(frozenset(), CLEAN, dirty=False)


async def leave(fleet, dice):
    """SIGTERM. A dynamic member's providers move at once, a static one's when its session has passed."""
    member = one_of(fleet, dice)
    await fleet.leave(member)
    return Harm(frozenset({member.process}), DIRTY if fleet.static else CLEAN, dirty=False)


async def kill(fleet, dice):
    """`kill -9`."""
    member = one_of(fleet, dice)
    await fleet.kill(member)
    return Harm(frozenset({member.process}), DIRTY, dirty=True)


async def freeze(fleet, dice):
    """SIGSTOP for longer than the session, then SIGCONT: it wakes up and believes that it owns what others ask by now."""
    member, seconds = one_of(fleet, dice), SESSION + dice.uniform(1, 7)
    member.daemon.freeze()
    await asyncio.sleep(seconds)
    member.daemon.thaw()
    return _taken_over(fleet, member, seconds)


async def pause(fleet, dice):
    """SIGSTOP and SIGCONT within the session, at times beyond the lease: nothing moves."""
    member, seconds = one_of(fleet, dice), dice.choice((0.5, 1.5, 3.0))
    member.daemon.freeze()
    await asyncio.sleep(seconds)
    member.daemon.thaw()
    return Harm(frozenset({member.process}), seconds + CLEAN, dirty=False)


def cut_off(kind):
    """One member loses Kafka alone for longer than the session, and still reaches the providers."""

    async def cut(fleet, dice):
        member, seconds = one_of(fleet, dice), SESSION + dice.uniform(1, 7)
        async with member.proxy.cutting(kind):
            await asyncio.sleep(seconds)
        return _taken_over(fleet, member, seconds)

    cut.__name__ = f"cut_{kind.replace(' ', '_')}"
    return cut


async def broker_kill(fleet, dice):
    """`kill -9` of the broker, and a restart: nobody commits, so nobody asks."""
    began = time.monotonic()
    await asyncio.to_thread(fleet.broker.kill)
    await asyncio.sleep(dice.uniform(0, 2))
    await back(fleet.broker)
    return _all(fleet, time.monotonic() - began + DIRTY)


async def broker_pause(fleet, dice):
    """The broker is frozen: connections stay open and nothing answers."""
    seconds = dice.choice((1.0, 4.0, 9.0))
    fleet.broker.freeze()
    await asyncio.sleep(seconds)
    fleet.broker.thaw()
    return _all(fleet, seconds + DIRTY)


def _taken_over(fleet, member, seconds):
    """Nobody takes over from an exclusive instance: it goes on after so many seconds, and the time that a new commit takes."""
    return Harm(frozenset({member.process}), DIRTY if fleet.size > 1 else seconds + CLEAN, dirty=True)


def _all(fleet, bound):
    return Harm(frozenset(member.process for member in fleet.live), bound, dirty=True)


async def rolling_restart(fleet, dice):
    """Each ends as asked and is started again, one after another, each once every provider is asked."""
    harmed, slowest = set(), 0.0
    for member in list(fleet.live):
        harmed.add(member.process)
        began = time.monotonic()
        await fleet.leave(member)
        await fleet.join()
        slowest = max(slowest, time.monotonic() - began)
        await fleet.whole()
    alone = fleet.static or fleet.size == 1
    return Harm(frozenset(harmed), CLEAN + (slowest if alone else 0.0), dirty=False)


async def rolling_config(fleet, dice):
    """The same twice with another config: a provider is deleted, nobody asks it, it comes back. For a while members differ in
    what they know."""
    provider = dice.choice(sorted(fleet.configured))
    fleet.edit(without={provider})
    before = await rolling_restart(fleet, dice)
    await _unasked(fleet, provider)
    fleet.edit()
    fleet.configured -= {provider}  # until all members know it again
    after = await rolling_restart(fleet, dice)
    fleet.configured |= {provider}
    bound = max(before.bound, after.bound)
    return Harm(before.harmed | after.harmed, bound, dirty=False, deleted=frozenset({provider}))


async def _unasked(fleet, provider):
    """Raises Stuck if anybody asks it."""
    await asyncio.sleep(1.0)  # what was on its way
    since = time.monotonic()
    await asyncio.sleep(3.0)
    if any(arrival.provider == provider and arrival.at > since for arrival in fleet.arrivals):
        raise Stuck(f"{provider} is in no config, and is asked")


async def scale_to_zero(fleet, dice):
    """All end, and all are started again at once."""
    began, members = time.monotonic(), list(fleet.live)
    harmed = frozenset(member.process for member in members)
    await fleet.leave(*members)
    await asyncio.sleep(dice.uniform(0, 2))
    await fleet.join(len(members))
    return Harm(harmed, time.monotonic() - began + DIRTY, dirty=False)


ALONE = {
    freeze: 2, pause: 2, cut_off("held"): 2, cut_off("dropped"): 1, cut_off("refused"): 2,
    broker_kill: 1, broker_pause: 2, rolling_restart: 2, rolling_config: 1,
}  # fmt: skip
"""What may happen to an exclusive instance; nobody takes over from one."""
TOGETHER = {**ALONE, kill: 4, leave: 2, join: 2, cut_off("group held"): 3, scale_to_zero: 1}
EVERY = {fault.__name__: fault for fault in TOGETHER}


def possible(fleet, only):
    """Fault → how often beside the others, of those that the fleet's number of members allows now."""
    if len(fleet.live) < fleet.size:
        return {join: 1}
    if len(fleet.live) > fleet.size:
        return {leave: 1}
    chosen = TOGETHER if fleet.size > 1 else ALONE
    return {fault: weight for fault, weight in chosen.items() if not only or fault.__name__ in only}
