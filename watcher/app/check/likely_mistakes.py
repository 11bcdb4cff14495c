"""What is allowed and seldom meant: a wallet where a token account belongs, one watch written twice."""

from collections.abc import Iterator

import msgspec

from watcher.app.findings import Finding
from watcher.model.addresses import on_curve
from watcher.model.targets import Target
from watcher.providers import registry
from watcher.providers.helius import Helius
from watcher.providers.protocol import Provider


def likely_mistakes(provider: Provider) -> Iterator[Finding]:
    yield from same_watch(provider)
    if isinstance(provider, Helius):
        yield from wallets(provider)


def same_watch(provider: Provider) -> Iterator[Finding]:
    """Watches of one table that ask for the same thing."""
    watches = provider.settings.watch
    if len({target for group in provider.groups for target in group.targets}) == len(watches):
        return
    seen: dict[Target, int] = {}
    kinds = {provider.settings.type: type(provider)}
    for number, watch in enumerate(watches):
        alone = registry.build(
            provider.name, msgspec.structs.replace(provider.settings, watch=(watch,)), kinds, keyed=True
        )
        for target in (target for group in alone.groups for target in group.targets):
            if (first := seen.setdefault(target, number)) != number:
                where = f"providers.{provider.name}.watch[{number}]"
                what = f"[{where}] asks for what watch[{first}] asks for already ({target})"
                yield Finding("warning", where, what, "keep one of them")


def wallets(provider: Helius) -> Iterator[Finding]:
    """A wallet's address is a point of the curve. That of a token account seldom is: only where somebody made a key for it."""
    for number, watch in enumerate(provider.settings.watch):
        if watch.account is not None and on_curve(watch.account):
            where = f"providers.{provider.name}.watch[{number}].account"
            what = (
                f"[providers.{provider.name}] account {watch.account} may be a wallet, and Helius reads token accounts"
            )
            step = (
                "if it is one, name its account that holds the token, or give the wallet to a provider of type jupiter"
            )
            yield Finding("info", where, what, step)
