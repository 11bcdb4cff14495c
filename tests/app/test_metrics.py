"""What `/metrics` shows, to the letter: dashboards and alerts know these names."""

import re
from pathlib import Path

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import Api, balance, helius, journal, poller_of, virtually
from tests.relay.stage import nothing
from watcher.app import metrics
from watcher.app.reload import Reloads
from watcher.ingest.committer import Committer
from watcher.ledger import Ledger
from watcher.relay.http.routes import Readiness, Status
from watcher.relay.server import Relay
from watcher.relay.settings import RelaySettings

GOLDEN = Path(__file__).parent / "metrics.golden"


def answer(_, n):
    if n == 3:
        return httpx.Response(500, text="no")
    return httpx.Response(200, json=balance(str(n), slot=n))


@pytest.fixture
def scrape(tmp_path):
    """The text of a scrape, after half a minute: one provider, two committers, a relay that refused and dropped."""

    async def main():
        async with journal(tmp_path / "balances.db") as intake:
            poller = poller_of(helius(1, limits=((1, 1.0),)), Api(answer), intake)
            committers = [
                intake,
                Committer(intake._writer, Ledger(), gather=0.0, partition=1),
            ]
            status = Status(metrics=nothing, readiness=Readiness)
            relay = Relay(RelaySettings(), None, tokens=None, wall=int, status=status)
            relay.connections._refused |= {"origin": 1, "full": 2}
            relay.connections._dropped |= {"stalled": 3, "astray": 1}
            with anyio.move_on_after(30):
                await poller.run()
            return metrics.exposition(metrics.everything([poller], committers, relay, None, Reloads(1.0))).decode()

    return virtually(main)


def test_every_metric_has_its_place_its_name_its_text_and_its_labels(scrape):
    assert re.sub(r"^([^#].*) \S+$", r"\1", scrape, flags=re.MULTILINE) == GOLDEN.read_text()


def test_a_scrape_has_the_figures_of_the_moment(scrape):
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(scrape)
        for sample in family.samples
    }
    assert samples["watcher_polls_total", "helius"] > samples["watcher_answers_total", "helius"] > 10
    assert samples["watcher_poll_failures_total", "helius", "temporary"] == 1
    assert samples["watcher_known_balances", "helius"] == 1
    assert samples["watcher_watches", "helius"] == 1
    assert samples["watcher_journal_ready", "0"] == 1
    assert samples["watcher_journal_ready", "1"] == 0
    assert samples["watcher_committed_rows_total", "0"] == samples["watcher_changes_total", "helius"] + 1
    assert samples["watcher_relay_refused_total", "full"] == 2
    assert samples["watcher_relay_dropped_total", "stalled"] == 3
    assert samples["watcher_relay_connections",] == 0


def test_a_metric_without_a_sample_has_its_name_and_text():
    silent = [metrics.gauge("silent_seconds", "Nothing yet.", lambda _: None)]
    for things in ({}, {"helius": None}):
        text = metrics.exposition(metrics.families(silent, "provider", things))
        assert text == b"# HELP watcher_silent_seconds Nothing yet.\n# TYPE watcher_silent_seconds gauge\n"
