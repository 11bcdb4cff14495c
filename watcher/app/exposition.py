"""Metrics: figures as the Prometheus text format.

This edge knows none of the other rooms. The root hands it the families of the moment, so a figure is read where it is
kept and nothing is counted twice.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, frozen=True):
    """One metric and its samples. Names carry their unit: `_seconds`, `_bytes`, `_total` for counters."""

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    samples: Sequence[tuple[Labels, float]]


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            names = [name for name, _ in family.samples[0][0]] if family.samples else []
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=names)
            for labels, value in family.samples:
                metric.add_metric([text for _, text in labels], value)
            yield metric


def exposition(families: Iterable[Family]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)
