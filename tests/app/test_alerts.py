"""Every alert fires in the trouble it is for, and none in a healthy world; judged by promtool, Prometheus' own tool."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from tests.promtool import promtool
from watcher.app import alert_metrics, metrics, webhook_metrics
from watcher.hints.figures import RESULTS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus-rules.yml"
BOARD = ROOT / "config" / "grafana.json"
AT = 60
"""Minutes after the start at which the world is judged; it has a sample each minute."""


def steady(value):
    return f"{value}+0x{AT}"


def growing(by, start=0):
    return f"{start}+{by}x{AT}"


def since(minutes, before, after):
    """One value until so many minutes ago, and another from then on; `_` is none."""
    return f"{_held(before, AT - minutes)} {_held(after, minutes)}"


def _held(value, minutes):
    return f"_x{minutes}" if value == "_" else f"{value}+0x{minutes}"


def series(name, **labels):
    labels = {"job": "balance-watcher", "instance": "w", **labels}
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


def of(name):
    """Of the provider in these worlds."""
    return series(f"watcher_{name}", provider="helius")


def failures(kind):
    return series("watcher_poll_failures_total", provider="helius", kind=kind)


def commits(le):
    return series("watcher_commit_duration_seconds_bucket", partition="0", le=le)


def of_source(name, **labels):
    """Of the source of hints in these worlds."""
    return series(f"watcher_{name}", source="solana", type="solana", **labels)


GONE = None
WEBHOOK_FAILING = series("watcher_webhook_failing", webhook="ops")
WEBHOOK_GAPS = series("watcher_webhook_gaps_total", webhook="ops")
UNREAD = series("watcher_alert_unread", alert="nobody reads it", provider="helius")
HINT_PRECISION = series("watcher_hint_precision", provider="helius", source="solana")
HEALTHY = {
    series("up"): steady(1),
    series("watcher_build_info"): steady(1),
    of("polls_total"): growing(30),
    of("watches"): steady(10),
    of("last_success_timestamp_seconds"): growing(60),
    of("schedule_cycle_seconds"): steady(26),
    of("stalest_seconds"): steady(40),
    of("paused_seconds"): steady(0),
    of("refusals_total"): steady(0),
    of("clock_mismatches_total"): steady(0),
    of("oldest_doubt_seconds"): steady(3),
    of("longest_behind_seconds"): steady(0),
    of("orders_went_back_total"): steady(0),
    of("refused_balances"): steady(0),
    **{failures(kind): steady(0) for kind in metrics.FAILURES},
    failures("temporary"): growing(1),
    of_source("hint_source_connected"): steady(1),
    of_source("hint_subscriptions"): steady(40),
    **{of_source("hints_total", result=result): growing(30) for result in RESULTS},
    HINT_PRECISION: steady(0.9),
    series("watcher_journal_ready", partition="0"): steady(1),
    commits("0.01"): growing(40),
    commits("1.0"): growing(60),
    commits("2.0"): growing(60),
    commits("+Inf"): growing(60),
    series("watcher_rejected_records_total", partition="0"): steady(0),
    series("watcher_relay_log_errors_total"): steady(1),
    **{
        series("watcher_relay_dropped_total", reason=reason): steady(0) for reason in (*metrics.DROPPED, "unauthorized")
    },
    series("watcher_relay_descriptors_exhausted_total"): steady(0),
    series("watcher_config_reloads_total", result="refused"): steady(1),
    series("watcher_log_lines_dropped_total"): steady(0),
    WEBHOOK_FAILING: steady(0),
    WEBHOOK_GAPS: steady(1),
    UNREAD: steady(0),
    series("watcher_unowned_providers"): steady(0),
    series("watcher_partition_unowned_seconds", partition="0"): steady(0),
    **{series("watcher_partition_moves_total", kind=kind): growing(1) for kind in ("opened", "let_go")},
    series("watcher_partition_moves_total", kind="lost"): steady(2),
}
LIMIT = series("watcher_limit_exhausted_timestamp_seconds", provider="helius", limit="1000000/2592000s")
DAY = 86400

TROUBLE = {
    "WatcherDown": {series("up"): since(3, 1, 0)},
    "WatcherGone": {series("watcher_build_info"): since(10, 1, "_")},
    "WatcherRestarting": {of("polls_total"): f"0+30x{AT - 20} 5+5x5 5+5x5 5+5x8"},
    "WatcherProviderNeverAnswered": {of("last_success_timestamp_seconds"): GONE},
    "WatcherProviderSilent": {of("last_success_timestamp_seconds"): f"0+60x{AT - 20}" + f" {60 * (AT - 20)}+0x20"},
    "WatcherStale": {of("stalest_seconds"): since(5, 40, 4000)},
    "WatcherProviderPaused": {of("paused_seconds"): since(20, 0, 600)},
    "WatcherCredentialRefused": {failures("refusedcredential"): since(5, 0, 1)},
    "WatcherWatchRefused": {failures("misconfigured"): since(30, 0, 1)},
    "WatcherRefusedForRate": {of("refusals_total"): since(10, 2, 3)},
    "WatcherCreditsUsedUp": {failures("exhausted"): since(50, 0, 1)},
    "WatcherCreditsRunOut": {LIMIT: steady(2 * DAY)},
    "WatcherClockMismatch": {of("clock_mismatches_total"): since(30, 0, 1)},
    "WatcherInDoubt": {of("oldest_doubt_seconds"): since(1, 3000, 3700)},
    "WatcherBehind": {of("longest_behind_seconds"): since(1, 0, 400)},
    "WatcherOrderWentBack": {of("orders_went_back_total"): since(40, 0, 1)},
    "WatcherFull": {of("refused_balances"): since(15, 0, 7)},
    "WatcherHintSourceAway": {of_source("hint_source_connected"): f"1+0x{AT - 40}" + 10 * " 0 0 0 1"},
    "WatcherHintSourceUnsubscribed": {of_source("hint_subscriptions"): since(15, 40, 0)},
    "WatcherHintsImprecise": {HINT_PRECISION: since(40, 0.9, 0.04)},
    "WatcherJournalDown": {series("watcher_journal_ready", partition="0"): since(3, 1, 0)},
    "WatcherJournalSlow": {commits("0.01"): growing(0), commits("1.0"): growing(30)},
    "WatcherRecordRejected": {series("watcher_rejected_records_total", partition="0"): since(40, 0, 1)},
    "WatcherRelayCannotRead": {series("watcher_relay_log_errors_total"): growing(1)},
    "WatcherSlowSubscribers": {series("watcher_relay_dropped_total", reason="stalled"): since(5, 0, 5)},
    "WatcherOutOfDescriptors": {series("watcher_relay_descriptors_exhausted_total"): since(5, 0, 1)},
    "WatcherConfigRefused": {series("watcher_config_reloads_total", result="refused"): since(5, 1, 2)},
    "WatcherLogLinesDropped": {series("watcher_log_lines_dropped_total"): since(5, 0, 100)},
    "WatcherWebhookFailing": {WEBHOOK_FAILING: since(20, 0, 1)},
    "WatcherWebhookGap": {WEBHOOK_GAPS: since(40, 1, 2)},
    "WatcherBalancesUnread": {UNREAD: since(5, 0, 3)},
    "WatcherProviderUnowned": {series("watcher_unowned_providers"): since(5, 0, 1)},
    "WatcherProviderUnpolled": {of("watches"): since(10, 10, "_")},
    "WatcherPartitionUnowned": {series("watcher_partition_unowned_seconds", partition="0"): since(1, 0, 40)},
    "WatcherFleetChurn": {series("watcher_partition_moves_total", kind="lost"): growing(1)},
}
"""Alert → what is not as it is in the healthy world."""

QUIET = {
    "a pause that the provider asked for": {of("paused_seconds"): since(5, 0, 60)},
    "a watch that is read once in ten hours": {
        of("stalest_seconds"): steady(40_000),
        of("schedule_cycle_seconds"): steady(36_000),
        of("watches"): steady(13_000),
    },
    "a provider that is asked every ten minutes": {
        of("watches"): steady(1),
        of("schedule_cycle_seconds"): steady(600),
        of("last_success_timestamp_seconds"): f"0+60x{AT - 9} {60 * (AT - 9)}+0x9",
    },
    "a source of hints that was cut, and is there again": {
        of_source("hint_source_connected"): f"1+0x{AT - 20} 0+0x9 1+0x9"
    },
    "a source that was wrong, and tells nothing any more": {
        HINT_PRECISION: steady(0.04),
        **{of_source("hints_total", result=result): steady(1000) for result in RESULTS},
    },
    "a receiver that is restarted": {WEBHOOK_FAILING: f"0+0x{AT - 20} 1+0x9 0+0x9"},
    "credits that last for a week": {LIMIT: steady(7 * DAY)},
    "clocks that were wrong, yesterday": {of("clock_mismatches_total"): steady(1)},
    "no commit at all": {commits(le): steady(5) for le in ("0.01", "1.0", "2.0", "+Inf")},
    "a member that has just been started": {
        of("watches"): since(3, "_", 10),
        of("last_success_timestamp_seconds"): GONE,
        of("schedule_cycle_seconds"): GONE,
        of("stalest_seconds"): GONE,
    },
}
LONGER = {"clocks that were wrong, yesterday": 3 * AT}
"""Minutes after which these are judged."""


def world(name, changed, expected):
    """One test of promtool's."""
    at = LONGER.get(name, AT)
    found = {what: values for what, values in {**HEALTHY, **changed}.items() if values is not GONE}
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in expected]
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": what, "values": _stretched(values, at)} for what, values in found.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{at}m", "exp_samples": samples}],
    }


def _stretched(values, at):
    """A world that is judged later goes on as it began."""
    return values.replace(f"x{AT}", f"x{at}")


def judged(folder, worlds, rules=None):
    """What promtool says of them, all in one run."""
    (folder / "rules.yml").write_text(RULES.read_text() if rules is None else yaml.safe_dump(rules))
    told = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": worlds}
    (folder / "test.yml").write_text(yaml.safe_dump(told))
    return promtool("test", "rules", folder / "test.yml")


def rules():
    return yaml.safe_load(RULES.read_text())


def alerts():
    return [rule for group in rules()["groups"] for rule in group["rules"]]


def test_each_alert_fires_alone_in_its_trouble(tmp_path):
    assert {*TROUBLE} == {rule["alert"] for rule in alerts()}
    status, said = judged(tmp_path, [world(alert, changed, [alert]) for alert, changed in TROUBLE.items()])
    assert status == 0, said


def test_none_fires_in_a_healthy_world(tmp_path):
    worlds = [world("healthy", {}, []), *(world(name, changed, []) for name, changed in QUIET.items())]
    status, said = judged(tmp_path, worlds)
    assert status == 0, said


def test_an_alert_that_can_never_fire_is_seen(tmp_path):
    planted = rules()
    for group in planted["groups"]:
        for rule in group["rules"]:
            rule["expr"] = f"({rule['expr']}) and on () vector(0) > 1"
    some = ("WatcherDown", "WatcherCreditsRunOut", "WatcherJournalSlow")
    status, said = judged(tmp_path, [world(alert, TROUBLE[alert], [alert]) for alert in some], planted)
    assert status != 0
    assert all(f'alertname="{alert}"' in said for alert in some)


def test_each_alert_says_how_grave_it_is_what_is_wrong_and_what_to_do():
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 40, rule["alert"]
    assert promtool("check", "rules", RULES)[0] == 0
    assert promtool("check", "config", "--syntax-only", ROOT / "config" / "prometheus.yml")[0] == 0


def served():
    """The names of all samples that `/metrics` can have."""
    tables = (
        metrics.PROVIDERS,
        metrics.HINT_SOURCES,
        metrics.JOURNAL,
        metrics.FLEET,
        metrics.HOLDINGS,
        metrics.PROCESS,
        metrics.RELAY,
        metrics.CONFIG,
        alert_metrics.ALERTS,
        webhook_metrics.WEBHOOKS,
    )
    endings = {CounterMetricFamily: ("_total",), HistogramMetricFamily: ("_bucket", "_sum", "_count")}
    names = {figure.name + end for table in tables for figure in table for end in endings.get(figure.family, ("",))}
    return names | {"watcher_build_info"}


@pytest.mark.parametrize("file", [RULES, BOARD], ids=lambda file: file.name)
def test_every_metric_that_the_alerts_and_the_board_name_is_served(file):
    expressions = [rule["expr"] for rule in alerts()] if file == RULES else board()
    asked = {name for text in expressions for name in re.findall(r"\bwatcher_[a-z_]+", text)}
    assert asked
    assert asked <= served()


def board():
    return [target["expr"] for panel in json.loads(BOARD.read_text())["panels"] for target in panel["targets"]]


def test_the_board_has_a_place_for_each_panel_and_prometheus_understands_it(tmp_path):
    panels = json.loads(BOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    group = {"name": "board", "rules": [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(board())]}
    (tmp_path / "board.yml").write_text(yaml.safe_dump({"groups": [group]}))
    status, said = promtool("check", "rules", tmp_path / "board.yml")
    assert status == 0, said
