"""Metrics: figures as the Prometheus text format, and a small HTTP port for processes without a relay.

This edge knows none of the other rooms. The root hands it a callable that gives the families of the moment, so a
figure is read where it is kept and nothing is counted twice.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

CONTENT_TYPE = CONTENT_TYPE_LATEST
Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, frozen=True):
    """One metric and its samples. Names carry their unit: `_seconds`, `_bytes`, `_total` for counters."""

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    samples: Sequence[tuple[Labels, float]]


class _Families(Collector):
    def __init__(self, collect: Callable[[], Iterable[Family]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        for family in self._collect():
            names = [name for name, _ in family.samples[0][0]] if family.samples else []
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=names)
            for labels, value in family.samples:
                metric.add_metric([text for _, text in labels], value)
            yield metric


def exposition(collect: Callable[[], Iterable[Family]]) -> Callable[[], bytes]:
    """A callable that renders what `collect` gives at that moment."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(collect))
    return lambda: generate_latest(registry)


Answers = Mapping[str, Callable[[], tuple[int, str, bytes]]]
"""Path → (HTTP status, content type, body)."""


@contextlib.contextmanager
def served(host: str, port: int, answers: Answers) -> Iterator[int]:
    """GET those paths on a port of their own; gives the bound port. Raises OSError when the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # a client that says nothing does not keep a thread

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, kind, body = answer() if answer else (404, "text/plain; charset=utf-8", b"not found\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape every few seconds is no news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        what = f"port {port} of {host} cannot be listened on ({error.strerror}): free it, or set another metrics_port"
        raise OSError(error.errno, what) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
