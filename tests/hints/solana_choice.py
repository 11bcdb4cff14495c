"""Which subscriptions of a Solana node have a place, chosen from scratch and in one go: the plain rule."""

from watcher.hints.solana_subscriptions import feeds
from watcher.model.addresses import SOLANA


def chosen(watched, most):
    """Feeds in their order, the scopes of which all have a place with theirs, and how many scopes are left out."""
    tokens = {}
    for watch in watched:
        if watch.scope.chain == SOLANA:
            _, names = tokens.setdefault(watch.scope, (watch, set()))
            names.update(watch.tokens)
    takes = {
        scope: feeds(type(first)(scope, first.token_account, tuple(sorted(names)), first.commitment))
        for scope, (first, names) in tokens.items()
    }
    turns = {}
    for scope in sorted(takes, key=lambda scope: (len(takes[scope]), scope.account or "", scope.token or "")):
        if takes[scope]:
            turns.setdefault(scope.provider, []).append(scope)
    used, placed, whole, partly = dict.fromkeys(turns, 0), {}, {}, []
    while turns and len(placed) < most:
        provider = min(turns, key=lambda name: (used[name], name))
        scope = turns[provider].pop(0)
        new = [feed for feed in takes[scope] if feed not in placed]
        if len(placed) + len(new) > most:
            partly += new
            turns[provider].clear()
        else:
            used[provider] += len(new)
            placed |= dict.fromkeys(new)
            whole[scope] = takes[scope]
        turns = {name: left for name, left in turns.items() if left}
    rest = [feed for feed in dict.fromkeys(partly) if feed not in placed]
    return [*placed, *rest[: most - len(placed)]], whole, len(takes) - len(whole)
