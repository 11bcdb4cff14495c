"""The tables of docs/operating.md that repeat what stands elsewhere: `python -m tests.app.operating_tables` writes them anew."""

import re
from pathlib import Path

import yaml
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from watcher.app import alert_metrics, metrics, webhook_metrics

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operating.md"
GOLDEN = Path(__file__).parent / "metrics.golden"
RULES = ROOT / "config" / "prometheus-rules.yml"

TABLES = (
    (metrics.PROVIDERS, "provider"),
    (metrics.HINT_SOURCES, "source, type"),
    (metrics.JOURNAL, "partition"),
    (metrics.FLEET, None),
    (metrics.HOLDINGS, "partition"),
    (metrics.PROCESS, None),
    (metrics.RELAY, None),
    (metrics.CONFIG, None),
    (alert_metrics.ALERTS, "alert"),
    (webhook_metrics.WEBHOOKS, "webhook"),
)
"""Tables of figures, and the label of the things that each is of."""


def metric_rows():
    """Every metric that a scrape can have: of the golden scrape, of the tables of figures, and in their order."""
    rows = dict(_scraped())
    for figures, label in TABLES:
        for figure in figures:
            kind = {CounterMetricFamily: "counter", GaugeMetricFamily: "gauge"}.get(figure.family, "histogram")
            name = figure.name + ("_total" if kind == "counter" else "")
            labels = ", ".join(each for each in (label, figure.by) if each)
            rows[name] = f"| `{name}` | {kind} | {labels} | {figure.help} |"
    return [*rows.values()]


def _scraped():
    text = GOLDEN.read_text()
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        (kind,) = re.findall(rf"^# TYPE {name} (\S+)$", text, re.MULTILINE)
        samples = re.findall(rf"^{name}(?:_bucket)?\{{(.*)\}}$", text, re.MULTILINE)
        labels = dict.fromkeys(re.findall(r'(\w+)="', ",".join(samples)))
        labels.pop("le", None)
        yield name, f"| `{name}` | {kind} | {', '.join(labels)} | {meaning} |"


def alert_rows():
    rules = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        said = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", rule["annotations"]["summary"])
        said = re.sub(r"\{\{ \$value.*?\}\}", "*N*", said)
        what = rule["annotations"]["description"]
        yield f"| `{rule['alert']}` | {rule['labels']['severity']} | {said} | {what} |"


def written(page):
    """The page with both tables as they have to be."""
    metrics_table = "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "\n".join(metric_rows())
    alerts_table = "| alert | severity | it says | what to do |\n|---|---|---|---|\n" + "\n".join(alert_rows())
    for head, table in (("metric", metrics_table), ("alert", alerts_table)):
        page, found = re.subn(
            rf"^\| {head} \|.*\n(?:\|.*\n)+", lambda _, table=table: table + "\n", page, flags=re.MULTILINE
        )
        assert found == 1, f"the table of {head}s stands in the page {found} times"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
