"""Ways in which an answer can come out wrong: bytes, JSON tokens, members and rows that change, go missing or repeat."""

import copy
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"false", b"{}", b"[]", b'""', b"0", b"-0", b"-1", b"1e400",
    b"1e-400", b"5e-7", b"18446744073709551616", b"9" * 79, b"9" * 5000, b'"NaN"', b'"-1"', b'"1e3"', b'"0x10"',
    b'"\\u0000"', b'"\\ud800"', b"\xff", b"[" * 2000, b'{"a":' * 2000, b"...", b'"..."', b"\x00", b"<html>", b" ", b"\n",
    b'"code":8,', b'"error":{"code":-32005,"message":"x"},', b'"errors":[1],', b'"success":false,', b'"id":"2",',
    b"max usage reached", b'"SOL":', b'"slot":1,', b'"amount":"1",', b'"tokens":[],', b'"data":[],',
)  # fmt: skip
STRUCTURE = re.compile(rb'[{}\[\],:]|"[^"\\]*"|-?[0-9][0-9.eE+-]*|true|false|null')
BOM = b"\xef\xbb\xbf"
LONGEST = 100_000
"""Bytes."""


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


def reshape(body: bytes, chance: random.Random, change: Callable[[Any, Any], None]) -> bytes:
    """The answer with one of its objects or lists changed; `change` is given it and one of its names."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return body
    inner = [node for node in _nodes(tree) if node]
    if not inner:
        return body
    node = chance.choice(inner)
    change(node, chance.choice(list(node) if isinstance(node, dict) else range(len(node))))
    return json.dumps(tree, separators=chance.choice(((",", ":"), (", ", " : ")))).encode()


def _nodes(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _nodes(part)


def spoil(body: bytes, chance: random.Random) -> bytes:
    """A value of another type, or none."""

    def change(node: Any, name: Any) -> None:
        node[name] = chance.choice((None, None, [], {}, "", "...", -1, 7, 1.5, True, "-1", "NaN", [None], "0x0"))

    return reshape(body, chance, change)


def forget(body: bytes, chance: random.Random) -> bytes:
    """A member or a row is left out."""
    return reshape(body, chance, lambda node, name: node.pop(name))


def collapse(body: bytes, chance: random.Random) -> bytes:
    """All rows are left out, or all but one."""

    def change(node: Any, name: Any) -> None:
        kept = chance.choice(({}, {name: node[name]})) if isinstance(node, dict) else chance.choice(([], [node[name]]))
        node.clear()
        node.update(kept) if isinstance(node, dict) else node.extend(kept)

    return reshape(body, chance, change)


def copy_row(body: bytes, chance: random.Random) -> bytes:
    """A row stands twice, and one of the two may be spoilt."""

    def change(node: Any, name: Any) -> None:
        if isinstance(node, list):
            node.insert(chance.randrange(len(node) + 1), copy.deepcopy(node[name]))

    return chance.choice((spoil, lambda body, _: body))(reshape(body, chance, change), chance)


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


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One of these answers, changed once or several times."""
    body = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 6))):
        body = chance.choice(MUTATIONS)(body, chance)[:LONGEST]
    return body
