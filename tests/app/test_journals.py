"""The kinds of journal: ours, and one that comes from outside the package."""

import sys
import textwrap

import pytest

from watcher.app import daemon, journals, settings
from watcher.app.exposed_secrets import exposed
from watcher.runtime.config_section import SettingsError

PLUGIN = """
from pathlib import Path

import msgspec

from watcher.journal import PrivateFile
from watcher.runtime.config_section import SettingsError


class AcmeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shelf: int = 1
    password_file: str = "password"


# Written before there was a number: it would leave crossings out, and say that they are committed.
class Former:
    Settings = AcmeSettings
    example = "acme://HOST"

    def check(self, url, settings):
        if settings.shelf > 9:
            raise SettingsError(f"[acme] shelf = {settings.shelf}: write a number up to 9")

    def open(self, options, settings):
        return options, settings

    def private_files(self, url, settings):
        yield PrivateFile("[acme] password_file", Path(settings.password_file), unless="if they may")


class AcmePlugin(Former):
    interface = 2


class Later(AcmePlugin):
    interface = 3


class NoPlugin:
    Settings = None
    example = "acme://HOST"


class Greedy(AcmePlugin):
    class Settings(msgspec.Struct):
        shelf: int


class Moody(AcmePlugin):
    def __init__(self):
        raise RuntimeError("not today")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution with an entry point of ours on the path: `installed(name, value)`."""

    def install(name, value):
        (tmp_path / "acme_journal.py").write_text(textwrap.dedent(PLUGIN))
        info = tmp_path / "acme_journal-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_journal\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[balance_watcher.journals]\n{name} = {value}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    sys.modules.pop("acme_journal", None)


def test_a_journal_of_ones_own_is_found_by_its_scheme_and_has_a_table_of_its_own(installed, tmp_path):
    installed("acme", "acme_journal:AcmePlugin")
    (tmp_path / "secret").write_text("canary")
    (tmp_path / "secret").chmod(0o644)
    table = {"journal": "acme://there", "acme": {"shelf": 3, "password_file": str(tmp_path / "secret")}}
    config = settings.parse({**table, "retention": 60})
    options, own = daemon.journal_of(config, {"A": "b"})
    assert (options.url, options.encoding, options.retention, options.environment) == (
        "acme://there",
        "json",
        60.0,
        {"A": "b"},
    )
    assert own.shelf == 3
    (line,) = exposed(config, [], [])
    assert line.startswith(f"[acme] password_file: {tmp_path / 'secret'} can be read by its group and everyone")
    assert line.endswith(f"chmod 600 {tmp_path / 'secret'}, if they may")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"acme": {"shelves": 1}}, "did you mean `shelf`?"),
        ({"acme": {"shelf": "one"}}, "acme.shelf: expected int"),
        ({"journal": "acme://there", "acme": {"shelf": 10}}, "shelf = 10: write a number up to 9"),
        ({"journal": "acmee://there"}, "kafka://HOST:PORT or acme://HOST"),
        ({"amce": {}}, "did you mean `acme`?"),
        ({"journal": "acme://me:canary-1@there/x"}, "'acme://***@there/x': no user or password stands in it"),
    ],
)
def test_a_mistake_in_it_is_one_line_that_names_it(installed, table, says):
    installed("acme", "acme_journal:AcmePlugin")
    with pytest.raises(SettingsError) as refused:
        settings.parse(table)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "canary" not in str(refused.value)


def test_ours_cannot_be_replaced(installed):
    installed("sqlite", "acme_journal:AcmePlugin")
    assert journals.known()["sqlite"] is journals.BUILT_IN["sqlite"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("acme", "acme_journal:Missing", "acme = acme_journal:Missing cannot be loaded"),
        ("acme", "nowhere:Acme", "acme = nowhere:Acme cannot be loaded"),
        ("Acme_Journal", "acme_journal:AcmePlugin", "its name is no scheme of a URL"),
        ("acme", "acme_journal:Moody", r"cannot be loaded \(not today\)"),
        ("acme", "acme_journal:NoPlugin", r"is no JournalPlugin \(it has no check, open, private_files\)"),
        ("acme", "acme_journal", "is no JournalPlugin"),
        (
            "acme",
            "acme_journal:Former",
            "is written for interface 1 of journals, and this version has 2: upgrade or uninstall",
        ),
        (
            "acme",
            "acme_journal:Later",
            "is written for interface 3 of journals, and this version has 2: upgrade watcher",
        ),
        ("acme", "acme_journal:Greedy", "its Settings lack a default .*shelf"),
        ("relay", "acme_journal:AcmePlugin", "relay has the name of a key of ours"),
    ],
)
def test_one_that_cannot_be_loaded_is_named(installed, name, value, says):
    installed(name, value)
    with pytest.raises(SettingsError, match=says):
        settings.parse({})


@pytest.mark.parametrize(
    ("journal", "more", "says"),
    [
        ("kafka://", {}, "write kafka://"),
        ("kafka://a:9092,b", {}, "'b' is no HOST:PORT"),
        ("kafka://a:0", {}, "'a:0' is no HOST:PORT"),
        ("kafka://a:9²", {}, "'a:9²' is no HOST:PORT"),
        ("kafka://a:9092", {"partitions": 0}, "write a number from 1"),
        ("kafka://a:9092", {"security_protocol": "SASL_SSL"}, "needs sasl_username"),
        ("kafka://a:9092", {"group": ""}, "group = '': write 1 to 200"),
        ("kafka://a:9092", {"group": "a b"}, "group = 'a b': write 1 to 200"),
        ("kafka://a:9092", {"group": "g", "member": "a/b"}, "member = 'a/b': write 1 to 200"),
        ("kafka://a:9092", {"member": "a"}, "name a member of a group"),
        ("kafka://a:9092", {"member_env": "A"}, "name a member of a group"),
        ("kafka://a:9092", {"group": "g", "member": "a", "member_env": "A"}, "one of the two"),
        ("kafka://a:9092", {"session_timeout": 0.5}, "session_timeout = 0.5: write seconds from 1"),
        ("kafka://a:9092", {"session_timeout": float("nan")}, "session_timeout = nan"),
        ("kafka://me:canary-1@a:9092", {}, "no user, password or option"),
        ("sqlite://x.db", {}, "sqlite:///FILE"),
        ("sqlite:///.", {}, "sqlite:///FILE"),
        ("sqlite:////", {}, "sqlite:///FILE"),
        ("sqlite:///a\0b", {}, "sqlite:///FILE"),
    ],
)
def test_a_url_or_a_table_that_cannot_be_is_refused_before_anything_is_opened(journal, more, says):
    with pytest.raises(SettingsError, match=says) as refused:
        settings.parse({"journal": journal, "kafka": more})
    assert "canary" not in str(refused.value)
