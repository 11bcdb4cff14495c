"""What the limits allow, worked out before a single request is sent."""

import time

import anyio
import pytest

from tests.app.test_settings import HELIUS
from tests.polling import journal, virtually
from watcher.app import settings
from watcher.app.check.command import Wish, check
from watcher.app.check.plan import (
    limit_lines,
    plan,
    same_credentials,
    same_watches,
    shared_partitions,
)
from watcher.app.limit_words import duration_words, limit_words
from watcher.app.provider_sources import sources
from watcher.limits.windows import Limit
from watcher.poller.assembly import budget_of
from watcher.redaction.secret import Secret

ACCOUNT = "3emsAVdmGKERbHjmGfQ6oZ1e35dkf5iYcS6U4CPKFVaa"
OTHER = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
FELT = "0x00000005dd3d2f4429af886cd1a3b08289dbcea99a294197e9eb43b0e0325b4b"


def built(**tables):
    return [source.provider for source in sources(settings.parse({"providers": tables}), {"KEY": "canary"})]


def provider(kind, watches, **more):
    (found,) = built(**{kind: {"api_key_env": "KEY", "watch": watches, **more}})
    return found


def pairs(count):
    return [{"account": FELT, "token": f"0x{n + 1:x}"} for n in range(count)]


@pytest.mark.parametrize(
    ("partitions", "lines"),
    [(16, ["bloxroute and tokenkit share partition 9: they commit and move together"]), (1, [])],
)
def test_providers_that_share_a_partition_are_named_where_there_are_several(partitions, lines):
    names = ("jupiter", "bloxroute", "helius", "ondo", "tokenkit")
    assert list(shared_partitions(names, partitions)) == lines


def test_the_month_binds_helius_free_and_not_the_second():
    found = plan(provider("helius", [{"account": ACCOUNT}]))
    assert found.binding == Limit(1_000_000, 2_592_000.0)
    assert found.interval == pytest.approx(2.592)
    assert any("binds first" in warning for warning in found.warnings)


def test_a_call_that_costs_five_takes_five_of_the_limit():
    assert plan(provider("bloxroute", [{"account": ACCOUNT}, {"account": OTHER}])).interval == pytest.approx(10.0)


def test_pairs_are_read_twenty_at_a_time_and_listings_share_the_limit():
    found = plan(provider("tokenkit", [*pairs(41), {"account": "0x123"}]))
    assert (found.watches, found.calls) == (42, 4)
    assert found.interval == pytest.approx(40.0)


def test_an_endpoints_own_limit_counts_its_own_calls_alone():
    limits = [
        {"requests": 10, "per": 60.0, "endpoint": "balances"},
        {"requests": 6, "per": 60.0, "endpoint": "account-balances"},
    ]
    found = plan(provider("tokenkit", [*pairs(40), {"account": "0x123"}], limits=limits))
    assert found.interval == pytest.approx(12.0)
    assert found.binding.endpoint == "balances"


def test_half_a_share_takes_twice_as_long():
    watches = [{"account": ACCOUNT}]
    half, whole = provider("helius", watches, share=0.5), provider("helius", watches)
    assert plan(half).interval == pytest.approx(2 * plan(whole).interval)


def test_a_wish_that_the_limits_cannot_meet_is_told_with_what_would_help():
    watches = [{"account": ACCOUNT}, {"account": OTHER}]
    (warning, *_) = plan(provider("helius", watches, max_interval=3)).warnings
    assert "max_interval 3 s cannot be met: the limits allow 5.18 s" in warning
    assert "getMultipleAccounts" in warning
    assert not any("cannot be met" in w for w in plan(provider("helius", watches, max_interval=6)).warnings)


def test_asking_ondo_more_often_than_it_caches_is_told():
    watch = [{"chain": "ethereum-1"}]
    assert any("min_interval = 60" in warning for warning in plan(provider("ondo", watch)).warnings)
    assert plan(provider("ondo", watch, min_interval=60)).warnings == []


def test_two_tables_on_one_balance_and_two_on_one_key_are_told():
    tables = {name: {**HELIUS, "api_key_env": "KEY"} for name in ("first", "second")}
    (warning,) = same_watches(built(**tables))
    assert warning.startswith("first and second both watch")
    (warning,) = same_credentials(
        {"first": ("https://x", Secret("k")), "second": ("https://x", Secret("k")), "third": ("https://x", None)}
    )
    assert "divide its limits" in warning


def test_the_first_line_says_how_often_each_watch_is_read():
    one = provider("helius", [{"account": ACCOUNT}])
    line, limit, *_ = limit_lines(one, plan(one))
    assert line == "helius (helius): 1 watch in 1 request; each is read every 2.59 s on average"
    assert limit == "  binding limit: 1,000,000 per 30 d at 1 a request"


@pytest.mark.parametrize(
    ("value", "said"), [(0.1, "0.1 s"), (60, "60 s"), (900, "15 min"), (7200, "2 h"), (2_592_000, "30 d")]
)
def test_durations_are_said_as_people_say_them(value, said):
    assert duration_words(value) == said
    assert limit_words(Limit(10, value)) == f"10 per {said}"


def test_a_bound_below_the_number_of_watches_is_warned_of():
    (warning,) = [
        text for text in plan(provider("tokenkit", pairs(3), max_balances=2)).warnings if "max_balances" in text
    ]
    assert "max_balances 2 is below the number of watches" in warning
    assert not any("max_balances" in text for text in plan(provider("tokenkit", pairs(3), max_balances=3)).warnings)


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        (lambda budget: budget.save(0.0, time.time_ns() // 1000), "  1,000,000 per 30 d: 0.5% used in the last 30 d"),
        (lambda _: b"foreign", "  the limiter's stamps cannot be read: the next run waits as after a refusal"),
        (None, ""),
    ],
    ids=["stamps", "foreign", "none"],
)
def test_what_was_spent_is_read_from_the_journal(capsys, tmp_path, stamps, said):
    config = tmp_path / "watcher.toml"
    watch = f'[[providers.helius.watch]]\naccount = "{ACCOUNT}"\n'
    config.write_text(f'journal = "sqlite:///{tmp_path}/x.db"\n[providers.helius]\napi_key_env = "KEY"\n{watch}')
    budget = budget_of(provider("helius", [{"account": ACCOUNT}]))
    budget.settle(budget.grant(-100.0), -100.0)
    budget._windows[-1].count(-50.0, 4999)

    async def committed():
        async with journal(tmp_path / "x.db") as intake:
            await intake.save("x", b"")
            if stamps is not None:
                await intake.save("limiter:helius", stamps(budget))

    virtually(committed)
    anyio.run(check, config, {"KEY": "canary"}, Wish(offline=True, schedule=True))
    lines = capsys.readouterr().out.splitlines()
    spent = lines[lines.index("helius: nothing learned yet") + 1 :]
    assert bool(spent) == bool(said)
    assert "".join(spent).startswith(said)
