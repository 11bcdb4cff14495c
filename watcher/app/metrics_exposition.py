"""Metrics as text: OpenMetrics 1.0 for who asks for it, Prometheus text 0.0.4 for everybody else."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector, CollectorRegistry

from watcher.relay.http.routes import MetricsText

OPENMETRICS = "application/openmetrics-text"
VERSION = "1.0.0"
"""Of OpenMetrics."""
TEXT = {"text/plain", "text/*", "*/*"}
"""Media ranges that take the text format."""


class _Scrape(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(metrics: Iterable[Metric], accept: str = "") -> MetricsText:
    """What `/metrics` answers to that `Accept`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(metrics))
    if wants_openmetrics(accept):
        content_type = f"{OPENMETRICS}; version={VERSION}; charset=utf-8"
        return MetricsText(content_type, openmetrics_exposition.generate_latest(registry))  # type: ignore[no-untyped-call]
    return MetricsText("text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))


def wants_openmetrics(accept: str) -> bool:
    """Whether it is named, in the version that we speak, and the text format is not preferred. No wildcard asks for it."""
    ranges = list(_ranges(accept))
    openmetrics = max(
        (quality for name, version, quality in ranges if (name, version) == (OPENMETRICS, VERSION)), default=0.0
    )
    text = max((quality for name, _, quality in ranges if name in TEXT), default=0.0)
    return openmetrics > 0 and openmetrics >= text


def _ranges(accept: str) -> Iterator[tuple[str, str, float]]:
    """Each media range: its name, its version (without one: ours) and its quality; 0 for one that makes no sense."""
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        given = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        yield name, given.get("version", VERSION).strip('"'), _quality(given.get("q", "1"))


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0  # NaN is neither
