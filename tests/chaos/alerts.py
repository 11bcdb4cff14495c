"""The alerts of a system under chaos: several on each balance, with thresholds among the amounts that balances have there."""

TAG = "watched-closely"
TAGGED = "tokenkit"
"""All watches of providers of this type have the tag."""
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
BASE = ("jupiter", "helius", "tokenkit")
"""Types of providers that speak in base units."""


def _of(tables, *types):
    return [name for name, table in tables.items() if table["type"] in types]


def tagged(tables):
    """Providers whose watches all have the tag."""
    return _of(tables, TAGGED)


def with_tags(tables):
    """The `[providers.NAME]` tables, and the tag in them."""
    marked = tagged(tables)
    return {
        name: {**table, "watch": [{**watch, "tags": [TAG]} for watch in table["watch"]]} if name in marked else table
        for name, table in tables.items()
    }


def alerts(tables):
    """`[[alert]]` tables for those providers. The amounts of a population are of every size, so each of a ladder of
    thresholds is crossed by some; a gap before `clear` holds others back."""
    ondo = _of(tables, "ondo")
    ladder = [
        {"name": f"ondo below {limit}", "provider": ondo, "below": limit, **more}
        for limit, more in (("0.5", {}), ("5", {"clear": "7.5"}), ("20", {}), ("60.25", {"clear": "90"}))
    ]
    return [
        *ladder,
        {"name": "ondo above", "provider": ondo, "above": "150", "clear": "120.000000000000000001"},
        {"name": "empty", "below": "0.000000000000000001"},
        {"name": "base", "provider": _of(tables, *BASE), "above": "10", "decimals": 6, "clear": "9"},
        {"name": "settled", "kind": "settled", "below": "1000", "clear": "1500"},
        {"name": "total or orders", "kind": ["total", "open_orders"], "above": "300", "decimals": 9},
        {"name": "usdc", "token": USDC, "below": "2500.5", "decimals": 6},
        {"name": "tagged", "tag": TAG, "below": "50", "decimals": 18, "clear": "50.5"},
        {"name": "starknet", "chain": "starknet:SN_MAIN", "above": "1", "decimals": 18},
        {"name": "nobody", "account": "nobody", "below": "1000000"},
    ]
