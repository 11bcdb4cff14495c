"""The simulated APIs: our five, and whoever stands in the entry point group `balance_watcher.sandbox`."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from watcher.sandbox.api import Quota, SimulatedApi
from watcher.sandbox.bloxroute import SimulatedBloxroute
from watcher.sandbox.helius import SimulatedHelius
from watcher.sandbox.jupiter import SimulatedJupiter
from watcher.sandbox.ondo import SimulatedOndo
from watcher.sandbox.tokenkit import SimulatedTokenKit

GROUP = "balance_watcher.sandbox"
BUILT_IN: Mapping[str, type[SimulatedApi]] = {
    "jupiter": SimulatedJupiter,
    "bloxroute": SimulatedBloxroute,
    "helius": SimulatedHelius,
    "ondo": SimulatedOndo,
    "tokenkit": SimulatedTokenKit,
}
"""In the order in which they populate the world."""
PROVIDERS = tuple(BUILT_IN)
PARTS = tuple(part for part in vars(SimulatedApi) if not part.startswith("_"))
"""Of a SimulatedApi."""


@cache
def known() -> Mapping[str, type[SimulatedApi]]:
    """Every simulated API by its name; ours cannot be replaced. Raises ValueError for one that cannot be loaded."""
    plugins: dict[str, type[SimulatedApi]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        where = f"the sandbox plugin {point.name} = {point.value}"
        try:
            kind = point.load()
        except Exception as error:  # whatever its code raises
            raise ValueError(f"{where} cannot be loaded ({error}): repair or uninstall it") from error
        if getattr(kind, "name", None) != point.name:
            raise ValueError(f"{where} is no SimulatedApi with the name {point.name}: repair or uninstall it")
        if lacks := [part for part in PARTS if not hasattr(kind, part)]:
            raise ValueError(f"{where} is no SimulatedApi (it has no {', '.join(lacks)}): repair or uninstall it")
        plugins[point.name] = kind
    return {**BUILT_IN, **{name: kind for name, kind in plugins.items() if name not in BUILT_IN}}


def quotas() -> dict[str, tuple[Quota, ...]]:
    """Each API's own limits, by its name. Raises ValueError."""
    return {name: kind().quotas for name, kind in known().items()}
