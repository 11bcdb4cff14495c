"""Trouble of a provider and its end, once each; sources of hints that come and go."""

from msgspec import UNSET

from watcher.client.provider_news import FIGURES_EVERY, HintWatch, ProviderWatch, UnreadNews, UnreadWatch
from watcher.model.events import HintsHealth, HintSourceHealth, UnreadAlert
from watcher.relay.messages import ProviderStatus


def states(watch, *steps):
    """What is news, step by step: each is {provider: state}."""
    found = []
    for step in steps:
        statuses = {name: ProviderStatus(None, None, 0.0, state, None, None) for name, state in step.items()}
        found.append([(news.provider, news.state, news.is_trouble) for news in watch.news(statuses)])
    return found


def test_trouble_is_news_once_and_its_end_is_too():
    steps = [{"a": state, "b": "ok"} for state in ("waiting", "ok", "failing", "failing", "refused", "ok", "ok")]
    assert states(ProviderWatch(None), *steps) == [
        [],
        [],
        [("a", "failing", True)],
        [],
        [("a", "refused", True)],
        [("a", "ok", False)],
        [],
    ]


def test_who_waits_after_trouble_has_not_recovered_yet():
    steps = [{"a": state} for state in ("refused", "waiting", "ok")]
    assert states(ProviderWatch(None), *steps) == [[("a", "refused", True)], [], [("a", "ok", False)]]


def test_providers_that_the_filter_leaves_out_are_no_news():
    assert states(ProviderWatch(["b"]), {"a": "failing", "b": "failing"}) == [[("b", "failing", True)]]


def hinted(**links):
    """A status whose sources are there (True) or away (False)."""
    sources = (
        HintSourceHealth(
            source=name, type="solana", connected=there, since=f"since {there}", per_second=1.0, precision=None
        )
        for name, there in links.items()
    )
    hints = HintsHealth(sources=tuple(sources), hinted_delay=None, unhinted_delay=None)
    return ProviderStatus(None, None, 0.0, "ok", None, None, hints)


UNHINTED = ProviderStatus(None, None, 0.0, "ok", None, None)


def sources(watch, *steps):
    return [[(each.provider, each.source, each.connected) for each in watch.news(step)] for step in steps]


def test_a_source_that_comes_or_goes_is_news_once_for_each_provider_and_so_is_the_first_sight_of_it():
    both = {"a": hinted(sol=True, eth=False), "b": hinted(sol=True)}
    gone = {"a": hinted(sol=False, eth=False), "b": hinted(sol=True)}
    assert sources(HintWatch(None), both, both, gone, gone, both) == [
        [("a", "sol", True), ("a", "eth", False), ("b", "sol", True)],
        [],
        [("a", "sol", False)],
        [],
        [("a", "sol", True)],
    ]


def test_a_provider_that_nobody_polls_says_nothing_of_its_sources_and_is_news_when_it_does_again():
    assert sources(HintWatch(None), {"a": hinted(sol=True)}, {"a": UNHINTED}, {}, {"a": hinted(sol=True)}) == [
        [("a", "sol", True)],
        [],
        [],
        [("a", "sol", True)],
    ]


def test_sources_and_figures_of_providers_that_the_filter_leaves_out_are_no_news():
    statuses = {"a": hinted(sol=True), "b": hinted(sol=False), "c": UNHINTED}
    watch = HintWatch(["b", "c"])
    assert sources(watch, statuses) == [[("b", "sol", False)]]
    assert [name for name, _ in watch.figures(statuses, 0.0)] == ["b"]


def test_the_figures_of_a_provider_are_told_once_a_minute():
    watch, statuses = HintWatch(None), {"a": hinted(sol=True), "b": UNHINTED}
    times = [n * 15.0 for n in range(13)]
    assert [now for now in times if list(watch.figures(statuses, now))] == [0.0, FIGURES_EVERY, 120.0, 180.0]


def unread(**alerts):
    """A status with so many balances unread by alert."""
    found = tuple(UnreadAlert(name, "then", balances) for name, balances in alerts.items())
    return ProviderStatus(None, None, 0.0, "ok", None, None, None, found or UNSET)


def test_an_alert_on_what_is_not_read_is_news_when_it_begins_and_when_it_ends():
    watch = UnreadWatch(["a", "b"])
    steps = [
        {"a": unread(cold=2), "b": unread(), "c": unread(cold=9)},
        {"a": unread(cold=3), "b": unread(cold=1)},
        {"a": unread(hot=1), "b": unread(cold=1)},
        {"a": unread(hot=1)},  # the relay tells of b no more: nobody knows
    ]
    assert [list(watch.news(step)) for step in steps] == [
        [UnreadNews("a", "cold", 2, "then", over=False)],
        [UnreadNews("b", "cold", 1, "then", over=False)],
        [UnreadNews("a", "hot", 1, "then", over=False), UnreadNews("a", "cold", 3, "then", over=True)],
        [],
    ]
