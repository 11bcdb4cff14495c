"""What to say of a filter that matches nothing: what of it is not known here, and what is nearest. Pure."""

import difflib
from collections.abc import Collection, Iterable, Iterator

from watcher.model.filters import PARTS
from watcher.model.keys import Filter
from watcher.model.watches import WatchIndex

COMPARED = 200
"""Names that are looked at for the nearest: some milliseconds of work."""
SHOWN = 8
"""Names that are listed where none is near."""
LONGEST = 80
"""Characters of a value that are repeated."""


def note(wanted: Filter, watches: WatchIndex, providers: Collection[str], *, names: bool) -> str:
    """One line. `providers`: those that the asker may know of. `names`: it may know all labels and tags."""
    found = list(_unknown(wanted, watches, providers, names=names))
    return "; ".join(found) or "no balance that is watched or known matches all of it"


def _unknown(wanted: Filter, watches: WatchIndex, providers: Collection[str], *, names: bool) -> Iterator[str]:
    of = [name for name in watches.providers if name in providers]
    if (value := _stranger(wanted.provider, providers)) is not None:
        yield f"no provider {value}{_nearest(value, providers)}"
    if (value := _stranger(wanted.chain, chains := _values(watches, of, "chain"))) is not None:
        yield f"no watch names chain {value}{_nearest(value, chains)}"
    for name in ("label", "tag"):
        known = _values(watches, of, name)
        if (value := _stranger(getattr(wanted, name), known)) is not None:
            yield f"no watch has {name} {value}{_nearest(value, known) if names else ''}"
    if wanted.account is not None or wanted.token is not None:
        named = [name for name in PARTS[2:] if getattr(wanted, name) is not None]
        yield f"no watch and no balance has this {' and '.join(named)}"


def _stranger(values: Iterable[str] | None, known: Collection[str]) -> str | None:
    """The first that is not known; None when one is."""
    if values is None or any(value in known for value in values):
        return None
    return next(iter(values))[:LONGEST]


def _values(watches: WatchIndex, providers: Iterable[str], name: str) -> set[str]:
    return {value for provider in providers for value in watches.values(provider, name) if value is not None}


def _nearest(value: str, known: Collection[str]) -> str:
    choice = sorted(known)
    close = difflib.get_close_matches(value, choice[:COMPARED], n=1, cutoff=0.5)
    if close:
        return f": did you mean {close[0]}?"
    return f": there is {', '.join(choice[:SHOWN])}{', …' if len(choice) > SHOWN else ''}" if choice else ""
