"""Every state that a model can reach, breadth first, so that what breaks it is shown by the shortest way there."""

from collections import Counter, deque
from typing import NamedTuple

from tests.fleet_model.model import NEVER, Broken, Model, State

Step = tuple[State, str, bool]
"""(the state before it, what happened, whether the members exchanged their names)."""


class Proof(NamedTuple):
    states: int
    steps: int
    seen: Counter
    """Step → how often it could be taken."""


class Refutation(NamedTuple):
    reason: str
    way: list[str]
    """The steps, from the start."""


def named(state: State) -> tuple[State, bool]:
    """The members are alike: whoever has fenced last is called A. (state, whether the names were exchanged)."""
    if state.log.owner != 1:
        return state, False
    newest = state.newest if state.newest == NEVER else 1 - state.newest
    return state._replace(members=state.members[::-1], log=state.log._replace(owner=0), newest=newest), True


def explore(model: Model, most: int = 10_000_000) -> Proof | Refutation:
    """Raises RuntimeError when there are more states than `most`."""
    start = State()
    came_from: dict[State, Step | None] = {start: None}
    waiting = deque([start])
    seen: Counter[str] = Counter()
    while waiting:
        state = waiting.popleft()
        for name, after in model.steps(state):
            if isinstance(after, Broken):
                return Refutation(after.reason, way(came_from, (state, name, False)))
            seen[name[2:]] += 1
            following, exchanged = named(model.canonical(after))
            if following not in came_from:
                came_from[following] = (state, name, exchanged)
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
    names, apart = [], False
    for _, name, exchanged in reversed(steps):
        names.append({"A": "B", "B": "A"}.get(name[0], name[0]) + name[1:] if apart else name)
        apart ^= exchanged
    return names
