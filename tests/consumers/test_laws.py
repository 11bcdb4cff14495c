"""The judge of foreign consumers sees each planted fault, and nothing in lines that are as they should be."""

import pytest

from tests.consumers.laws import Judge

PARTS = {"provider": "bank", "chain": "eip155:1", "account": "0x1", "token": "0x2", "kind": "total"}
KEY = "bank/eip155:1/0x1/0x2/total"
EVENT = {
    **PARTS,
    "id": "id-1",
    "version": 1,
    "previous_amount": "5",
    "amount": "7",
    "observed_at": "2026-09-01T00:00:00.000000Z",
}
HEADERS = {
    "ce_specversion": "1.0",
    "ce_type": "balance.changed.v1",
    "ce_source": "/balance-watcher/e0/bank",
    "ce_id": "id-1",
    "ce_time": EVENT["observed_at"],
    "ce_subject": KEY,
    "ce_balanceversion": "1",
    "content-type": "application/json",
}


def state(version, amount):
    return {**PARTS, "version": version, "amount": amount}


def line(topic, offset, value, headers, key=KEY):
    return {"topic": topic, "partition": 0, "offset": offset, "key": key, "headers": headers, "value": value}


def changed(offset=0, headers=HEADERS, key=KEY, **fields):
    return line("balances.changed.v1", offset, {**EVENT, **fields}, headers, key)


def stated(offset, value, content_type="application/json"):
    return line("balances.state.v1", offset, value, {"content-type": content_type})


BASELINE, LAST = stated(0, state(0, "5")), stated(2, state(1, "7"))


def broken(*lines):
    judge = Judge("json")
    for one in lines:
        judge.record(one)
    return set(judge.finish().broken)


def test_lines_that_keep_the_laws_are_left_alone():
    assert broken(BASELINE, changed(), LAST) == set()


@pytest.mark.parametrize(
    ("lines", "law"),
    [
        ([BASELINE, changed(amount="9"), LAST], "state and event differ"),
        ([stated(0, state(0, "4")), changed(), LAST], "previous_amount is not the baseline"),
        ([BASELINE, changed(), stated(0, state(1, "7"))], "out of order"),
        ([BASELINE, changed(key="bank/eip155:1/0x9/0x2/total"), LAST], "the key is another balance's"),
        ([BASELINE, changed(), stated(2, None), LAST], "no balance in the state topic"),
        ([BASELINE, changed(), stated(2, state(1, "7"), "text/plain")], "headers do not say what the state says"),
    ],
)
def test_a_planted_fault_is_seen(lines, law):
    assert law in broken(*lines)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_missing_or_says_something_else_is_seen(name):
    law = "headers do not say what the event says"
    assert broken(BASELINE, changed(headers={**HEADERS, name: "other"}), LAST) == {law}
    without = {other: value for other, value in HEADERS.items() if other != name}
    assert broken(BASELINE, changed(headers=without), LAST) == {law}
