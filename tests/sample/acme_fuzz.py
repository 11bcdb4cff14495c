"""Acme for the fuzzer: `watcher-fuzz acme_fuzz:cases`."""

from typing import Any

from acme_balances import Acme, AcmeSettings, AcmeWatch

from watcher.provider import Request
from watcher.testing.fuzz import Expected, FuzzCase, get

ACCOUNT = "acme1qqqqqqqq"
ANSWERS = (
    b'{"height":7,"count":2,"vaults":[{"vault":3,"units":"12"},{"vault":4,"units":"90000000000000000000"}]}',
    b'{"height":8,"count":0,"vaults":[]}',
    b'{"reason":"out of order"}',
)


def referee(request: Request, tree: Any, expected: Expected) -> None:
    """`tree`: the answer's JSON, its numbers as they were written."""
    expected.whole = tree["count"] == str(len(tree["vaults"]))
    for row in tree["vaults"]:
        expected.add(request.targets[0].scope.account, get(row, "vault"), "total", get(row, "units"))


def cases() -> list[FuzzCase]:
    return [_case(AcmeWatch(account=ACCOUNT)), _case(AcmeWatch(account=ACCOUNT, vault=3))]


def _case(watch: AcmeWatch) -> FuzzCase:
    acme = Acme("acme", AcmeSettings(type="acme", watch=(watch,)), keyed=True)
    (group,) = acme.groups
    return FuzzCase("acme", acme, acme.ask(group.lanes[0], group.targets, 60.0), ANSWERS, referee)
