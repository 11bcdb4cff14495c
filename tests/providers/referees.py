"""A second reader of the five APIs' answers, slow and without a line of ours: what the bytes say of each balance."""

from watcher.testing.fuzz import get


def hexed(text):
    return text.lower() if isinstance(text, str) else None


def padded(text):
    try:
        return f"0x{int(text, 16):064x}"
    except (TypeError, ValueError, ArithmeticError):
        return None


def jupiter(request, tree, expected):
    account = request.targets[0].scope.account
    if "/holdings/" not in request.path:
        expected.whole = "SOL" in tree
        for name, entry in tree.items():
            expected.add(account, "native" if name == "SOL" else name, "total", get(entry, "amount"))
        return
    expected.whole = "amount" in tree
    expected.add(account, "native", "total", tree.get("amount"))
    for mint, parts in (get(tree, "tokens") or {}).items():
        for part in parts if isinstance(parts, list) else [None]:
            expected.add(account, mint, "total", get(part, "amount"))


NAMES = {
    "settled": ("settledAmount", "settled_amount"),
    "unsettled": ("unsettledAmount", "unsettled_amount"),
    "open_orders": ("openOrdersAmount", "open_orders_amount", "openOrderAmount"),
}


def bloxroute(request, tree, expected):
    account = request.targets[0].scope.account
    for row in tree.get("tokens") or tree.get(".tokens") or []:
        mint = get(row, "tokenMint") or get(row, "token_mint") or get(row, "tokenMin")
        for kind, names in NAMES.items():
            amounts = [row[name] for name in names if get(row, name) is not None]
            expected.add(account, mint, kind, amounts[0] if len(amounts) == 1 else None)


def helius(request, tree, expected):
    if get(tree, "id") != request.id or ("error" in tree and get(tree, "result") is not None):
        return
    value = get(tree, "result", "value")
    values = value if b"getMultipleAccounts" in request.body and isinstance(value, list) else [value]
    for target, value in zip(request.targets, values, strict=True):
        scope = target.scope
        amount = get(value, "data", "parsed", "info", "tokenAmount", "amount") or get(value, "amount")
        expected.add(scope.account, scope.token, "total", amount)


def ondo(request, tree, expected):
    for token in tree.get("tokens") or []:
        rows = get(token, "balances")
        for row in rows if isinstance(rows, list) else [None]:
            account, address = get(row, "holderAddress", "account"), get(token, "tokenAddress")
            expected.add(hexed(account), hexed(address), "total", get(row, "balance"))


def tokenkit(request, tree, expected):
    data = tree.get("data")
    rows = data if isinstance(data, list) else [data]
    expected.whole = get(tree, "count") == str(len(rows)) and get(tree, "links", "next") is None
    seen = set()
    for row in rows:
        account, token = (get(row, name, "address") or get(row, f"{name}_address") for name in ("account", "token"))
        parts = (account, token, get(row, "balance"))
        name = get(row, "id")
        if name is None or (repr(name), repr(parts)) not in seen:
            expected.add(padded(account), padded(token), "total", parts[2])
        seen.add((repr(name), repr(parts)))
