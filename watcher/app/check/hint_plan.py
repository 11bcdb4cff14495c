"""What each source of hints can tell of, by the config alone: nobody is asked."""

from collections.abc import Iterator, Sequence

from watcher.app.check.plan import count_words
from watcher.app.findings import Finding
from watcher.app.hint_sources import HintSource, watched_scopes
from watcher.hints.settings import SolanaHints, TokenkitHints
from watcher.hints.solana_subscriptions import choose
from watcher.ledger import Ledger
from watcher.model.keys import Scope
from watcher.providers.protocol import Provider
from watcher.providers.tokenkit import TokenKit
from watcher.relay.http.hint_routes import TOKENKIT_HOOK
from watcher.runtime.slicing import run_at_once


def hint_line(source: HintSource, providers: Sequence[Provider]) -> str:
    """As a line for people."""
    found = {provider.name: number for provider in providers if (number := len(_within(source, provider)))}
    watches = sum(len(group.targets) for provider in providers for group in provider.groups)
    parts = ", ".join(f"{name} {number:,}" for name, number in found.items())
    reach = f" ({parts})" if parts else ""
    door = f"; its webhooks are to be sent to {TOKENKIT_HOOK}" if isinstance(source.table, TokenkitHints) else ""
    return (
        f"hints {source.name} ({source.table.type}): can tell of {sum(found.values()):,} of "
        f"{count_words(watches, 'watch', 'watches')}{reach}{door}"
    )


def useless(source: HintSource, providers: Sequence[Provider]) -> Iterator[Finding]:
    """A source that tells of nothing that is watched, or has no room for all."""
    where = f"hints.{source.name}"
    whole = [scope for provider in providers for scope in _there(source, provider) if scope.is_whole_chain]
    if whole:
        what = f"[[hints]] {source.name} cannot tell of {count_words(len(whole), 'watch', 'watches')} of a whole chain"
        yield Finding("warning", where, what, "name tokens or holders there, or leave that to the schedule")
    elif providers and not any(_within(source, provider) for provider in providers):
        what = f"[[hints]] {source.name} tells of nothing that is watched: it is about {source.chain}"
        yield Finding("warning", where, what, "remove it, or watch something there")
    for provider in providers:
        if isinstance(provider, TokenKit) and provider.settings.max_age and _within(source, provider):
            place = f"providers.{provider.name}.max_age"
            what = f"[providers.{provider.name}] max_age {provider.settings.max_age:g} holds for hinted reads too: TokenKit may answer them from before the hint"
            yield Finding("warning", place, what, "leave it out, or write 0")
    if isinstance(source.table, SolanaHints):
        watched = [one for provider in providers for one in watched_scopes(provider, Ledger())]
        most = source.table.max_subscriptions
        choice = run_at_once(choose([one for one in watched if not one.scope.is_whole_chain], most))
        if choice.without_place:
            what = f"[[hints]] {source.name}: max_subscriptions {most} leaves out {count_words(choice.without_place, 'watch', 'watches')}"
            yield Finding("warning", where, what, "raise it if your plan allows that")


def _within(source: HintSource, provider: Provider) -> list[Scope]:
    """What of a provider it can tell of."""
    return [scope for scope in _there(source, provider) if not scope.is_whole_chain]


def _there(source: HintSource, provider: Provider) -> list[Scope]:
    """What of a provider is on the chain that the source tells of; TokenKit's webhooks are about TokenKit alone."""
    if isinstance(source.table, TokenkitHints) and not isinstance(provider, TokenKit):
        return []
    scopes = (target.scope for group in provider.groups for target in group.targets)
    return [scope for scope in scopes if scope.chain == source.chain]
