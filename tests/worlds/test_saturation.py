"""The short form of the benchmark: five providers at their limits, killed half-way, and not one request too many."""

import pytest

from tests.bench.saturation import FAULTS, MONTHLY, PROMPT, SECONDLY, saturate, used
from watcher.sandbox.registry import PROVIDERS


def refusals(outcome):
    return {name: desk.refusals for name, desk in outcome.world.desks.items()}


def test_with_faults_and_a_kill_no_provider_refuses_anything_and_no_watch_is_forgotten():
    outcome = saturate(MONTHLY, FAULTS, 300)
    assert refusals(outcome) == dict.fromkeys(PROVIDERS, 0)
    assert sum(outcome.world.made_up.values()) > 0
    for name in PROVIDERS:
        use = used(outcome, name)
        assert use.before > 0.4
        assert use.silent < 15
        assert outcome.blind[name] < 15 * use.sweep


@pytest.mark.parametrize(
    ("limits", "seconds", "names"), [(MONTHLY, 300, PROVIDERS), (SECONDLY, 40, ["helius"])], ids=["month", "second"]
)
def test_what_the_limits_allow_is_used_before_and_after_a_kill(limits, seconds, names):
    outcome = saturate(limits, f"{FAULTS},{PROMPT}", seconds)
    assert refusals(outcome) == dict.fromkeys(PROVIDERS, 0)
    for name in names:
        use = used(outcome, name)
        # A second of silence is much in so short a run.
        assert min(use.before, use.after) >= use.goal - 0.02
