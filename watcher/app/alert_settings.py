"""The `[[alert]]` tables of the config."""

from decimal import Decimal
from typing import Any

import msgspec

from watcher.model import filters
from watcher.model.alert_index import Alert, Side
from watcher.model.amounts import AmountError, canonical
from watcher.model.filters import FilterError
from watcher.model.keys import KINDS, Filter
from watcher.redaction.redactor import SECRETS
from watcher.runtime.config_section import Mistakes, SettingsError, section

MOST_ALERTS = 10_000
LONGEST_NAME = 64
MOST_DECIMALS = 77
"""A u256 has 78 digits."""
LONGEST_UNREAD = 10 * 366 * 86400.0

Words = str | list[str]


class AlertTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table as it stands in the file."""

    name: str
    below: Any = None
    above: Any = None
    clear: Any = None
    decimals: int | None = None
    unread_for: float | None = None
    provider: Words | None = None
    chain: Words | None = None
    account: Words | None = None
    token: Words | None = None
    kind: Words | None = None
    label: Words | None = None
    tag: Words | None = None


def parse(tables: Any) -> tuple[Alert, ...]:
    """`tables`: what the config has as `alert`. Raises SettingsError for each mistake."""
    if not isinstance(tables, list):
        raise SettingsError("`alert` must hold tables: write [[alert]] before each", where="alert")
    if len(tables) > MOST_ALERTS:
        what = f"{len(tables):,} alerts are more than {MOST_ALERTS:,}"
        raise SettingsError(f"{what}: let one speak of several balances, by a list, a label or a tag", where="alert")
    found: dict[str, Alert] = {}
    mistakes = Mistakes()
    for number, table in enumerate(tables):
        with mistakes.gathered():
            one = _alert(table, f"alert[{number}]")
            if one.name in found:
                raise SettingsError(
                    f"[[alert]]: two alerts are called {one.name!r}: give one of them another name",
                    where=f"alert[{number}].name",
                )
            found[one.name] = one
    mistakes.raise_any()
    SECRETS.allow(found)  # log lines tell them, whatever a key has in common with them
    return tuple(found.values())


def _alert(table: Any, where: str) -> Alert:
    if not isinstance(table, dict):
        raise SettingsError(f"`{where}` must be a table: write [[alert]] before it", where=where)
    if "name" not in table:
        raise SettingsError(f'[{where}] lacks its name: write name = "…"', where=f"{where}.name")
    raw = section(table, AlertTable, where)
    mistakes = Mistakes()
    with mistakes.gathered():
        _check_name(raw.name, where)
    kind = side = None
    wanted, threshold, clear = Filter(), "0", "0"
    with mistakes.gathered():
        wanted = _filter(raw, where)
    with mistakes.gathered():
        kind = _kinds(raw.kind, where)
    with mistakes.gathered():
        side = _side(raw, where)
        threshold, clear = _amounts(raw, side, where)
    mistakes.raise_any()
    return Alert(raw.name, side, threshold, clear, raw.decimals, raw.unread_for, wanted, kind)


def _check_name(name: str, where: str) -> None:
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        what = f"[{where}] name = {name[:LONGEST_NAME]!r}: write 1 to {LONGEST_NAME} printable characters, no space around them"
        raise SettingsError(what, where=f"{where}.name")


def _side(raw: AlertTable, where: str) -> Side | None:
    """None: it asks whether a balance is read."""
    given = [name for name in ("below", "above", "unread_for") if getattr(raw, name) is not None]
    if len(given) != 1:
        what = "says not when it fires" if not given else f"has {' and '.join(given)}"
        raise SettingsError(f"[{where}] {what}: write one of below, above and unread_for", where=where)
    if given == ["unread_for"]:
        _check_unread(raw, where)
        return None
    if raw.decimals is not None and not 0 <= raw.decimals <= MOST_DECIMALS:
        what = f"[{where}] decimals = {raw.decimals}: write those of the token, from 0 to {MOST_DECIMALS}"
        raise SettingsError(what, where=f"{where}.decimals")
    return "below" if given == ["below"] else "above"


def _check_unread(raw: AlertTable, where: str) -> None:
    if raw.unread_for is None or not 0 < raw.unread_for <= LONGEST_UNREAD:
        raise SettingsError(
            f"[{where}] unread_for is no number of seconds above 0: write one", where=f"{where}.unread_for"
        )
    for key in ("clear", "decimals", "kind"):
        if getattr(raw, key) is not None:
            what = f"[{where}] has {key} beside unread_for, which asks for no amount: leave it out"
            raise SettingsError(what, where=f"{where}.{key}")


def _amounts(raw: AlertTable, side: Side | None, where: str) -> tuple[str, str]:
    """Threshold and `clear`, canonical."""
    if side is None:
        return "0", "0"
    threshold = _amount(getattr(raw, side), f"{where}", side)
    clear = threshold if raw.clear is None else _amount(raw.clear, where, "clear")
    wrong = Decimal(clear) < Decimal(threshold) if side == "below" else Decimal(clear) > Decimal(threshold)
    if wrong:
        other = "at least" if side == "below" else "at most"
        what = f"[{where}] clear = {clear!r} lies on the wrong side of {side} = {threshold!r}: write {other} that"
        raise SettingsError(what, where=f"{where}.clear")
    alert = Alert(raw.name, side, threshold, clear, raw.decimals)
    try:
        alert.rule("base")
    except (AmountError, ArithmeticError):
        what = f"[{where}] {side} with {raw.decimals} decimals has more than 100 digits: look at both"
        raise SettingsError(what, where=f"{where}.{side}") from None
    if alert.rule("decimal").limit == 0 and side == "below":
        raise SettingsError(
            f"[{where}] below = '0' never fires, since no balance is negative: write more", where=f"{where}.below"
        )
    return threshold, clear


def _amount(value: Any, where: str, key: str) -> str:
    if isinstance(value, str):
        try:
            if value.isascii() and not set(value) & set("_ \t\n"):
                return canonical(value)
        except AmountError:
            pass
        what = f'[{where}] {key} = {value[:60]!r} is no exact decimal amount: write digits, as in {key} = "1500.25"'
    elif isinstance(value, int | float) and not isinstance(value, bool):
        what = f'[{where}] {key} is a number, which may be rounded: write it in quotes, as in {key} = "{value}"'
    else:
        what = f'[{where}] {key} is no amount: write it in quotes, as in {key} = "1500.25"'
    raise SettingsError(what, where=f"{where}.{key}")


def _filter(raw: AlertTable, where: str) -> Filter:
    given = {name: _listed(value) for name in filters.FIELDS if (value := getattr(raw, name)) is not None}
    for name, values in given.items():
        if not values or not all(values):
            what = f"[{where}] {name} names nothing: write what it is to speak of, or leave it out to mean any"
            raise SettingsError(what, where=f"{where}.{name}")
    try:
        filters.require_chains(given.get("chain", ()))
    except FilterError as error:
        raise SettingsError(f"[{where}]: {error}", where=f"{where}.chain") from None
    return filters.parse(given)


def _kinds(value: Words | None, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    given = _listed(value)
    if not given or not KINDS.issuperset(given):
        what = f"[{where}] kind = {value!r}: write any of {', '.join(sorted(KINDS))}"
        raise SettingsError(what, where=f"{where}.kind")
    return tuple(sorted(set(given)))


def _listed(value: Words) -> list[str]:
    return [value] if isinstance(value, str) else value
