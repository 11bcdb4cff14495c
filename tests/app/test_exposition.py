"""Figures are read where they are kept, at the moment of the scrape."""

from prometheus_client.parser import text_string_to_metric_families

from watcher.app import exposition
from watcher.app.exposition import Family


def test_the_exposition_shows_the_figures_of_the_moment():
    polls = {"helius": 1.0}

    def collect():
        yield Family("watcher_polls", "Requests sent.", "counter", [((("provider", n),), v) for n, v in polls.items()])
        yield Family("watcher_relay_connections", "Open connections.", "gauge", [((), 7.0)])
        yield Family("watcher_empty", "Nothing yet.", "gauge", [])

    polls["helius"] = 5.0
    found = {
        family.name: family for family in text_string_to_metric_families(exposition.exposition(collect()).decode())
    }
    (sample,) = found["watcher_polls"].samples
    assert (sample.name, sample.labels, sample.value) == ("watcher_polls_total", {"provider": "helius"}, 5.0)
    assert found["watcher_relay_connections"].samples[0].value == 7.0
