"""Fixtures that more than one room needs."""

import contextlib
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from hypothesis import HealthCheck, settings

from tests.canaries import shown
from tests.kafka_broker import Kafka, NoBroker, ladder
from tests.process_state import process_as_it_was
from watcher.redaction.redactor import SECRETS

pytest.register_assert_rewrite("watcher.testing")

FLOORS = {
    "tree": ("test_house.py", "test_lock.py", "test_schemas.py"),
    "world": (
        "worlds/",
        "fleet_model/",
        "sandbox/test_ledger_against_truth.py",
        "scheduling/test_outage.py",
        "schemas/test_world.py",
    ),
    "edge": (
        "compat/",
        "journal/test_kafka.py",
        "journal/test_kafka_cancellation.py",
        "journal/test_kafka_closings.py",
        "journal/test_kafka_crossings.py",
        "journal/test_kafka_group.py",
        "journal/test_kafka_hints.py",
        "journal/test_kafka_membership.py",
        "journal/test_kafka_past.py",
        "journal/test_kafka_readers.py",
        "journal/test_kafka_topics.py",
        "journal/test_past.py",
        "journal/test_sqlite.py",
        "journal/test_sqlite_identity.py",
        "client/test_crossings.py",
        "client/test_stream.py",
        "hints/test_hostile_nodes.py",
        "hints/test_socket_source.py",
        "relay/test_crossings.py",
        "relay/test_cuts.py",
        "relay/test_kafka_crossings.py",
        "relay/http/test_admission.py",
        "relay/test_hostile.py",
        "relay/test_labels.py",
        "relay/test_past_queries.py",
        "relay/test_rules.py",
        "relay/http/test_sockets.py",
        "relay/test_npm.py",
        "relay/http/test_hint_routes.py",
        "relay/http/test_listener.py",
        "relay/http/test_read_body.py",
        "relay/test_catch_up.py",
        "relay/test_server.py",
        "relay/test_slow.py",
        "relay/test_snapshots.py",
        "relay/test_floods.py",
        "relay/test_websocket.py",
        "relay/test_log_change.py",
        "relay/http/test_connection.py",
        "sandbox/test_push_server.py",
        "sandbox/test_server.py",
        "testing/",
        "schemas/test_stream.py",
        "schemas/test_topics.py",
        "poller/test_connections.py",
        "test_deployment.py",
        "app/test_alerts.py",
        "app/test_check.py",
        "app/test_check_command.py",
        "app/test_check_side_by_side.py",
        "app/test_daemon.py",
        "app/test_exposed_secrets.py",
        "app/test_fleet_member.py",
        "app/test_hint_sources.py",
        "app/test_small_files.py",
        "app/test_systemd.py",
        "app/test_reload.py",
        "poller/test_http2.py",
        "logs/test_output.py",
        "poller/test_poller.py",
        "poller/test_condition.py",
        "rehearsal/test_workers.py",
        "webhooks/test_sender.py",
    ),
    "e2e": (
        "attack/",
        "chaos/",
        "consumers/test_consumers.py",
        "consumers/test_producers.py",
        "e2e/",
        "hints/test_ethereum_node.py",
        "journal/test_kafka_clusters.py",
        "journal/test_kafka_crossings_forgotten.py",
        "journal/test_kafka_cut_off.py",
        "journal/test_kafka_oauth.py",
        "journal/test_kafka_outages.py",
        "journal/test_kafka_rights.py",
        "relay/test_only_relay.py",
        "relay/test_page.py",
        "relay/test_page_alerts.py",
        "schemas/test_npm.py",
    ),
}
"""Which floor a test stands on, unless it says so itself. What is not named is pure: it opens no socket and starts no process."""

LONG = ("attack", "chaos", "consumers", "e2e", "journal", "relay", "worlds")
"""Where the files stand that take longest: they come first, so that no worker sits alone with one of them at the end."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
"""Who ignores Ctrl-C, as all do that a shell has put into the background, has children that ignore it too."""

settings.register_profile(
    "steady",
    max_examples=int(os.environ.get("WATCHER_TEST_EXAMPLES", "100")),
    derandomize="WATCHER_TEST_ORDER" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("steady")
"""Every run judges the same examples, on a machine of any speed; with `WATCHER_TEST_ORDER` it draws its own."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses among the floors
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).as_posix()
        if not any(item.get_closest_marker(floor) for floor in FLOORS):
            item.add_marker(next((floor for floor, places in FLOORS.items() if place.startswith(places)), "pure"))
        if item.get_closest_marker("pure") and item.get_closest_marker("kafka"):
            raise pytest.UsageError(f"{item.nodeid} needs a broker: FLOORS must say on which floor it stands")
    places = {item: item.path.relative_to(here).parts[0] for item in items}
    items.sort(key=lambda item: LONG.index(places[item]) if places[item] in LONG else len(LONG))


IMPURE = {"socket.bind", "socket.connect", "subprocess.Popen", "os.fork", "os.posix_spawn"}
pure_tests: list[str] = []
"""The one that runs now, if it is pure."""


def keep_pure(event: str, _arguments: tuple[object, ...]) -> None:
    if pure_tests and event in IMPURE:
        raise RuntimeError(f"{event} in {pure_tests[0]}: FLOORS must say on which floor it stands")


sys.addaudithook(keep_pure)


@pytest.fixture(autouse=True)
def purity(request: pytest.FixtureRequest) -> Iterator[None]:
    """A pure test opens no socket and starts no process."""
    if request.node.get_closest_marker("pure"):
        pure_tests.append(request.node.nodeid)
    yield
    pure_tests.clear()


@pytest.fixture(autouse=True)
def order(request: pytest.FixtureRequest) -> None:
    """The order in which trio lets tasks run is chance: one that a red run can be repeated with.

    `WATCHER_TEST_ORDER=N` draws another one for every test.
    """
    trio._core._run._r.seed(f"{os.environ.get('WATCHER_TEST_ORDER', '')}{request.node.nodeid}")


@pytest.fixture(autouse=True)
def secrets_of_one_test() -> Iterator[None]:
    """What one test hides is hidden in no other one: a line of ours that happens to repeat a part of it would be withheld there."""
    known = dict(vars(SECRETS))
    yield
    vars(SECRETS).update(known)


@pytest.fixture(autouse=True, scope="module")
def process_of_one_file() -> Iterator[None]:
    """What one sets up is set up in no other one: a line that is looked for on stdout would be on stderr there."""
    with process_as_it_was():
        yield


@pytest.fixture(autouse=True)
def process_of_one_test() -> Iterator[None]:
    with process_as_it_was():
        yield


@pytest.fixture
def uncounted() -> Iterator[None]:
    """A simulation takes three times as long when its lines are counted, and others count them.

    The mark that pytest-cov has for it does nothing in a worker of pytest-xdist: another count goes on beneath it.
    """
    counter = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(counter)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """No test may show a key, whatever it is about."""
    report = yield
    if report.when == "teardown" and report.passed:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        if leaks := list(shown(report, folder if isinstance(folder, Path) else None)):
            report.outcome, report.longrepr = "failed", "a key was shown:\n" + "\n".join(leaks[:10])
    return report


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """A real broker, one for the whole run: use a topic_prefix of your own."""
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(ladder())
        except NoBroker as reason:
            if os.environ.get("CI") == "true":
                pytest.fail(f"no Kafka broker: {reason}", pytrace=False)
            pytest.skip(f"no Kafka broker: {reason}")
        with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
            # A worker of pytest-xdist speaks to its master on stdout.
            print(f"\nkafka: {broker.address} ({broker.rung})", file=sys.stderr, flush=True)
        yield broker


@pytest.fixture
def prefix() -> str:
    """A `topic_prefix` that no other test has."""
    return f"test-{uuid4().hex[:12]}."
