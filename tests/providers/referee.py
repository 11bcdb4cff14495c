"""A second reader of the five APIs' answers, slow and without a line of ours: what the bytes say of each balance.

It knows nothing of doubt: a balance of which a part makes no sense to it is left out, and `whole` is false then. Readers
may say less than it does, and never anything else.
"""

import json
import re
from decimal import Decimal, localcontext

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class Twice(Exception):
    """An object tells one member twice."""


class Said:
    """`amounts`: (account, token, kind) → the amounts of its rows, None among them for one that makes no sense."""

    def __init__(self):
        self.amounts = {}
        self.whole = True

    def add(self, key, told):
        key = tuple(part if isinstance(part, str) else None for part in key)
        try:
            amount = number(told)
        except (TypeError, ValueError, ArithmeticError):
            amount = None
        self.whole = self.whole and amount is not None and None not in key
        self.amounts.setdefault(key, []).append(amount)


def number(told):
    if not isinstance(told, str) or not NUMBER.fullmatch(told) or len(told) > 200:
        raise ValueError(told)
    amount = Decimal(told)
    if amount < 0 or amount.adjusted() > 100:
        raise ValueError(told)
    return amount


def opened(body):
    """Every number as it was written. Raises Twice, and ValueError for what is no JSON."""

    def members(pairs):
        if len({name for name, _ in pairs}) < len(pairs):
            raise Twice
        return dict(pairs)

    text = body.removeprefix(b"\xef\xbb\xbf").decode()
    return json.loads(text, object_pairs_hook=members, parse_int=str, parse_float=str)


def get(value, *path):
    """What stands there; None for nothing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def hexed(text):
    return text.lower() if isinstance(text, str) else None


def padded(text):
    try:
        return f"0x{int(text, 16):064x}"
    except (TypeError, ValueError, ArithmeticError):
        return None


def jupiter(request, tree, said):
    account = request.targets[0].scope.account
    if "/holdings/" not in request.path:
        said.whole = "SOL" in tree
        for name, entry in tree.items():
            said.add((account, "native" if name == "SOL" else name, "total"), get(entry, "amount"))
        return
    said.whole = "amount" in tree
    said.add((account, "native", "total"), tree.get("amount"))
    for mint, parts in (get(tree, "tokens") or {}).items():
        for part in parts if isinstance(parts, list) else [None]:
            said.add((account, mint, "total"), get(part, "amount"))


NAMES = {
    "settled": ("settledAmount", "settled_amount"),
    "unsettled": ("unsettledAmount", "unsettled_amount"),
    "open_orders": ("openOrdersAmount", "open_orders_amount", "openOrderAmount"),
}


def bloxroute(request, tree, said):
    account = request.targets[0].scope.account
    for row in tree.get("tokens") or tree.get(".tokens") or []:
        mint = get(row, "tokenMint") or get(row, "token_mint") or get(row, "tokenMin")
        for kind, names in NAMES.items():
            told = [row[name] for name in names if get(row, name) is not None]
            said.add((account, mint, kind), told[0] if len(told) == 1 else None)


def helius(request, tree, said):
    if get(tree, "id") != request.id or ("error" in tree and get(tree, "result") is not None):
        return
    value = get(tree, "result", "value")
    values = value if b"getMultipleAccounts" in request.body and isinstance(value, list) else [value]
    for target, told in zip(request.targets, values, strict=True):
        scope = target.scope
        amount = get(told, "data", "parsed", "info", "tokenAmount", "amount") or get(told, "amount")
        said.add((scope.account, scope.token, "total"), amount)


def ondo(request, tree, said):
    for token in tree.get("tokens") or []:
        rows = get(token, "balances")
        for row in rows if isinstance(rows, list) else [None]:
            key = (hexed(get(row, "holderAddress", "account")), hexed(get(token, "tokenAddress")), "total")
            said.add(key, get(row, "balance"))


def tokenkit(request, tree, said):
    data = tree.get("data")
    rows = data if isinstance(data, list) else [data]
    said.whole = get(tree, "count") == str(len(rows)) and get(tree, "links", "next") is None
    seen = set()
    for row in rows:
        account, token = (get(row, name, "address") or get(row, f"{name}_address") for name in ("account", "token"))
        parts = (account, token, get(row, "balance"))
        name = get(row, "id")
        if name is None or (repr(name), repr(parts)) not in seen:
            said.add((padded(account), padded(token), "total"), parts[2])
        seen.add((repr(name), repr(parts)))


READERS = {"jupiter": jupiter, "bloxroute": bloxroute, "helius": helius, "ondo": ondo, "tokenkit": tokenkit}


def says(kind, request, body):
    """What the answer says. Raises Twice."""
    said = Said()
    READERS[kind](request, opened(body), said)
    return said


def judge(kind, request, body, found):
    """Hold what a reader of ours found against what the bytes say. Raises AssertionError for a false reading."""
    try:
        said = says(kind, request, body)
    except Twice:
        raise AssertionError("a reading from an answer that tells a member twice") from None
    with localcontext(prec=300):
        for reading in found.readings:
            if reading.amount is not None:
                key = (reading.key.account, reading.key.token, reading.key.kind)
                told = said.amounts.get(key)
                assert told, f"nothing is said of {key}"
                assert None not in told, f"{key} cannot be understood"
                if not sums(kind, request):
                    assert len(set(told)) == 1, f"{key} is told differently: {told}"
                    told = told[:1]
                assert Decimal(reading.amount) == sum(told), f"{key} is {told}"
    if found.listing is not None and not found.partial:
        assert said.whole, "a listing that is not whole proves absences"
        told = {(reading.key.account, reading.key.token, reading.key.kind) for reading in found.readings}
        assert told == set(said.amounts), "a balance that the listing names is taken for absent"


def sums(kind, request):
    """Whether several rows of one balance are parts of it; else they repeat it."""
    return kind in ("jupiter", "bloxroute") or request.endpoint == "account-balances"
