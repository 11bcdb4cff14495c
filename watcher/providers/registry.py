"""The registry: our five providers, and whoever stands in the entry point group `balance_watcher.providers`.

An entry point's name is the `type` written in the config, its value a class like those here; see
docs/adding-a-provider.md.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points

from watcher.providers.bloxroute import Bloxroute
from watcher.providers.helius import Helius
from watcher.providers.jupiter import Jupiter
from watcher.providers.ondo import Ondo
from watcher.providers.protocol import Provider, SettingsError
from watcher.providers.tokenkit import TokenKit

GROUP = "balance_watcher.providers"
BUILT_IN: Mapping[str, type[Provider]] = {
    "bloxroute": Bloxroute,
    "helius": Helius,
    "jupiter": Jupiter,
    "ondo": Ondo,
    "tokenkit": TokenKit,
}


def known() -> Mapping[str, type[Provider]]:
    """Every provider type by its name in the config. Raises SettingsError for a plugin that cannot be loaded."""
    plugins: dict[str, type[Provider]] = {}
    for point in entry_points(group=GROUP):
        try:
            plugins[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise SettingsError(
                f"the provider plugin {point.name} = {point.value} cannot be loaded ({error}): repair or uninstall it"
            ) from error
    return {**plugins, **BUILT_IN}
