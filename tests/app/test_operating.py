"""docs/operating.md says what is: every metric, every alert, every event of the log."""

import ast

from tests.app.operating_tables import PAGE, ROOT, written

CLIENT = ROOT / "watcher" / "client"


def events():
    """The names that `log` is called with, in whatever room, but for the client's: it is not the daemon's log."""
    for path in (ROOT / "watcher").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
                ("log.", "logger.", "self._stats.alert")
            ):
                name = node.args[0] if node.args else None
                if isinstance(name, ast.Constant) and CLIENT not in path.parents:
                    yield name.value


def test_the_tables_of_metrics_and_alerts_are_those_of_the_code():
    page = PAGE.read_text()
    assert page == written(page), "python -m tests.app.operating_tables writes them anew"


def test_every_event_of_the_log_is_explained():
    found = {*events(), "provider.refused", "provider.exhausted"}  # which failure_policy.py chooses between
    page = PAGE.read_text().partition("## The log")[2]
    assert len(found) > 30
    assert {name for name in found if f"`{name}`" not in page} == set()


def test_every_event_that_is_explained_is_one():
    rows = [line for line in PAGE.read_text().partition("## The log")[2].splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in row.split("|")[1].strip().strip("`").split("`, `")}
    assert explained - {*events()} == {"provider.refused", "provider.exhausted"}
