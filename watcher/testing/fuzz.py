"""Mutated answers against a provider: whatever comes, it gives readings or a Failure, and no false reading.

    watcher-fuzz MODULE:CASES [--examples N] [--seed N]

MODULE:CASES is a function without arguments that gives FuzzCases. What a provider reads is held against the laws of a
reader, and against a second reader, the referee, that its author writes in the plainest way. Every answer is derived from
its number, so a finding is a seed and a number.
"""

import argparse
import importlib
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import msgspec

from watcher.model.amounts import canonical
from watcher.model.keys import Key
from watcher.providers.failures import Failure
from watcher.providers.protocol import Provider, ReadResult, Request, Response
from watcher.testing.mutations import BOM, mutated

STATUSES = (*[200] * 24, 400, 400, 401, 403, 404, 429, 500, 503, 204)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"retry-after": "-1"},
    {"retry-after": "Thu, 99"},
    {"x-ratelimit-reset": "1e999"},
    {"retry-after": "7"},
)
WALL = 1_770_000_000.0
"""Unix seconds at which the first answer arrives; each next one a second later."""
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class RepeatedMember(Exception):
    """An object has one member twice."""


class Expected:
    """What an answer says, row by row, as a referee notes it.

    A referee knows no doubt: a row that makes no sense to it is noted all the same. A provider may say less than its
    referee, and never anything else.
    """

    def __init__(self) -> None:
        self.amounts: dict[tuple[str | None, str | None, str | None], list[Decimal | None]] = {}
        """(account, token, kind) → the amounts of its rows, None among them for one that makes no sense."""
        self.whole = True
        """To be set to False where the answer's own mark does not say that it is whole."""

    def add(self, account: object, token: object, kind: object, amount: object) -> None:
        """One row. `amount`: a text, as JSON has it."""
        account, token, kind = (part if isinstance(part, str) else None for part in (account, token, kind))
        try:
            number = _number(amount)
        except (ValueError, ArithmeticError):
            number = None
        self.whole = self.whole and None not in (number, account, token, kind)
        self.amounts.setdefault((account, token, kind), []).append(number)


class FuzzCase(msgspec.Struct, frozen=True):
    """One provider, a request of its, answers to begin from, and who knows what such bytes mean."""

    name: str
    """Under which outcomes are counted."""
    provider: Provider
    request: Request
    answers: tuple[bytes, ...]
    """Good ones and errors, as documented."""
    referee: Callable[[Request, Any, Expected], None] | None = None
    """Is given the JSON, its numbers as text, and notes what it says. None: only the laws are held."""
    sums: bool = False
    """Several rows of one balance are parts of it; else they repeat it."""


def get(value: Any, *path: str) -> Any:
    """What stands there in nested objects; None for nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def run(cases: Sequence[FuzzCase], examples: int, seed: int) -> dict[str, Counter[str]]:
    """Outcomes by name. The answers are the same for the same seed. Raises AssertionError with the number of the answer."""
    totals: dict[str, Counter[str]] = {}
    for number in range(examples):
        case = cases[number % len(cases)]
        chance = random.Random(f"{seed}/{number}")  # noqa: S311 (nothing hangs on it)
        body = mutated(case.answers, chance)
        response = Response(chance.choice(STATUSES), body, WALL + number, chance.choice(HEADERS))
        try:
            outcome = judge(case, response)
        except Exception as error:
            where = f"{case.name}, seed {seed}, answer {number}: HTTP {response.status}"
            raise AssertionError(f"{where} {body[:2000]!r}: {type(error).__name__}: {error}") from error
        totals.setdefault(case.name, Counter())[outcome] += 1
    return totals


def judge(case: FuzzCase, response: Response) -> str:
    """Read one answer and hold what comes back against the laws and the referee. Returns the outcome's name."""
    try:
        found = case.provider.read(case.request, response)
    except Failure as failure:
        if "\n" in failure.reason or len(failure.reason) > 600:
            raise AssertionError(f"not one short line: {failure.reason!r}") from failure
        return type(failure).__name__
    _hold_laws(case.provider, case.request, response.status, found)
    if case.referee is not None:
        _hold_against(case, _second_reading(case, response.body), found)
    return "read" if not found.partial and not found.missing else "read in part"


def _hold_laws(provider: Provider, request: Request, status: int, found: ReadResult) -> None:
    """Canonical amounts, one reading a key, only of what was asked for, and none from a failed answer but an absence."""
    keys = [reading.key for reading in found.readings]
    assert len(set(keys)) == len(keys), "two readings of one key"
    for reading in found.readings:
        assert reading.amount is None or reading.amount == canonical(reading.amount), "an amount is not canonical"
        assert Key.parsable(str(reading.key)), f"a key that cannot be read again: {reading.key}"
        assert any(target.scope.covers(reading.key) for target in request.targets), "nobody asked for this"
        assert reading.order is None or 0 <= reading.order < 2**63, "an order that no journal can keep"
        assert reading.decimals is None or 0 <= reading.decimals <= 255, "decimals that no token has"
        unordered = provider.ordering == "none"
        assert (reading.order is None) == unordered or reading.amount is None, f"an order, under {provider.ordering!r}"
    absent = status in (400, 404) and all(reading.amount is None for reading in found.readings)
    assert status == 200 or (absent and found.readings), "a reading from a failed answer"
    assert found.listing is None or found.listing == request.targets[0].scope, "a listing that nobody asked for"
    assert set(found.missing) <= set(request.targets), "a target is missing that nobody asked for"


def _second_reading(case: FuzzCase, body: bytes) -> Expected:
    assert case.referee is not None
    expected = Expected()
    try:
        case.referee(case.request, _opened(body), expected)
    except RepeatedMember:
        raise AssertionError("a reading from an answer that has one member twice") from None
    return expected


def _hold_against(case: FuzzCase, expected: Expected, found: ReadResult) -> None:
    """Raises AssertionError for a reading that the bytes do not bear out."""
    read = {(reading.key.account, reading.key.token, reading.key.kind): reading for reading in found.readings}
    with localcontext(prec=300):
        for key, reading in read.items():
            if reading.amount is not None:
                amounts = [amount for amount in expected.amounts.get(key, ()) if amount is not None]
                assert amounts, f"nothing is said of {key}"
                assert len(amounts) == len(expected.amounts[key]), f"{key} cannot be understood"
                if not case.sums:
                    assert len(set(amounts)) == 1, f"{key} has several amounts: {amounts}"
                    amounts = amounts[:1]
                assert Decimal(reading.amount) == sum(amounts), f"{key} is {amounts}, and not {reading.amount}"
    if found.listing is not None and not found.partial:
        assert expected.whole, "a listing that is not whole proves absences"
        assert set(read) == set(expected.amounts), "a balance that the listing names is taken for absent"


def _number(text: object) -> Decimal:
    if not isinstance(text, str) or not NUMBER.fullmatch(text) or len(text) > 200:
        raise ValueError(text)
    amount = Decimal(text)
    if amount < 0 or amount.adjusted() > 100:
        raise ValueError(text)
    return amount


def _opened(body: bytes) -> Any:
    """Every number as it was written. Raises RepeatedMember, and ValueError for what is no JSON."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise RepeatedMember
        return dict(pairs)

    return json.loads(body.removeprefix(BOM).decode(), object_pairs_hook=members, parse_int=str, parse_float=str)


def cases_of(name: str) -> list[FuzzCase]:
    """What `MODULE:CASES` gives. Raises ValueError for what cannot be imported, or gives none."""
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r}: write MODULE:CASES, as in acme_fuzz:cases")
    try:
        found = list(getattr(importlib.import_module(module), function)())
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{name!r} gives no cases: {error}") from error
    if not found or not all(isinstance(case, FuzzCase) for case in found):
        raise ValueError(f"{name!r} gives no list of FuzzCase")
    return found


def main() -> None:
    """`watcher-fuzz`. Exit status 0 and the totals; 1 and the first finding; 2 for cases that cannot be had."""
    arguments = argparse.ArgumentParser(
        prog="watcher-fuzz", description="Mutate answers and see what a provider reads."
    )
    arguments.add_argument("cases", metavar="MODULE:CASES", help="a function without arguments that gives FuzzCases")
    arguments.add_argument("--examples", type=int, default=1_000_000, metavar="N")
    arguments.add_argument("--seed", type=int, default=1, metavar="N")
    chosen = arguments.parse_args()
    sys.path.insert(0, "")  # a module of the directory that one stands in, as `python -m` finds it
    try:
        cases = cases_of(chosen.cases)
    except ValueError as error:
        arguments.error(str(error))
    began = time.perf_counter()
    try:
        totals = run(cases, chosen.examples, chosen.seed)
    except AssertionError as finding:
        sys.exit(str(finding))
    for name, outcomes in totals.items():
        parts = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        sys.stdout.write(f"{name}: {sum(outcomes.values())} answers: {parts}\n")
    seconds = time.perf_counter() - began
    sys.stdout.write(f"{chosen.examples} mutated answers in {seconds:.0f} s: no crash, no false reading\n")
