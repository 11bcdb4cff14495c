"""Every state that a model can reach, breadth first, so that what breaks it is shown by the shortest way there."""

import gc
import string
from collections import Counter, deque
from typing import NamedTuple

from tests.fleet_model.model import NEVER, TICK, Broken, Model, State

Step = tuple[State, str, tuple[int, ...]]
"""(the state before it, what happened, for each member of the state after it what number it had before)."""


class Proof(NamedTuple):
    states: int
    steps: int
    seen: Counter
    """Step → how often it could be taken."""


class Refutation(NamedTuple):
    reason: str
    way: list[str]
    """The steps, from the start."""


def renamed(state: State) -> tuple[State, tuple[int, ...]]:
    """The members are alike: whoever has fenced last is the first, and the others stand in an order of their own."""
    members, owner, newest = state.members, state.log.owner, state.newest
    order = tuple(sorted(range(len(members)), key=lambda one: (one != owner, hash(members[one]), one)))
    if list(order) == sorted(order):
        return state, order
    after = State(
        tuple(members[one] for one in order),
        state.log if owner == NEVER else state.log._replace(owner=0),
        newest if newest == NEVER else order.index(newest),
        state.opens,
        state.arrivals,
    )
    return after, order


def explore(model: Model, most: int = 10_000_000) -> Proof | Refutation:
    """Raises RuntimeError when there are more states than `most`."""
    # Nothing becomes garbage before the end, and to look for some takes a quarter of the time.
    gc.disable()
    try:
        return _explore(model, most)
    finally:
        gc.enable()


def _explore(model: Model, most: int) -> Proof | Refutation:
    came_from: dict[State, Step | None] = {model.start: None}
    waiting = deque(came_from)
    seen: Counter[str] = Counter()
    while waiting:
        state = waiting.popleft()
        for name, after in model.steps(state):
            if isinstance(after, Broken):
                return Refutation(after.reason, way(came_from, (state, name, ())))
            seen[name[2:]] += 1
            following, order = renamed(model.canonical(after))
            if following not in came_from:
                came_from[following] = (state, name, order)
                waiting.append(following)
        if len(came_from) > most:
            raise RuntimeError(f"more than {most} states")
    return Proof(len(came_from), seen.total(), seen)


def way(came_from: dict[State, Step | None], last: Step) -> list[str]:
    """The steps from the start, with each member called the same all along."""
    steps, step = [], last
    while step is not None:
        steps.append(step)
        step = came_from[step[0]]
    found, letters = [], string.ascii_uppercase
    for _, name, order in reversed(steps):
        found.append(name if name == TICK else letters[string.ascii_uppercase.index(name[0])] + name[1:])
        letters = "".join(letters[one] for one in order)
    return found
