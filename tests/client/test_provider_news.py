"""Trouble of a provider and its end, once each."""

from watcher.client.provider_news import ProviderWatch
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
