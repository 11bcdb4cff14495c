"""What `/metrics` shows, to the letter: dashboards and alerts know these names."""

import contextlib
import json
import re
import sqlite3
from datetime import datetime
from pathlib import Path

import anyio
import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import Api, balance, helius, journal, poller_of, virtually
from tests.promtool import promtool
from tests.relay.stage import nothing
from watcher.app import metrics
from watcher.app.metrics_exposition import exposition, wants_openmetrics
from watcher.app.reload import Reloads
from watcher.hints.figures import SourceFigures
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


def hint_sources():
    """One that is there and has told something, and one that never was."""
    there = SourceFigures(name="mainnet", type="solana", connected=True, connections=2, subscriptions=7, left_out=1)
    for result, number in (("accepted", 5), ("unknown", 2)):
        there.count(result, 0.0, number)
    return [there, SourceFigures(name="ethereum", type="ethereum")]


async def hint(poller):
    """That its one balance has moved, after ten seconds."""
    await anyio.sleep(10)
    poller.schedules[0].hint(poller.provider.groups[0].targets[0], anyio.current_time(), "mainnet")


@pytest.fixture
def scraped(tmp_path):
    """Gives the text of a scrape, after half a minute: one provider with a limit of a day, two committers, a relay that refused
    and dropped."""

    async def main():
        async with journal(tmp_path / "balances.db") as intake:
            poller = poller_of(helius(1, limits=((1, 1.0), (86_400, 86_400.0))), Api(answer), intake)
            committers = [
                intake,
                Committer(intake._writer, Ledger(), gather=0.0, partition=1),
            ]
            status = Status(metrics=nothing, readiness=Readiness)
            relay = Relay(RelaySettings(), None, tokens=None, wall=int, status=status)
            relay.connections._refused |= {"origin": 1, "full": 2}
            relay.connections._dropped |= {"stalled": 3, "astray": 1}
            with anyio.move_on_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(hint, poller)
                    await poller.run()
            events = [json.loads(line) for (line,) in logged(tmp_path / "balances.db")]
            found = [
                *metrics.of_the_build("sqlite"),
                *metrics.everything([poller], committers, relay, None, Reloads(1.0), sources=hint_sources()),
            ]
            return found, events

    found, events = virtually(main)

    def text(accept=""):
        return exposition(found, accept).body.decode()

    text.events = events
    return text


def logged(path):
    with contextlib.closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT data FROM event WHERE type = 'changed' ORDER BY seq").fetchall()


@pytest.fixture
def scrape(scraped):
    return scraped()


def test_every_metric_has_its_place_its_name_its_text_and_its_labels(scrape):
    shown = re.sub(r'(python|version)="[0-9.]+"', r'\1="…"', scrape)
    assert re.sub(r"^([^#].*) \S+$", r"\1", shown, flags=re.MULTILINE) == GOLDEN.read_text()


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
    assert samples["watcher_limit_used_ratio", "86400/86400s", "helius"] == pytest.approx(30 / 86400, rel=0.1)
    assert samples["watcher_limit_burned_per_day", "86400/86400s", "helius"] == pytest.approx(86400, rel=0.1)
    assert samples["watcher_hints_total", "accepted", "mainnet", "solana"] == 5
    assert samples["watcher_hints_total", "mainnet", "rejected", "solana"] == 0
    assert samples["watcher_hint_source_connected", "mainnet", "solana"] == 1
    assert samples["watcher_hint_source_connected", "ethereum", "ethereum"] == 0
    assert samples["watcher_hint_source_connections_total", "mainnet", "solana"] == 2
    assert samples["watcher_hint_subscriptions", "mainnet", "solana"] == 7
    assert samples["watcher_hint_watches_left_out", "mainnet", "solana"] == 1
    assert 0 < samples["watcher_hint_precision", "helius", "mainnet"] <= 1
    assert samples["watcher_hinted_reads_total", "changed", "helius"] == 1
    assert samples["watcher_hinted_reads_total", "helius", "unchanged"] == 0
    assert samples["watcher_change_to_read_seconds", "helius", "hinted"] < 1.1
    assert samples["watcher_change_to_read_seconds", "helius", "unhinted"] == pytest.approx(0.5, rel=0.1)
    assert samples["watcher_relay_refused_total", "full"] == 2
    assert samples["watcher_relay_dropped_total", "stalled"] == 3
    assert samples["watcher_relay_connections",] == 0


def test_a_metric_without_a_sample_has_its_name_and_text():
    silent = [metrics.gauge("silent_seconds", "Nothing yet.", lambda _: None)]
    for things in ({}, {("helius",): None}):
        text = exposition(metrics.families(silent, ("provider",), things))
        assert text.body == b"# HELP watcher_silent_seconds Nothing yet.\n# TYPE watcher_silent_seconds gauge\n"


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def values(families):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_both_formats_say_the_same_to_parsers_that_are_not_ours(scraped):
    text = list(text_string_to_metric_families(scraped()))
    strict = list(openmetrics.text_string_to_metric_families(scraped(OPENMETRICS)))
    assert values(text) == values(strict)
    kinds = {family.name: family.type for family in strict}
    assert kinds["watcher_polls"] == "counter"
    assert kinds["watcher_build"] == "info"
    assert {name for name, kind in kinds.items() if kind == "histogram"} == {
        "watcher_request_duration_seconds", "watcher_detection_delay_seconds", "watcher_commit_duration_seconds",
    }  # fmt: skip


@pytest.mark.edge
def test_prometheus_own_tool_has_nothing_to_say_against_it(scraped):
    assert promtool("check", "metrics", given=scraped()) == (0, "")
    # It is seen to say something.
    status, said = promtool("check", "metrics", given="# TYPE watcher_polls counter\nwatcher_polls 1\n")
    assert status != 0
    assert "_total" in said


@pytest.mark.parametrize(
    ("accept", "asked"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        (OPENMETRICS, True),
        ('Application/OpenMetrics-Text; Version="1.0.0"; charset=utf-8', True),
        ("application/openmetrics-text; version=0.0.1", False),
        (f"{OPENMETRICS};q=0", False),
        (f"{OPENMETRICS};q=0.4, text/plain;q=0.5", False),
        (f"text/plain;q=0.5, {OPENMETRICS};q=0.5", True),
        (f"{OPENMETRICS};q=0.2, */*;q=0.5", False),
        (f"{OPENMETRICS};q=nan", False),
        (f"{OPENMETRICS};q=x", False),
        (",;,=;q", False),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            True,
        ),
    ],
)
def test_openmetrics_is_for_who_asks_for_it(accept, asked):
    assert wants_openmetrics(accept) is asked
    kind = (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if asked
        else "text/plain; version=0.0.4; charset=utf-8"
    )
    assert exposition([], accept).content_type == kind
    assert exposition([], accept).body == (b"# EOF\n" if asked else b"")


def test_the_histograms_count_what_the_events_say(scraped):
    found = values(text_string_to_metric_families(scraped()))
    delays = [
        (
            datetime.fromisoformat(event["observed_at"]) - datetime.fromisoformat(event["previous_observed_at"])
        ).total_seconds()
        for event in scraped.events
    ]
    provider = ("provider", "helius")
    assert len(delays) > 20
    assert found["watcher_detection_delay_seconds_count", provider] == len(delays)
    assert found["watcher_detection_delay_seconds_sum", provider] == pytest.approx(sum(delays))
    for bound in ("1.0", "2.5"):
        at_most = sum(delay <= float(bound) for delay in delays)
        assert found["watcher_detection_delay_seconds_bucket", ("le", bound), provider] == at_most
    assert found["watcher_request_duration_seconds_count", provider] == found["watcher_polls_total", provider]
    assert found["watcher_request_duration_seconds_bucket", ("le", "0.05"), provider] == 0  # 30 ms each way
    assert found["watcher_request_duration_seconds_bucket", ("le", "0.1"), provider] > 20
    partition = ("partition", "0")
    assert found["watcher_commit_duration_seconds_count", partition] == found["watcher_commits_total", partition]
