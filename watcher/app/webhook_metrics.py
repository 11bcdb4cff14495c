"""The metrics of webhooks."""

import time
from collections.abc import Collection, Iterator

import msgspec
from prometheus_client.core import Metric

from watcher.app.metrics import Figure, counter, families, gauge
from watcher.webhooks.figures import WebhookFigures


class WebhookView(msgspec.Struct, frozen=True):
    """One webhook at the moment of the scrape."""

    figures: WebhookFigures
    wall: int
    """Wall-clock microseconds."""


WEBHOOKS: tuple[Figure[WebhookView], ...] = (
    counter(
        "webhook_deliveries",
        "Attempts to deliver an event, by what came of them; gone: the receiver answered 410, and nothing more is sent.",
        lambda w: w.figures.by_result,
        by="result",
    ),
    gauge(
        "webhook_lag_seconds",
        "Time since the oldest event was observed that is being delivered; 0: there is none.",
        lambda w: w.figures.lag(w.wall),
    ),
    gauge(
        "webhook_failing",
        "1 while an event waits that was not delivered, and when the receiver is gone.",
        lambda w: w.figures.problem is not None,
    ),
    counter(
        "webhook_gaps",
        "Times that it could not go on in the log where it was (webhook.gap).",
        lambda w: w.figures.gaps,
    ),
)


def families_of(found: Collection[WebhookFigures]) -> Iterator[Metric]:
    """None without a webhook."""
    if found:
        wall = time.time_ns() // 1000
        yield from families(WEBHOOKS, ("webhook",), {(one.name,): WebhookView(one, wall) for one in found})
