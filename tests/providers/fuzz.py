"""Mutated answers against the five readers: whatever comes, a reader gives Found or Failure, and no false reading.

`python -m tests.providers.fuzz --examples 1000000` runs that many over all readers and prints the totals; the test
suite runs a fixed part of the same. Every answer is derived from its number, so a finding is a seed.
"""

import argparse
import copy
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tests.providers import golden, referee
from tests.providers.tables import LATER, asked, built, carrying
from watcher.model.amounts import canonical
from watcher.providers.answers import BOM
from watcher.providers.failures import Failure
from watcher.providers.protocol import Provider, ReadResult, Request, Response

STATUSES = (*[200] * 24, 400, 400, 401, 403, 404, 429, 500, 503, 204)
TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"false", b"{}", b"[]", b'""', b"0", b"-0", b"-1", b"1e400",
    b"1e-400", b"5e-7", b"18446744073709551616", b"9" * 79, b"9" * 5000, b'"NaN"', b'"-1"', b'"1e3"', b'"0x10"',
    b'"\\u0000"', b'"\\ud800"', b"\xff", b"[" * 2000, b'{"a":' * 2000, b"...", b'"..."', b"\x00", b"<html>", b" ", b"\n",
    b'"code":8,', b'"error":{"code":-32005,"message":"x"},', b'"errors":[1],', b'"success":false,', b'"id":"2",',
    b"max usage reached", b'"SOL":', b'"slot":1,', b'"amount":"1",', b'"tokens":[],', b'"data":[],',
)  # fmt: skip
STRUCTURE = re.compile(rb'[{}\[\],:]|"[^"\\]*"|-?[0-9][0-9.eE+-]*|true|false|null')
HEADERS = ({}, {"retry-after": "-1"}, {"retry-after": "Thu, 99"}, {"x-ratelimit-reset": "1e999"}, {"retry-after": "7"})

Case = tuple[str, Provider, Request, tuple[bytes, ...]]


def cases() -> list[Case]:
    """Each reader, a request of its, and answers to begin from."""
    account, pair = {"account": golden.ACCOUNT}, {"account": golden.STARK_ACCOUNT, "token": golden.STARK_TOKEN}
    held = {"account": golden.TOKEN_ACCOUNT, "token": golden.USDC}
    own = [{"requests": 30, "per": 60, "endpoint": "balance"}]
    several = built(
        "helius", held, {"account": "BGocb4GEpbTFm8UFV2VsDSaBXHELPfAXrvd4vtt8QWrA"}, method="getMultipleAccounts"
    )
    twice = golden.F5[:-2] + b"," + golden.F5[len(b'{"tokens":[') :]
    errors = (
        golden.F12_ABSENT,
        golden.F12_NO_TOKEN,
        golden.F12_BEHIND,
        golden.F12_TOO_MANY,
        golden.F12_USED_UP,
        golden.F12_TEXT,
    )
    singles = built("tokenkit", pair, limits=own)
    found: list[tuple[str, Provider, int, tuple[bytes, ...]]] = [
        ("jupiter", built("jupiter", account), 0, (golden.F1, golden.F2, golden.F4_THROTTLED)),
        ("jupiter", built("jupiter", account, endpoint="holdings"), 0, (golden.F3, golden.F3_TWO)),
        ("bloxroute", built("bloxroute", account), 0, (golden.F5, golden.F6, golden.F7, golden.F8, golden.F9, twice)),
        ("helius", built("helius", held), 0, (golden.F11, golden.F11_LARGE, *errors)),
        ("helius", several, 0, (golden.F13, golden.F13_UNCHANGED, golden.F13_OWNER)),
        ("ondo", built("ondo", {"chain": "ethereum-1"}), 0, (golden.F14, golden.F15, golden.F16_PAUSED)),
        ("ondo", built("ondo", {"chain": "ethereum-1", "account": golden.HOLDER}), 0, (golden.F14, golden.F15)),
        ("tokenkit", built("tokenkit", pair), 0, (golden.F17_BATCH, golden.F18, golden.F19)),
        ("tokenkit", singles, 1, (golden.F17_SINGLE,)),
        ("tokenkit", built("tokenkit", {"account": golden.STARK_ACCOUNT}), 0, (golden.F17_LISTING,)),
    ]
    return [
        (kind, provider, request, tuple(carrying(request, seed) for seed in seeds))
        for kind, provider, request, seeds in (
            (kind, built, asked(built, lane), seeds) for kind, built, lane, seeds in found
        )
    ]


def cut(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def flip(body: bytes, chance: random.Random) -> bytes:
    if not body:
        return body
    where = chance.randrange(len(body))
    return body[:where] + bytes([chance.randrange(256)]) + body[where + 1 :]


def insert(body: bytes, chance: random.Random) -> bytes:
    where = chance.randrange(len(body) + 1)
    return body[:where] + chance.choice(TOKENS) + body[where:]


def drop(body: bytes, chance: random.Random) -> bytes:
    start, end = sorted((chance.randrange(len(body) + 1), chance.randrange(len(body) + 1)))
    return body[:start] + body[end:]


def swap_token(body: bytes, chance: random.Random) -> bytes:
    """A JSON token for another value: what stays well-formed goes deepest into a reader."""
    spans = [match.span() for match in STRUCTURE.finditer(body[:4000])]
    if not spans:
        return body
    start, end = chance.choice(spans)
    return body[:start] + chance.choice(TOKENS) + body[end:]


def swap_tokens(body: bytes, chance: random.Random) -> bytes:
    """Two JSON tokens of the answer change places."""
    spans = [match.span() for match in STRUCTURE.finditer(body[:4000])]
    if len(spans) < 2:
        return body
    (a, b), (c, d) = sorted(chance.sample(spans, 2))
    return body[:a] + body[c:d] + body[b:c] + body[a:b] + body[d:]


def repeat(body: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(body) + 1)
    end = min(len(body), start + chance.randrange(1, 200))
    return body[:end] + body[start:end] + body[end:]


def digits(body: bytes, chance: random.Random) -> bytes:
    """One number for another: the amount is new and must be read exactly."""
    number = str(chance.choice((chance.randrange(10), chance.randrange(10**18), 10 ** chance.randrange(80)))).encode()
    spans = [match.span() for match in re.finditer(rb"[0-9]+", body[:4000])]
    if not spans:
        return body
    start, end = chance.choice(spans)
    return body[:start] + number + body[end:]


def reshaped(body: bytes, chance: random.Random, change: Callable[[Any, Any], None]) -> bytes:
    """The answer with one of its objects or lists changed; `change` is given it and one of its names."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return body
    inner = [node for node in nodes(tree) if node]
    if not inner:
        return body
    node = chance.choice(inner)
    change(node, chance.choice(list(node) if isinstance(node, dict) else range(len(node))))
    return json.dumps(tree, separators=chance.choice(((",", ":"), (", ", " : ")))).encode()


def nodes(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from nodes(part)


def spoil(body: bytes, chance: random.Random) -> bytes:
    """A value of another type, or none."""

    def change(node: Any, name: Any) -> None:
        node[name] = chance.choice((None, None, [], {}, "", "...", -1, 7, 1.5, True, "-1", "NaN", [None], "0x0"))

    return reshaped(body, chance, change)


def forget(body: bytes, chance: random.Random) -> bytes:
    """A member or a row is left out."""
    return reshaped(body, chance, lambda node, name: node.pop(name))


def collapse(body: bytes, chance: random.Random) -> bytes:
    """All rows are left out, or all but one."""

    def change(node: Any, name: Any) -> None:
        kept = chance.choice(({}, {name: node[name]})) if isinstance(node, dict) else chance.choice(([], [node[name]]))
        node.clear()
        node.update(kept) if isinstance(node, dict) else node.extend(kept)

    return reshaped(body, chance, change)


def copy_row(body: bytes, chance: random.Random) -> bytes:
    """A row stands twice, and one of the two may be spoilt."""

    def change(node: Any, name: Any) -> None:
        if isinstance(node, list):
            node.insert(chance.randrange(len(node) + 1), copy.deepcopy(node[name]))

    return chance.choice((spoil, lambda body, _: body))(reshaped(body, chance, change), chance)


def twice(body: bytes, chance: random.Random) -> bytes:
    """A member that stands twice in its object, its name or its blanks written in another way."""
    members = list(re.finditer(rb'"([^"\\]+)"\s*:\s*("[^"\\]*"|[0-9.]+|null|true|false)?', body[:4000]))
    if not members:
        return body
    member = chance.choice(members)
    name = member[1] if chance.random() < 0.5 else b"\\u%04x" % member[1][0] + member[1][1:]
    if not name.isascii():
        return body
    value = (member[2] if chance.random() < 0.5 else None) or chance.choice((b"1", b'"1"', b"null", b"[]"))
    again = b'"%b"%b:%b,' % (name, chance.choice((b"", b" ", b"\n\t")), value)
    return body[: member.start()] + again + body[member.start() :]


def mark(body: bytes, _chance: random.Random) -> bytes:
    """A byte order mark."""
    return BOM + body


def exponent(body: bytes, chance: random.Random) -> bytes:
    """A whole number in a string, written in another way."""
    spans = [match.span() for match in re.finditer(rb'"[0-9]+"', body[:4000])]
    if not spans:
        return body
    start, end = chance.choice(spans)
    number = body[start + 1 : end - 1]
    other = chance.choice((b'"%b.0E+2"', b'"%be-1"', b"%b", b"%be1", b'"%b.5"', b'"0E-%b"', b'"%b.10e1"'))
    return body[:start] + other % number[:40] + body[end:]


def other_id(body: bytes, chance: random.Random) -> bytes:
    """The id of another request."""
    return re.sub(rb'("id"\s*:\s*)"[^"]*"', rb'\g<1>"%d"' % chance.randrange(3), body)


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, flip, insert, drop, swap_token, swap_token, swap_tokens, repeat, digits, digits, digits, digits, spoil, spoil,
    spoil, forget, forget, collapse, copy_row, copy_row, twice, mark, exponent, exponent, other_id,
)  # fmt: skip


def mutated(seeds: tuple[bytes, ...], chance: random.Random) -> bytes:
    body = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 6))):
        body = chance.choice(MUTATIONS)(body, chance)[:100_000]
    return body


def judge(provider: Provider, request: Request, response: Response, body: bytes) -> str:
    """Read one answer and hold what comes back against the laws of a reader. Returns the outcome's name."""
    try:
        found = provider.read(request, response)
    except Failure as failure:
        if "\n" in failure.reason or len(failure.reason) > 600:
            raise AssertionError(f"not one short line: {failure.reason!r}") from failure
        return type(failure).__name__
    lawful(provider, request, found)
    absent = response.status in (400, 404) and all(reading.amount is None for reading in found.readings)
    assert response.status == 200 or (absent and found.readings), "a reading from a failed answer"
    referee.judge(str(provider.settings.type), request, body, found)
    return "ReadResult" if not found.partial and not found.missing else "Found in part"


def lawful(provider: Provider, request: Request, found: ReadResult) -> None:
    """Canonical amounts, one reading a key, and only of what was asked for."""
    keys = [reading.key for reading in found.readings]
    assert len(set(keys)) == len(keys), "a key is told twice"
    for reading in found.readings:
        assert reading.amount is None or reading.amount == canonical(reading.amount), "an amount is not canonical"
        assert any(target.scope.covers(reading.key) for target in request.targets), "nobody asked for this"
        assert reading.order is None or 0 <= reading.order < 2**63
        assert reading.decimals is None or 0 <= reading.decimals <= 255
        assert (reading.order is None) == (provider.ordering == "none") or reading.amount is None
    assert found.listing is None or found.listing == request.targets[0].scope
    assert set(found.missing) <= set(request.targets)


def run(examples: int, seed: int) -> dict[str, Counter[str]]:
    """Outcomes by reader. The answers are the same for the same seed. Raises with the number of the answer."""
    totals: dict[str, Counter[str]] = {}
    table = cases()
    for number in range(examples):
        kind, provider, request, seeds = table[number % len(table)]
        chance = random.Random(f"{seed}/{number}")
        body = mutated(seeds, chance)
        response = Response(chance.choice(STATUSES), body, LATER + number, chance.choice(HEADERS))
        try:
            outcome = judge(provider, request, response, body)
        except Exception as error:
            raise AssertionError(
                f"{kind}, seed {seed}, answer {number}: HTTP {response.status} {body[:2000]!r}"
            ) from error
        totals.setdefault(kind, Counter())[outcome] += 1
    return totals


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.providers.fuzz", description=__doc__)
    arguments.add_argument("--examples", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    began = time.perf_counter()
    totals = run(chosen.examples, chosen.seed)
    for kind, outcomes in totals.items():
        parts = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
        sys.stdout.write(f"{kind}: {sum(outcomes.values())} answers: {parts}\n")
    count = sum(sum(outcomes.values()) for outcomes in totals.values())
    sys.stdout.write(f"{count} mutated answers in {time.perf_counter() - began:.0f} s: no crash, no false reading\n")


if __name__ == "__main__":
    main()
