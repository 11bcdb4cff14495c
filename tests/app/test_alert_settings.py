"""`[[alert]]` of the config: what it may say, and for each mistake one line that says what to do."""

import tomllib

import pytest

from tests.app.test_settings import helius
from tests.test_deployment import ROOT
from watcher.app import settings
from watcher.app.alert_settings import MOST_ALERTS
from watcher.model.alert_index import Alert, AlertIndex
from watcher.model.keys import Filter, Key
from watcher.runtime.config_section import SettingsError, SettingsErrors

LOW = {"name": "low", "below": "5"}


def alerts(*tables):
    return settings.parse(helius() | {"alert": list(tables)}).alerts


def mistakes(*tables):
    with pytest.raises(SettingsError) as found:
        alerts(*tables)
    return [(error.where, str(error)) for error in found.value.errors]


def test_the_alerts_that_the_sample_shows_are_right():
    text = (ROOT / "config" / "watcher.toml").read_text(encoding="utf-8")
    part = text[text.index("# [[alert]]") : text.index("# ── Webhooks")]
    table = tomllib.loads("\n".join(line.removeprefix("# ") for line in part.splitlines() if line.startswith("# ")))
    gas, unread = settings.parse(helius() | table).alerts
    wanted = Filter(token=("native",), label=("hot wallet", "relayer"))
    assert gas == Alert("gas is low", "below", "0.5", "0.8", 9, None, wanted)
    assert unread == Alert("helius is not read", None, unread_for=600.0, wanted=Filter(provider=("helius",)))


def test_amounts_become_canonical_and_clear_is_the_threshold_where_it_is_not_given():
    low, high = alerts({"name": "low", "below": "0050.10"}, {"name": "high", "above": "1E3", "clear": "900.0"})
    assert (low.side, low.threshold, low.clear) == ("below", "50.1", "50.1")
    assert (high.side, high.threshold, high.clear) == ("above", "1000", "900")


def test_token_units_are_scaled_for_balances_in_base_units_alone_and_exactly():
    (alert,) = alerts({"name": "low", "below": "0.123456789012345678", "clear": "1", "decimals": 18})
    assert (alert.rule("base").threshold, str(alert.rule("base").clear)) == (
        "123456789012345678",
        "1000000000000000000",
    )
    assert alert.rule("decimal").threshold == "0.123456789012345678"


def test_chains_and_addresses_may_be_written_as_in_a_watch():
    (alert,) = alerts(LOW | {"chain": "ethereum-1", "account": "0x13116E8B4FFC8125B859EC60917FBA540E59E55E"})
    index = AlertIndex([alert])
    key = Key("ondo", "eip155:1", "0x13116e8b4ffc8125b859ec60917fba540e59e55e", "native")
    assert [rule.name for rule in index.rules(key, "decimal")] == ["low"]


@pytest.mark.parametrize(
    ("table", "where", "says"),
    [
        ({"below": "5"}, "alert[0].name", 'write name = "…"'),
        (LOW | {"name": ""}, "alert[0].name", "write 1 to 64 printable characters"),
        (LOW | {"name": "x" * 65}, "alert[0].name", "write 1 to 64 printable characters"),
        (LOW | {"name": "a\x1b[2Jb"}, "alert[0].name", "write 1 to 64 printable characters"),
        (LOW | {"name": " low"}, "alert[0].name", "no space around them"),
        (LOW | {"name": 7}, "alert[0].name", "expected str"),
        ({"name": "x"}, "alert[0]", "says not when it fires: write one of below, above and unread_for"),
        (LOW | {"above": "7"}, "alert[0]", "has below and above: write one of"),
        (LOW | {"unread_for": 60}, "alert[0]", "has below and unread_for: write one of"),
        (LOW | {"clear": "4.999"}, "alert[0].clear", "lies on the wrong side of below = '5': write at least that"),
        ({"name": "x", "above": "5", "clear": "5.1"}, "alert[0].clear", "write at most that"),
        (
            {"name": "x", "below": 5},
            "alert[0].below",
            'is a number, which may be rounded: write it in quotes, as in below = "5"',
        ),
        ({"name": "x", "below": 0.5}, "alert[0].below", 'write it in quotes, as in below = "0.5"'),
        ({"name": "x", "below": True}, "alert[0].below", "is no amount: write it in quotes"),
        ({"name": "x", "below": "-5"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": "NaN"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": "five"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": "1_000"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": " 5"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": "٥"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": "1e200"}, "alert[0].below", "is no exact decimal amount"),
        ({"name": "x", "below": "0"}, "alert[0].below", "never fires, since no balance is negative: write more"),
        (LOW | {"clear": 7}, "alert[0].clear", "is a number, which may be rounded"),
        (LOW | {"decimals": -1}, "alert[0].decimals", "from 0 to 77"),
        (LOW | {"decimals": 78}, "alert[0].decimals", "from 0 to 77"),
        (LOW | {"below": "1e50", "decimals": 77}, "alert[0].below", "has more than 100 digits"),
        ({"name": "x", "unread_for": 0}, "alert[0].unread_for", "is no number of seconds above 0"),
        ({"name": "x", "unread_for": float("nan")}, "alert[0].unread_for", "is no number of seconds above 0"),
        ({"name": "x", "unread_for": float("inf")}, "alert[0].unread_for", "is no number of seconds above 0"),
        ({"name": "x", "unread_for": 9, "clear": "5"}, "alert[0].clear", "beside unread_for"),
        ({"name": "x", "unread_for": 9, "kind": "total"}, "alert[0].kind", "beside unread_for"),
        (LOW | {"token": []}, "alert[0].token", "names nothing"),
        (LOW | {"token": ""}, "alert[0].token", "names nothing"),
        (
            LOW | {"chain": ["solana-900", "solana"]},
            "alert[0].chain",
            "chain = 'solana' is not a chain: write a CAIP-2 id",
        ),
        (LOW | {"kind": "all"}, "alert[0].kind", "write any of open_orders, settled, total, unsettled"),
        (LOW | {"lable": "hot"}, "alert[0].lable", "did you mean `label`?"),
        (LOW | {"label": [7]}, "alert[0].label[0]", "expected str"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_it_is_and_what_to_do(table, where, says):
    ((place, text),) = mistakes(table)
    assert place == where
    assert says in text
    assert "\n" not in text
    assert text.isprintable()


def test_two_alerts_of_one_name_are_refused_and_all_mistakes_are_told_at_once():
    found = mistakes(LOW, LOW, {"name": "x"}, {"name": "y", "above": 5})
    assert [where for where, _ in found] == ["alert[1].name", "alert[2]", "alert[3].above"]
    assert "two alerts are called 'low'" in found[0][1]


def test_what_is_no_list_of_tables_is_refused():
    for wrong in ({"name": "low"}, "low", ["low"]):
        with pytest.raises(SettingsError, match=r"write \[\[alert\]\] before"):
            settings.parse(helius() | {"alert": wrong})


def test_there_are_so_many_at_most():
    tables = [{"name": str(number), "below": "5"} for number in range(MOST_ALERTS + 1)]
    assert len(alerts(*tables[:MOST_ALERTS])) == MOST_ALERTS
    ((where, text),) = mistakes(*tables)
    assert (where, text.startswith("10,001 alerts are more than 10,000:")) == ("alert", True)


def test_several_mistakes_of_one_table_are_told_together():
    with pytest.raises(SettingsErrors) as found:
        alerts({"name": "", "below": "x", "kind": "y"})
    assert len(found.value.errors) == 3
