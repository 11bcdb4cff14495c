"""The checker sees each planted violation of the laws of crossings, and nothing in a log that keeps them."""

import pytest

from tests.chaos.checker import Checker

KEY = {"provider": "bank", "chain": "eip155:1", "account": "0x1", "token": "0x2", "kind": "total"}
LOW = {"name": "low", "below": "10", "clear": "12"}
HIGH = {"name": "high", "above": "20"}


def at(version):
    return f"2026-01-01T00:00:{version:02}.000000Z"


def state(version, amount, unit="base", **key):
    return {**KEY, "version": version, "amount": amount, "unit": unit, "observed_at": at(version), **key}


def change(version, previous, amount, **more):
    told = {"id": f"change-{version}-{more.get('account', '')}", "previous_amount": previous}
    return {**state(version, amount, **more), **told}


def crossing(version, told, previous, amount, **more):
    """`told`: alert, direction and threshold."""
    alert, direction, threshold = told.split()
    return {
        **KEY,
        "id": f"{alert}-{version}-{direction}",
        "alert": alert,
        "direction": direction,
        "threshold": threshold,
        "amount": amount,
        "previous_amount": previous,
        "version": version,
        "observed_at": at(version),
        **more,
    }


CHAIN = [
    state(0, "15"),
    change(1, "15", "9"),
    change(2, "9", "11"),
    change(3, "11", "9.5"),
    change(4, "9.5", "12"),
    change(5, "12", "21"),
    change(6, "21", "20"),
    change(7, "20", "5"),
]
CROSSINGS = [
    crossing(1, "low below 10", "15", "9"),
    crossing(4, "low cleared 10", "9.5", "12"),
    crossing(5, "high above 20", "12", "21"),
    crossing(6, "high cleared 20", "21", "20"),
    crossing(7, "low below 10", "20", "5"),
]


def fed(log, alerts=(LOW, HIGH), tagged=(), *, views=False):
    """`views`: each record is a view of its own, with the state and the crossings that belong to it."""
    checker = Checker(alerts, tagged)
    for place, record in enumerate(log):
        if "alert" in record:
            checker.crossing(place, record)
        elif "id" in record:
            checker.event(place, record)
            checker.state(("state", place), {name: record[name] for name in (*KEY, "version", "amount")})
        else:
            checker.begun(record)
            checker.state(place, record)
        following = log[place + 1] if place + 1 < len(log) else {}
        if views and "alert" not in following:
            checker.view()
    checker.finish()
    return checker


def judged(log, **more):
    return set(fed(log, **more).violations)


def in_order(crossings):
    """As SQLite has them: each behind its change."""
    log = [CHAIN[0]]
    for each in CHAIN[1:]:
        log += [each, *(one for one in crossings if one["version"] == each["version"])]
    return log


@pytest.mark.parametrize("views", [False, True])
def test_a_log_with_all_its_crossings_is_left_alone(views):
    assert judged(in_order(CROSSINGS), views=views) == set()


@pytest.mark.parametrize("log", [[*CROSSINGS, *CHAIN], [*CHAIN, *CROSSINGS], [*CHAIN[1:], *CROSSINGS, CHAIN[0]]])
def test_topics_may_be_read_in_any_order(log):
    checker = fed(log)
    of_the_states = {"the state went back", "the last event is not the state"}  # those do come in order
    assert checker.violations.keys() <= of_the_states
    assert checker.crossings.directions.total() == 5


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("number", range(len(CROSSINGS)))
def test_each_crossing_that_is_dropped_is_seen(number, views):
    found = judged(in_order([one for one in CROSSINGS if one is not CROSSINGS[number]]), views=views)
    assert found == {"change and crossing apart" if views else "a crossing is missing"}


@pytest.mark.parametrize("changed_id", [{}, {"id": "another"}])
def test_one_that_is_doubled_is_seen(changed_id):
    doubled = {**CROSSINGS[1], **changed_id}
    assert {"crossing told twice", "crossings out of order"} & judged(in_order([*CROSSINGS, doubled]))


def test_two_with_one_id_are_seen():
    assert "crossing told twice" in judged(in_order([*CROSSINGS[:4], {**CROSSINGS[4], "id": CROSSINGS[0]["id"]}]))


def test_one_with_the_id_of_a_change_is_seen():
    assert "id told twice" in judged(in_order([{**CROSSINGS[0], "id": "change-1-"}, *CROSSINGS[1:]]))


@pytest.mark.parametrize(
    "invented",
    [
        crossing(2, "low cleared 10", "9", "11"),
        crossing(3, "low below 10", "11", "9.5"),
        crossing(6, "high above 20", "21", "20"),
        crossing(0, "high above 20", None, "15"),
        crossing(5, "unknown above 20", "12", "21"),
    ],
)
@pytest.mark.parametrize("views", [False, True])
def test_one_that_is_invented_is_seen(invented, views):
    log = in_order(CROSSINGS)
    log.insert(next(n for n, one in enumerate(log) if one["version"] == invented["version"]) + 1, invented)
    found = judged(log, views=views) - {"crossings out of order"}
    assert found == {"change and crossing apart" if views else "a crossing that is none"}


def test_one_without_its_change_is_seen():
    found = judged([*CHAIN, *CROSSINGS, crossing(8, "low cleared 10", "5", "15")])
    assert found == {"a crossing without its change"}
    other = crossing(1, "low below 10", "15", "9", account="0x9", id="x")
    assert judged([*CHAIN, *CROSSINGS, other]) == {"a crossing without its change"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": "11"},
        {"amount": "8"},
        {"previous_amount": "14"},
        {"previous_amount": None},
        {"observed_at": at(2)},
    ],
)
def test_a_wrong_field_is_seen(wrong):
    assert judged(in_order([{**CROSSINGS[0], **wrong}, *CROSSINGS[1:]])) == {"a field of a crossing is wrong"}


@pytest.mark.parametrize("wrong", [{"alert": "high"}, {"direction": "cleared"}, {"version": 2}])
def test_one_that_says_what_another_would_is_seen(wrong):
    assert {"a crossing is missing", "a crossing that is none"} <= judged(
        in_order([{**CROSSINGS[0], **wrong}, *CROSSINGS[1:]])
    )


@pytest.mark.parametrize("views", [False, True])
def test_a_baseline_beyond_fires_with_no_amount_before(views):
    log = [state(0, "3"), crossing(0, "low below 10", None, "3"), change(1, "3", "4")]
    assert judged(log, views=views) == set()
    assert judged([log[0], log[2]], views=views)
    assert judged([log[0], {**log[1], "previous_amount": "0"}, log[2]]) == {"a field of a crossing is wrong"}


def test_a_balance_that_appeared_as_a_change_has_no_baseline_to_judge():
    log = [change(1, "0", "3"), crossing(1, "low below 10", "0", "3")]
    assert judged(log) == set()
    log.append(crossing(0, "low below 10", None, "0"))
    assert "a crossing without its change" in judged(log)


def test_thresholds_with_decimals_are_token_units_and_apply_as_they_stand_to_a_balance_in_those():
    low = {"name": "low", "below": "1.5", "decimals": 6, "clear": "2"}
    log = [
        state(0, "1500000"),
        change(1, "1500000", "1499999"),
        crossing(1, "low below 1500000", "1500000", "1499999"),
    ]
    assert judged(log, alerts=[low]) == set()
    units = [
        state(0, "1.5", unit="decimal"),
        change(1, "1.5", "1.499999", unit="decimal"),
        crossing(1, "low below 1.5", "1.5", "1.499999"),
    ]
    assert judged(units, alerts=[low]) == set()
    assert judged([*units[:2], {**units[2], "threshold": "1500000"}], alerts=[low])


@pytest.mark.parametrize(("alert", "limit"), [(LOW, "10"), (HIGH, "20")])
def test_an_amount_at_the_threshold_is_not_beyond_it(alert, limit):
    assert judged([state(0, "15"), change(1, "15", limit), change(2, limit, "15")], alerts=[alert]) == set()


def test_crossings_of_one_balance_in_another_order_than_their_changes_are_seen():
    swapped = [*CROSSINGS[:3], CROSSINGS[4], CROSSINGS[3]]
    assert judged([*CHAIN, *CROSSINGS]) == set()
    assert judged([*CHAIN, *swapped]) == set(), "each alert goes its own way"
    assert judged([*CHAIN, *CROSSINGS[1:], CROSSINGS[0]]) == {"crossings out of order"}


def test_amounts_are_compared_exactly():
    limit = "100000000000000000000.000000000000000001"
    low = {"name": "low", "below": limit, "decimals": 0}
    log = [state(0, limit), change(1, limit, "100000000000000000000"), change(2, "100000000000000000000", limit)]
    found = [
        crossing(1, f"low below {limit}", limit, "100000000000000000000"),
        crossing(2, f"low cleared {limit}", "100000000000000000000", limit),
    ]
    assert judged([*log, *found], alerts=[low]) == set()


@pytest.mark.parametrize(
    ("wanted", "speaks"),
    [
        ({"provider": "bank"}, True),
        ({"provider": ["x", "bank"], "kind": "total"}, True),
        ({"provider": "x"}, False),
        ({"chain": "eip155:1", "account": ["0x1"], "token": "0x2"}, True),
        ({"token": "0x1"}, False),
        ({"tag": "t"}, True),
        ({"tag": "t", "provider": "x"}, False),
    ],
)
def test_an_alert_speaks_of_what_it_asks_for(wanted, speaks):
    log = [*CHAIN, *CROSSINGS]
    alerts = [{**LOW, **wanted}, {**HIGH, **wanted}]
    assert (judged(log, alerts=alerts, tagged=["bank"]) == set()) == speaks
    assert (judged(CHAIN, alerts=alerts, tagged=["bank"]) == set()) != speaks


@pytest.mark.parametrize("wanted", [{}, {"provider": "bank"}])
def test_a_tag_that_no_watch_of_the_provider_has_asks_for_nothing(wanted):
    assert judged(CHAIN, alerts=[{**LOW, "tag": "t", **wanted}], tagged=["another"]) == set()


def test_what_a_witness_has_seen_of_crossings_must_still_be_there():
    earlier, later = fed(in_order(CROSSINGS)), fed(in_order(CROSSINGS))
    later.judge_memory(earlier)
    assert not later.violations
    later = fed(in_order(CROSSINGS)[:-1])
    later.judge_memory(earlier)
    assert later.violations["taken back after it was seen"] == 1
