"""The registry, and a sixth provider that comes from outside the package."""

import importlib
import re
import sys
import textwrap
from pathlib import Path

import pytest

from tests.providers.tables import NOW, answered, asked, built
from watcher.app import settings
from watcher.app.provider_sources import sources, watch_index
from watcher.model.addresses import families
from watcher.model.keys import Key
from watcher.model.watches import WatchInfo
from watcher.providers import registry
from watcher.providers.protocol import Response
from watcher.providers.settings import ProviderSettings
from watcher.runtime.config_section import SettingsError

SAMPLE = Path(__file__).parents[1] / "sample" / "acme_balances.py"
GUIDE = SAMPLE.parents[2] / "docs" / "adding-a-provider.md"
ACCOUNT = "acme1qqqqqqqq"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution on the path that has a provider, and a chain: `installed(code, target)`."""

    def install(code, target="acme_balances:Acme"):
        (tmp_path / "acme_balances.py").write_text(SAMPLE.read_text() + textwrap.dedent(code))
        info = tmp_path / "acme_balances-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_balances\nVersion: 1.0\n")
        chain = "[balance_watcher.chains]\nacme = acme_balances:ADDRESSES\n"
        (info / "entry_points.txt").write_text(f"[balance_watcher.providers]\nacme = {target}\n{chain}")
        monkeypatch.syspath_prepend(str(tmp_path))
        forget()

    yield install
    sys.modules.pop("acme_balances", None)
    forget()


def forget():
    """What is installed is looked at once in a process."""
    registry.known.cache_clear()
    families.cache_clear()


def loaded(**table):
    """The provider of a table `[providers.acme]`."""
    (source,) = sources(settings.parse({"providers": {"acme": {"api_key_env": "K", **table}}}), {"K": "canary-key"})
    return source.provider


def test_our_five_are_known_under_their_names():
    assert {"jupiter", "bloxroute", "helius", "ondo", "tokenkit"} <= set(registry.known())
    assert all(issubclass(one.Settings, ProviderSettings) for one in registry.known().values())


def test_a_sixth_provider_joins_from_outside_with_keys_and_addresses_of_its_own(installed):
    installed("")
    acme = loaded(final=False, watch=[{"account": ACCOUNT.upper()}, {"account": ACCOUNT, "vault": 3}])
    assert (acme.base_url, acme.settle, acme.ordering) == ("https://api.acme.example", 30.0, "strict")
    (group,) = acme.groups
    assert [str(target) for target in group.targets] == [
        f"chain acme:main, account {ACCOUNT}",
        f"chain acme:main, account {ACCOUNT}, token 3",
    ]
    request = asked(acme)
    assert (request.path, request.params) == (f"/v1/accounts/{ACCOUNT}", (("final", "false"),))
    body = b'{"height":7,"count":1,"vaults":[{"vault":3,"units":"12"}]}'
    (reading,) = acme.read(request, Response(200, body, NOW)).readings
    assert (str(reading.key), reading.amount, reading.order) == (f"acme/acme:main/{ACCOUNT}/3/total", "12", 7)


def test_a_sixth_provider_has_labels_without_a_line_of_its_own(installed):
    installed("")
    watches = [
        {"account": ACCOUNT, "label": "Main", "tags": ["ops"]},
        {"account": ACCOUNT, "vault": 3, "label": "Third"},
    ]
    index = watch_index([loaded(watch=watches)])
    infos = [index.info(Key("acme", "acme:main", ACCOUNT, vault)) for vault in ("2", "3")]
    assert infos == [WatchInfo(True, "Main", ("ops",)), WatchInfo(True, "Third", ("ops",))]


def test_a_provider_whose_watches_know_no_names_is_watched_all_the_same(installed):
    installed("""
        class Bare(msgspec.Struct, frozen=True):
            account: str
            token: None = None
            chain: None = None
            vault: int | None = None

        class BareSettings(AcmeSettings, frozen=True, kw_only=True):
            watch: tuple[Bare, ...] = ()

        Acme.Settings = BareSettings
    """)
    index = watch_index([loaded(watch=[{"account": ACCOUNT}])])
    assert index.info(Key("acme", "acme:main", ACCOUNT, "2")) == WatchInfo(watched=True)


def test_what_the_guide_shows_of_bytes_is_so(installed):
    installed("")
    (shown,) = re.findall(r"```python\n(acme = .*?)```", GUIDE.read_text(), re.DOTALL)
    exec(shown, {**vars(importlib.import_module("acme_balances")), "Response": Response})


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"finl": True}, r"unknown key `finl` in \[providers.acme\]: did you mean `final`"),
        ({"watch": [{"valt": 3}]}, r"unknown key `valt` in \[providers.acme.watch\[0\]\]: did you mean `vault`"),
        (
            {"watch": [{"account": ACCOUNT, "vault": "3"}]},
            r"^providers.acme.watch\[0\].vault: expected int \| null, got",
        ),
    ],
)
def test_a_plugins_own_keys_are_checked_like_ours(installed, table, says):
    installed("")
    with pytest.raises(SettingsError, match=says):
        loaded(**table)


@pytest.mark.parametrize("target", ["no_such_module_anywhere:Acme", "acme_balances:Nobody", "acme_balances:address"])
def test_a_plugin_that_cannot_be_loaded_is_named(installed, target):
    installed("", target)
    with pytest.raises(SettingsError, match=f"acme = {target} .*: repair or uninstall it"):
        registry.known()


def test_a_plugin_whose_code_fails_as_it_is_imported_is_named(installed):
    installed("raise RuntimeError('not today')")
    with pytest.raises(SettingsError, match=r"provider plugin acme = .*not today.*: repair or uninstall it"):
        registry.known()
    with pytest.raises(SettingsError, match=r"chain plugin acme = .*not today.*: repair or uninstall it"):
        families()


def test_a_plugin_cannot_take_the_name_of_one_of_ours(installed, monkeypatch):
    installed("")
    monkeypatch.setattr(registry, "BUILT_IN", {"acme": registry.BUILT_IN["helius"]})
    assert registry.known()["acme"].__name__ == "Helius"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("pass", "sets no groups: its constructor ends with self.groups = "),
        ("self.groups = ()", "has nothing to ask: leave groups without targets out"),
        (
            "self.groups = (TargetGroup(targets), TargetGroup(()))",
            "has nothing to ask: leave groups without targets out",
        ),
        ("self.groups = (TargetGroup(targets, ()),)", r"has a group without lanes: TargetGroup\(targets, \(Lane\("),
        ("self.groups = (TargetGroup(targets, (Lane(batch=0),)),)", "has a lane whose batch is below 1"),
        ("self.groups = (TargetGroup(targets), TargetGroup(targets))", "in its groups twice, and would read it twice"),
        (
            "self.groups = (TargetGroup((Target('pair', Scope(name, CHAIN, targets[0].scope.account, 'a/b')),)),)",
            "watches acme1qqqqqqqq, a/b: no part of a balance's key may hold a `/`",
        ),
        ("del self.limits", "sets no limits: the constructor of ConfiguredProvider does"),
        ("self.groups = targets.group", "cannot be made: 'tuple' object has no attribute 'group'"),
        ("self.mistake()", "cannot be made: .*missing 1 required positional argument"),
    ],
)
def test_a_plugin_that_is_no_provider_is_told_in_one_line_what_it_lacks(installed, code, says):
    installed(
        f"""

        class Broken(Acme):
            def __init__(self, name, settings, *, keyed):
                ConfiguredProvider.__init__(self, name, settings, keyed=keyed)
                targets = tuple(map(self._target, settings.watch))
                {"self.groups = (TargetGroup(targets),)" if "limits" in code else ""}
                {code}
        """,
        "acme_balances:Broken",
    )
    with pytest.raises(SettingsError, match=says) as refused:
        loaded(watch=[{"account": ACCOUNT}])
    assert str(refused.value).startswith("[providers.acme]: the plug-in acme_balances.Broken ")
    assert "\n" not in str(refused.value)


def test_a_class_that_takes_other_arguments_is_named(installed):
    installed(
        """

        class Broken(Acme):
            def __init__(self, settings):
                pass
        """,
        "acme_balances:Broken",
    )
    with pytest.raises(
        SettingsError, match=r"acme_balances.Broken cannot be made: .*unexpected keyword argument 'keyed'"
    ):
        loaded(watch=[{"account": ACCOUNT}])


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"base_url": "api.jup.ag"}, "https://"),
        ({"base_url": "https://api.jup.ag?x=1"}, "leave out"),
        ({"limits": []}, "limits is empty"),
        ({"limits": [{"requests": 1, "per": 1, "endpoint": "balances"}]}, "leave `endpoint` out"),
        ({"min_interval": 9, "max_interval": 3}, "min_interval 9 s is above max_interval 3 s"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_in_one_line(more, what):
    with pytest.raises(SettingsError, match=what) as refused:
        built("jupiter", {"account": "jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3"}, **more)
    assert str(refused.value).startswith("[providers.p]: ")


def test_a_prefix_of_the_base_url_is_kept_and_its_last_slash_is_not():
    watch = {"account": "jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3"}
    assert (
        built("jupiter", watch, base_url="http://127.0.0.1:9100/jupiter/").base_url == "http://127.0.0.1:9100/jupiter"
    )
    assert built("jupiter", watch).base_url == "https://api.jup.ag"


@pytest.mark.parametrize("kind", ["jupiter", "bloxroute"])
def test_a_whole_number_is_good_where_a_fraction_may_stand(kind):
    provider = built(kind, {"account": "jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3"}, settle=5, timeout=3, cost=2)
    assert (provider.settle, provider.cost, provider.settings.timeout) == (5, 2, 3)
    assert answered(provider, b'{"SOL":{"amount":"0","slot":1}}' if kind == "jupiter" else b'{"tokens":[]}').listing
