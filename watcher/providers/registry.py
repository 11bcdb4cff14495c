"""The registry: our five providers, and whoever stands in the entry point group `balance_watcher.providers`.

An entry point's name is the `type` written in the config, its value a class like those here; see
docs/adding-a-provider.md.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points

from watcher.providers.bloxroute import Bloxroute
from watcher.providers.helius import Helius
from watcher.providers.jupiter import Jupiter
from watcher.providers.ondo import Ondo
from watcher.providers.protocol import Provider
from watcher.providers.settings import ProviderSettings
from watcher.providers.tokenkit import TokenKit
from watcher.redaction.safe_text import one_line
from watcher.runtime.config_section import SettingsError

GROUP = "balance_watcher.providers"
BUILT_IN: Mapping[str, type[Provider]] = {
    "bloxroute": Bloxroute,
    "helius": Helius,
    "jupiter": Jupiter,
    "ondo": Ondo,
    "tokenkit": TokenKit,
}
REQUIRED: Mapping[str, str] = {
    "groups": "its constructor ends with self.groups = (TargetGroup(targets),)",
    **dict.fromkeys(
        ("ordering", "settle", "cache", "limits", "cost", "min_interval", "max_balances", "base_url", "advice"),
        "the constructor of ConfiguredProvider does",
    ),
}
"""What a provider's constructor must set, and how it is done."""


@cache
def known() -> Mapping[str, type[Provider]]:
    """Every provider type by its name in the config. Raises SettingsError for a plug-in that cannot be loaded."""
    plugins: dict[str, type[Provider]] = {}
    for point in entry_points(group=GROUP):
        try:
            kind = point.load()
        except Exception as error:  # whatever its code raises
            raise SettingsError(
                f"the provider plugin {point.name} = {point.value} cannot be loaded ({error}): repair or uninstall it"
            ) from error
        settings = getattr(kind, "Settings", None)
        if not (isinstance(settings, type) and issubclass(settings, ProviderSettings)):
            raise SettingsError(
                f"the provider plugin {point.name} = {point.value} has no Settings that extend ProviderSettings: "
                "repair or uninstall it"
            )
        plugins[point.name] = kind
    return {**plugins, **BUILT_IN}


def build(name: str, settings: ProviderSettings, kinds: Mapping[str, type[Provider]], *, keyed: bool) -> Provider:
    """The provider of one table. Raises SettingsError, also for a plug-in whose class is no provider."""
    kind = kinds[settings.type]
    try:
        provider = kind(name, settings, keyed=keyed)
    except (TypeError, AttributeError) as error:
        if kind in BUILT_IN.values():
            raise  # a bug of ours shows itself
        raise _broken(name, kind, f"cannot be made: {one_line(str(error), 300)}") from error
    for wrong in _wrong(provider):
        raise _broken(name, kind, wrong)
    return provider


def _wrong(provider: Provider) -> Iterator[str]:
    """What is wrong with a provider, and what to write."""
    for attribute, how in REQUIRED.items():
        if not hasattr(provider, attribute):
            yield f"sets no {attribute}: {how}"
            return
    if not provider.groups or not all(group.targets for group in provider.groups):
        yield "has nothing to ask: leave groups without targets out"
    for group in provider.groups:
        if not group.lanes:
            yield "has a group without lanes: TargetGroup(targets, (Lane(endpoint),))"
        elif min(lane.batch for lane in group.lanes) < 1:
            yield "has a lane whose batch is below 1: a request carries one target or more"
    scopes = (target.scope for group in provider.groups for target in group.targets)
    if (
        scope := next((scope for scope in scopes if "/" in f"{scope.chain}{scope.account}{scope.token}"), None)
    ) is not None:
        yield f"watches {scope.account}, {scope.token}: no part of a balance's key may hold a `/`"
    counts = Counter(target for group in provider.groups for target in group.targets)
    if (twice := next((target for target, count in counts.items() if count > 1), None)) is not None:
        yield f"has [{twice}] in its groups twice, and would read it twice"


def _broken(name: str, kind: type[Provider], what: str) -> SettingsError:
    return SettingsError(
        f"[providers.{name}]: the plug-in {kind.__module__}.{kind.__qualname__} {what} (tell its author)"
    )
