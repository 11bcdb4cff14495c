"""The guide's provider as a stranger has it: built into a wheel, installed, run, and fuzzed."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e import checker
from tests.e2e.harness import KEY, ROOT, House, balances, one_clear_line, until

SAMPLE = ROOT / "tests" / "sample"
GUIDE = ROOT / "docs" / "adding-a-provider.md"
CHANGES = 60
ACCOUNT, OTHER = "acme1qqqqqqqq", "acme1zzzzzzzz"


def done(*command, **more):
    """What a command prints that ends well."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)
    assert ended.returncode == 0, (command, ended.stdout[-2000:], ended.stderr[-2000:])
    return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the sample stands as an installed package, beside ours. Nothing is fetched."""
    source = tmp_path_factory.mktemp("acme") / "source"
    shutil.copytree(SAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    built, place = source.parent / "built", source.parent / "site"
    done(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built, cwd=source)
    (wheel,) = built.iterdir()
    done(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", place, wheel)
    return place


class Stranger(House):
    """Who starts every command with the sample installed, far from the checkout."""

    def __init__(self, folder, site):
        super().__init__(folder)
        self.environment = {"PYTHONPATH": str(site)}

    def watcher(self, *arguments, **more):
        return super().watcher(*arguments, cwd=self.folder, env=self.environment, **more)

    def fuzz(self, *arguments):
        return self.watcher(*arguments, program=(Path(sysconfig.get_path("scripts")) / "watcher-fuzz",))


@pytest.fixture
def stranger(tmp_path, site):
    stranger = Stranger(tmp_path, site)
    yield stranger
    stranger.close()


def table(*watches, **more):
    return {"acme": {"api_key_env": KEY, "watch": list(watches), **more}}


def test_check_tells_what_the_limits_allow(stranger):
    config = stranger.config(table({"account": ACCOUNT}, {"account": OTHER, "vault": 3}))
    check = stranger.finished("check", "-c", config, "--offline")
    assert check.status == 0, check.err
    assert "acme (acme): 2 watches in 2 requests; each is read every 0.4 s on average" in check.out
    assert "binding limit: 5 per 1 s" in check.out


@pytest.mark.parametrize(
    ("watch", "says"),
    [
        ({"account": ACCOUNT, "valt": 3}, "unknown key `valt` in [providers.acme.watch[0]]: did you mean `vault`?"),
        ({"account": "acme2qqqqqqqq"}, "'acme2qqqqqqqq' is no Acme address: write acme1 and 8 to 40 letters or digits"),
        ({"account": ACCOUNT, "token": "x"}, "a watch names a token: Acme has vaults, write vault = 3"),
    ],
)
def test_a_mistake_in_its_table_is_one_line_in_its_own_words(stranger, watch, says):
    config = stranger.config(table(watch))
    one_clear_line(stranger.finished("check", "-c", config, "--offline"), 2, says)


def test_changes_of_its_balances_are_published_as_they_really_happened(stranger):
    sandbox = stranger.sandbox(rate=200.0, faults="default", limits="none")
    here = sandbox.report()["providers"]["acme"]["balances"]
    accounts = list(dict.fromkeys(balance["account"] for balance in here))
    whole, single = accounts[:-1], [each for each in here if each["account"] == accounts[-1]]
    watches = [{"account": account} for account in whole]
    watches += [{"account": each["account"], "vault": int(each["token"])} for each in single]
    quick = {"base_url": f"{sandbox.url}/acme", "limits": [{"requests": 40, "per": 1.0}], "settle": 5.0}
    daemon = stranger.run(stranger.config(table(*watches, **quick)))
    follower = stranger.follower(daemon.port)
    until(lambda: len(follower.events) >= CHANGES, lambda: f"{len(follower.events)} of {CHANGES} changes come")
    sandbox.freeze()
    sandbox.faults("none")
    truth = checker.truths({"providers": {"acme": sandbox.report()["providers"]["acme"]}})
    until(lambda: not checker.unsettled(balances(daemon.port), truth), "every state is what it really is")
    states = balances(daemon.port)
    until(lambda: sum(state["version"] for state in states) <= len(follower.events), "every change has come")
    assert checker.broken_laws(follower.events, states) == []
    assert checker.false_changes(follower.events, truth) == []
    assert set(map(checker.name, follower.events)) <= set(truth)
    assert len(truth) == len(here)
    assert daemon.end()[0] == 0


def test_a_filter_finds_its_accounts_however_they_are_spelled(stranger):
    sandbox = stranger.sandbox(rate=100.0, limits="none")
    accounts = {balance["account"] for balance in sandbox.report()["providers"]["acme"]["balances"]}
    wanted = min(accounts)
    watches = [{"account": account} for account in accounts]
    daemon = stranger.run(stranger.config(table(*watches, base_url=f"{sandbox.url}/acme")))
    tail = stranger.watcher("tail", f"ws://127.0.0.1:{daemon.port}/v1/stream", "--account", wanted.upper(), "--json")
    until(lambda: tail.out.count("\n") > 5 or tail.status is not None, lambda: f"changes come: {tail.err}")
    events = [json.loads(line)["event"] for line in tail.out.splitlines()[:5]]
    assert {event["account"] for event in events} == {wanted}


def test_the_fuzzer_finds_nothing_in_it(stranger):
    fuzz = stranger.fuzz("acme_fuzz:cases", "--examples", 5_000, "--seed", 7)
    assert fuzz.wait() == 0, fuzz.err
    assert "5000 mutated answers" in fuzz.out
    outcomes = dict(re.findall(r"(read|Malformed|Temporary|RefusedCredential) (\d+)", fuzz.out))
    assert len(outcomes) == 4


def test_the_fuzzer_tells_a_false_reading_with_its_seed_number_and_bytes(stranger):
    wrong = "from acme_fuzz import *\n\ndef referee_of_none(request, tree, expected): pass\n\n"
    wrong += "def wrong():\n    return [FuzzCase(c.name, c.provider, c.request, c.answers, referee_of_none) for c in cases()]\n"
    (stranger.folder / "wrong_fuzz.py").write_text(wrong)
    fuzz = stranger.fuzz("wrong_fuzz:wrong", "--examples", 5_000)
    assert fuzz.wait() == 1
    assert re.match(r"acme, seed 1, answer \d+: HTTP 200 b'.*: nothing is said of ", fuzz.err)
    nothing = stranger.fuzz("acme_fuzz:nothing")
    assert nothing.wait() == 2
    assert "'acme_fuzz:nothing' gives no cases" in nothing.err


def test_the_guide_shows_the_sample_byte_for_byte():
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert (SAMPLE / "acme_balances.py").read_text() in blocks
    assert (SAMPLE / "pyproject.toml").read_text() in blocks
    assert (SAMPLE / "acme_fuzz.py").read_text() in blocks
