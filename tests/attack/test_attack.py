"""`make attack` judges how the neighbour is served; here nothing but what no busy machine excuses is."""

import concurrent.futures
import multiprocessing

import pytest

from tests.attack.attacks import ATTACKS, Attack
from tests.attack.stage import HEALTHZ, LOG, Measured, alone, delayed, harmed

PEACE = Measured(
    polls=20.0, updates=800, p50=0.003, p99=0.01, healthz=0.01, failed=0, cuts=0, gaps=0, memory=90.0, cpu=0.1
)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"updates": 0},
        {"polls": 18.9},
        {"p99": 0.036},
        {"healthz": HEALTHZ + 0.01},
        {"failed": 1},
    ],
    ids=lambda spoilt: next(iter(spoilt)),
)
def test_a_worse_service_is_seen(spoilt):
    assert not list(delayed(PEACE, PEACE))
    assert list(delayed(PEACE, PEACE._replace(**spoilt)))


@pytest.mark.parametrize(
    "spoilt",
    [{"cuts": 1}, {"gaps": 1}, {"memory": 90.0 + Attack.megabytes + 1}],
    ids=lambda spoilt: next(iter(spoilt)),
)
def test_harm_is_seen(spoilt):
    assert not list(harmed(Attack(), PEACE, PEACE, 0))
    assert list(harmed(Attack(), PEACE, PEACE._replace(**spoilt), 0))


def test_a_flooded_log_is_seen():
    assert list(harmed(Attack(), PEACE, PEACE, LOG + 1))


SLOW = {"dashboards", "halves", "members", "replayed", "unread"}
"""Each takes ten seconds and more, and another of its kind stays: `amplified`, `crowd`, `nesting`, `chatter`."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name in SLOW)) for name in ATTACKS])
def test_an_attack_does_no_harm(name):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        verdict = pool.submit(alone, ATTACKS[name](), peace=0.5, seconds=1.5).result()
    assert not verdict.wrong, verdict
