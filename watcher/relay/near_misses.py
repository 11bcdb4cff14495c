"""What to say of a filter that matches nothing: what of it is not known here, and what is nearest. Pure."""

import difflib
from collections.abc import Collection, Iterator

from watcher.model import addresses
from watcher.model.filters import ADDRESSES
from watcher.model.keys import Filter
from watcher.model.watches import WatchIndex

NAMED = {
    "chain": "names chain",
    "account": "names account",
    "token": "names token",
    "label": "has label",
    "tag": "has tag",
}
COMPARED = 200
"""Names that are looked at for the nearest: some milliseconds of work."""
SHOWN = 8
"""Names that are listed where none is near."""
LONGEST = 80
"""Characters of a value that are repeated."""


def note(wanted: Filter, watches: WatchIndex, providers: Collection[str], *, everything: bool) -> str:
    """One line. `providers`: those that the asker may know of. `everything`: it may know what all of them watch."""
    found = list(_unknown(wanted, watches, providers, everything=everything))
    return "; ".join(found) or "no balance that is watched or known matches all of it"


def _unknown(wanted: Filter, watches: WatchIndex, providers: Collection[str], *, everything: bool) -> Iterator[str]:
    if wanted.provider is not None and not set(wanted.provider) & set(providers):
        yield f"no provider {wanted.provider[0][:LONGEST]}{_nearest(wanted.provider[0], sorted(providers))}"
    for name, said in NAMED.items() if everything else ():
        values = getattr(wanted, name)
        if values is not None and not any(watches.names(name, value) for value in values):
            near = "" if name in ADDRESSES else _nearest(values[0], _choice(name, watches))
            yield f"no watch {said} {values[0][:LONGEST]}{near}"


def _choice(name: str, watches: WatchIndex) -> list[str]:
    known = watches.all_values[name]
    return [*known, *addresses.aliases(known)] if name == "chain" else known


def _nearest(value: str, choice: list[str]) -> str:
    close = difflib.get_close_matches(value[:LONGEST], choice[:COMPARED], n=1, cutoff=0.5)
    if close:
        return f": did you mean {close[0]}?"
    return f": there is {', '.join(choice[:SHOWN])}{', …' if len(choice) > SHOWN else ''}" if choice else ""
