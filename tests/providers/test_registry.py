"""The registry, and a sixth provider that comes from outside the package."""

import sys
import textwrap

import pytest

from tests.providers.tables import NOW, answered, asked, built
from watcher.app import settings
from watcher.providers import registry
from watcher.providers.protocol import Response
from watcher.providers.settings import ProviderSettings
from watcher.runtime.config_section import SettingsError

PLUGIN = '''
"""A made-up API: GET /v1/wallet/<account> answers {"height": 7, "lamports": "12"}."""

import msgspec

from watcher.limits.windows import Limit
from watcher.model.keys import Key
from watcher.model.readings import Reading
from watcher.model.targets import TargetGroup
from watcher.providers.answers import base_units, decode, refuse, documented_error
from watcher.providers.protocol import Credentials, ReadResult, Request
from watcher.providers.settings import ConfiguredProvider, ProviderSettings

CHAIN = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"


class AcmeSettings(ProviderSettings, frozen=True, kw_only=True):
    flavour: str = "plain"


class Error(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class Wallet(msgspec.Struct):
    height: int
    lamports: str


class Acme(ConfiguredProvider):
    Settings = AcmeSettings
    HOST = "https://api.acme.example"
    LIMITS = (Limit(5, 1.0),)

    def __init__(self, name, settings, *, keyed):
        super().__init__(name, settings, keyed=keyed)
        self.ordering = "strict"
        self.groups = (TargetGroup(self.listings(CHAIN, settings.watch)),)

    def credentials(self, secret):
        return Credentials(headers={"x-acme": secret})

    def ask(self, lane, targets, interval):
        (target,) = targets
        return Request("GET", f"/v1/wallet/{target.scope.account}", (target,))

    def read(self, request, response):
        if response.status != 200:
            error = documented_error(msgspec.json.Decoder(Error), response.body)
            refuse(request, response, None if error is None else error.reason)
        wallet = decode(msgspec.json.Decoder(Wallet), response.body)
        scope = request.targets[0].scope
        key = Key(self.name, CHAIN, scope.account, "native")
        amount = base_units(wallet.lamports)
        return ReadResult([Reading(key, amount, "base", order=wallet.height, slot=wallet.height)], listing=scope)
'''


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution on the path that has an entry point of ours: `installed(module, code, target)`."""

    def install(module, code, target):
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[balance_watcher.providers]\nacme = {module}:{target}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return module

    yield install
    for name in ("acme_balances", "acme_broken"):
        sys.modules.pop(name, None)


def test_our_five_are_known_under_their_names():
    assert {"jupiter", "bloxroute", "helius", "ondo", "tokenkit"} <= set(registry.known())
    assert all(issubclass(one.Settings, ProviderSettings) for one in registry.known().values())


def test_a_sixth_provider_joins_from_outside_through_an_entry_point(installed):
    installed("acme_balances", PLUGIN, "Acme")
    account = {"account": "jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3"}
    table = {"api_key_env": "ACME", "flavour": "sour", "watch": [account]}
    loaded = settings.parse({"providers": {"acme": table}}).providers["acme"]
    acme = registry.known()["acme"]("acme", loaded, keyed=True)
    assert (loaded.flavour, acme.base_url, acme.settle) == ("sour", "https://api.acme.example", 30.0)
    request = asked(acme)
    assert request.path == "/v1/wallet/jdocuPgEAjMfihABsPgKEvYtsmMzjUHeq9LX4Hvs7f3"
    (reading,) = acme.read(request, Response(200, b'{"height":7,"lamports":"12"}', NOW)).readings
    assert (str(reading.key), reading.amount) == (f"acme/{reading.key.chain}/{account['account']}/native/total", "12")


def test_a_plugins_own_keys_are_checked_like_ours(installed):
    installed("acme_balances", PLUGIN, "Acme")
    with pytest.raises(SettingsError, match="did you mean `flavour`"):
        settings.parse({"providers": {"acme": {"flavor": "sour"}}})


@pytest.mark.parametrize(("code", "target"), [("import no_such_module_anywhere", "Acme"), ("", "Acme")])
def test_a_plugin_that_cannot_be_loaded_is_named(installed, code, target):
    installed("acme_broken", code, target)
    with pytest.raises(SettingsError, match="acme = acme_broken:Acme"):
        registry.known()


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
