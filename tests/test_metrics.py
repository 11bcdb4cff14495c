"""Figures are read where they are kept, at the moment of the scrape."""

import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from watcher import metrics
from watcher.metrics import Family


def test_the_exposition_shows_the_figures_of_the_moment():
    polls = {"helius": 1.0}

    def collect():
        yield Family("watcher_polls", "Requests sent.", "counter", [((("provider", n),), v) for n, v in polls.items()])
        yield Family("watcher_relay_connections", "Open connections.", "gauge", [((), 7.0)])
        yield Family("watcher_empty", "Nothing yet.", "gauge", [])

    render = metrics.exposition(collect)
    polls["helius"] = 5.0
    found = {family.name: family for family in text_string_to_metric_families(render().decode())}
    (sample,) = found["watcher_polls"].samples
    assert (sample.name, sample.labels, sample.value) == ("watcher_polls_total", {"provider": "helius"}, 5.0)
    assert found["watcher_relay_connections"].samples[0].value == 7.0


def test_a_port_of_its_own_answers_what_it_was_given_and_404_else():
    answers = {"/healthz": lambda: (200, "text/plain", b"ok\n"), "/readyz": lambda: (503, "text/plain", b"no\n")}
    with metrics.served("127.0.0.1", 0, answers) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz?x=1") as response:
            assert response.read() == b"ok\n"
        for path, status in (("/readyz", 503), ("/nothing", 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
            refused.value.close()
            assert refused.value.code == status
        with pytest.raises(OSError, match="Address already in use"), metrics.served("127.0.0.1", port, answers):
            pass
