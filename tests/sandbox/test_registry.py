"""The simulated APIs: ours, and one that comes from outside the package."""

import sys
from pathlib import Path

import pytest

from watcher.sandbox import registry
from watcher.sandbox.messages import VALID_KEY, SimulatedRequest
from watcher.sandbox.world import SandboxSettings, World, population_of, tables

SAMPLE = Path(__file__).parents[1] / "sample" / "acme_simulated.py"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution on the path that has a simulated API: `installed(target, code)`, the code behind the sample's."""

    def install(target="acme_simulated:SimulatedAcme", code=""):
        (tmp_path / SAMPLE.name).write_text(SAMPLE.read_text() + code)
        info = tmp_path / "acme_simulated-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_simulated\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[balance_watcher.sandbox]\nacme = {target}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry.known.cache_clear()

    yield install
    registry.known.cache_clear()
    sys.modules.pop("acme_simulated", None)


def of_ours(population):
    found = [balance for balance in population.balances if balance.key.provider in registry.PROVIDERS]
    return [(balance.key, balance.amount, balance.weight) for balance in found]


def test_one_of_others_has_a_place_and_moves_none_of_ours(installed):
    before = population_of(7)
    installed()
    after = population_of(7)
    assert of_ours(after) == of_ours(before)
    assert {name: after.watches[name] for name in registry.PROVIDERS} == before.watches
    assert len(after.watches["acme"]) == 3
    table = tables(9100, 7, "KEY")["acme"]
    assert (table["type"], table["base_url"]) == ("acme", "http://127.0.0.1:9100/acme")


def test_it_answers_under_its_name_within_its_quota(installed):
    installed()
    world = World(SandboxSettings(seed=7, rate=0.0), start=0.0, wall=1.8e9)
    account = population_of(7).watches["acme"][0]["account"]
    request = SimulatedRequest("GET", f"/acme/v1/accounts/{account}", {}, {"x-acme-key": VALID_KEY})
    assert [world.answer(request, 1.0).status for _ in range(7)] == [200] * 5 + [429] * 2
    assert world.answer(SimulatedRequest("GET", request.path, {}, {}), 1.0).status == 401


@pytest.mark.parametrize("target", ["no_such_module:X", "acme_simulated:Nobody", "acme_simulated:PREFIX"])
def test_one_that_cannot_be_loaded_is_named_in_one_line(installed, target):
    installed(target)
    with pytest.raises(ValueError, match=f"the sandbox plugin acme = {target} .*: repair or uninstall it") as refused:
        SandboxSettings()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('not today')", r"cannot be loaded \(not today\)"),
        (
            "class Bare:\n    name = 'acme'\n    cost = 1\n",
            r"is no SimulatedApi \(it has no quotas, demo, populate, .*answer\)",
        ),
    ],
)
def test_one_whose_code_fails_or_lacks_something_is_named_too(installed, code, says):
    installed("acme_simulated:Bare", f"\n{code}")
    with pytest.raises(ValueError, match=f"^the sandbox plugin acme = acme_simulated:Bare {says}: repair or"):
        SandboxSettings()


def test_ours_cannot_be_replaced(installed, monkeypatch):
    installed()
    monkeypatch.setattr(registry, "BUILT_IN", {"acme": registry.BUILT_IN["ondo"]})
    assert registry.known()["acme"].__name__ == "SimulatedOndo"
