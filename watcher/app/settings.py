"""The config file: TOML in, finished settings out, and for every mistake one line that says what to do.

Each provider declares its own keys and defaults as one Struct, found by the table's `type`; each kind of journal declares
its table, found by the scheme of its URLs.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any, Literal

import msgspec

from watcher.app import alert_settings, journals
from watcher.hints import settings as hint_settings
from watcher.hints.settings import HintSettings
from watcher.model.addresses import families
from watcher.model.alert_index import Alert
from watcher.providers import registry
from watcher.providers.settings import ProviderSettings
from watcher.redaction.redactor import SECRETS
from watcher.relay.settings import RelaySettings
from watcher.runtime import small_file
from watcher.runtime.config_section import Mistakes, SettingsError, nearest, probably, section
from watcher.webhooks import settings as webhook_settings
from watcher.webhooks.settings import WebhookSettings

FILE_BYTES = 64 * 1024 * 1024
"""Of a config file: half a million watches."""
MOST_GAUGES = 10_000
"""Each is three hundred bytes of a scrape, which is made in one go."""
MOST_SECONDS = 1e11
"""Three thousand years."""
OTHER_TABLES = ("relay", "providers", "hints", "alert", "webhook")
"""Those of ours: a journal's own is called like its plug-in."""
PROVIDER_NAME = re.compile(r"[A-Za-z0-9_-]+")


class TopLevel(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that stand in no table."""

    journal: str = "sqlite:///var/balances.db"
    encoding: Literal["json", "msgpack"] = "json"
    retention: float = 604800.0
    """Seconds that events are kept."""
    checkpoints: float | Literal["forever"] = "forever"
    """Seconds that the balances at the end of each day are kept."""
    metrics_port: int | None = None
    balance_gauges: int = 0
    """How many balances `/metrics` has, at most."""

    @property
    def checkpoint_seconds(self) -> float:
        """inf: for ever."""
        return inf if self.checkpoints == "forever" else self.checkpoints


class Settings(TopLevel, frozen=True, kw_only=True):
    """A whole config file, checked."""

    journal_settings: msgspec.Struct | None = None
    """The table of the journal that `journal` names; None: it has none."""
    relay: RelaySettings = RelaySettings()
    providers: dict[str, ProviderSettings] = {}
    hints: tuple[HintSettings, ...] = ()
    alerts: tuple[Alert, ...] = ()
    webhooks: tuple[WebhookSettings, ...] = ()


def load(path: Path) -> Settings:
    """Read and check a config file. Raises SettingsError with one line that says what to do."""
    return _load(path, small_file.read_once)


def load_again(path: Path) -> Settings:
    """For a reload. Raises SettingsError, for a pipe too: it was read, and could be waited at for ever."""
    return _load(path, small_file.read)


def _load(path: Path, read: Callable[[Path, int], bytes]) -> Settings:
    try:
        text = read(path, FILE_BYTES).decode("utf-8")
    except FileNotFoundError:
        step = "name one with -c FILE, or start from the sample: `watcher sample` prints config/watcher.toml"
        raise SettingsError(f"no config file at {path}: {step}", next_step=step) from None
    except small_file.Pipe:
        step = "name a file with -c to reload it"
        raise SettingsError(f"{path} is a pipe, which can be read only once: {step}", next_step=step) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", next_step="look at its rights and contents") from error
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a bare ValueError
        raise SettingsError(f"{path} is not valid TOML: {error}", next_step="mend it there") from error
    return parse(table)


def parse(table: Mapping[str, Any]) -> Settings:
    """Settings from a decoded config file. Raises SettingsError."""
    families()  # a chain's plug-in that cannot be loaded is reported here, and not by whoever first needs an address
    kinds = journals.known()
    tables = {scheme: kind.Settings for scheme, kind in kinds.items() if kind.Settings is not None}
    if taken := {*TopLevel.__struct_fields__, *OTHER_TABLES} & kinds.keys():
        raise SettingsError(f"the journal plugin {min(taken)} has the name of a key of ours: rename or uninstall it")
    mistakes = Mistakes()
    _note_unknown_top(table, (*TopLevel.__struct_fields__, *OTHER_TABLES, *tables), mistakes)
    top, relay = TopLevel(), RelaySettings()
    with mistakes.gathered():
        top = _top_level(table)
    own: dict[str, msgspec.Struct] = {}
    for scheme, kind in tables.items():
        with mistakes.gathered():
            own[scheme] = section(table.get(scheme, {}), kind, scheme)
    scheme = top.journal.partition("://")[0]
    with mistakes.gathered():
        plugin = journals.plugin_of(top.journal, kinds)
        if scheme in own or scheme not in tables:
            plugin.check(top.journal, own.get(scheme))
    with mistakes.gathered():
        relay = section(table.get("relay", {}), RelaySettings, "relay")
        relay.check()
    providers = _providers(table.get("providers", {}), mistakes)
    lists = _lists(table, mistakes)
    mistakes.raise_any()
    # Our own messages tell these; a token that is called like the service or its folder must not withhold them.
    SECRETS.allow([top.journal, *providers])
    return Settings(
        **msgspec.structs.asdict(top),
        journal_settings=own.get(scheme),
        relay=relay,
        providers=providers,
        **lists,
    )


def _lists(table: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """Of what is written as `[[…]]`, by the field of Settings."""
    found = {}
    for field, key, parse_all in (
        ("hints", "hints", hint_settings.parse),
        ("alerts", "alert", alert_settings.parse),
        ("webhooks", "webhook", webhook_settings.parse),
    ):
        with mistakes.gathered():
            found[field] = parse_all(table.get(key, []))
    return found


def _note_unknown_top(table: Mapping[str, Any], right: tuple[str, ...], mistakes: Mistakes) -> None:
    for key in table:
        if key not in right:
            mistakes.add(SettingsError(f"unknown key `{key}` at the top level{nearest(key, right)}", where=key))


def _top_level(table: Mapping[str, Any]) -> TopLevel:
    mistakes = Mistakes()
    given = {key: table[key] for key in TopLevel.__struct_fields__ if key in table}
    if given.get("encoding", "json") not in ("json", "msgpack"):
        what = f"encoding = {given.pop('encoding')!r}"
        mistakes.add(SettingsError(f"{what}: write json or msgpack", where="encoding"))
    if not _is_checkpoints(given.get("checkpoints", "forever")):
        what = f"checkpoints = {given.pop('checkpoints')!r}"
        mistakes.add(SettingsError(f'{what}: write "forever" or a number of seconds', where="checkpoints"))
    with mistakes.gathered():
        top = section(given, TopLevel, "")
        if not 0 < top.retention < float("inf"):
            mistakes.add(SettingsError("retention is no number of seconds above 0: write one", where="retention"))
        if top.metrics_port is not None and not 0 <= top.metrics_port <= 65535:
            what = f"metrics_port = {top.metrics_port}"
            mistakes.add(SettingsError(f"{what}: a port is a number from 0 to 65535", where="metrics_port"))
        if not 0 <= top.balance_gauges <= MOST_GAUGES:
            what = f"balance_gauges = {top.balance_gauges}"
            mistakes.add(SettingsError(f"{what}: a number of balances from 0 to {MOST_GAUGES}", where="balance_gauges"))
    mistakes.raise_any()
    return top


def _is_checkpoints(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value == "forever"
    return 0 < value <= MOST_SECONDS


def _providers(tables: Any, mistakes: Mistakes) -> dict[str, ProviderSettings]:
    if not isinstance(tables, dict):
        mistakes.add(SettingsError("`providers` must hold tables: write [providers.NAME]", where="providers"))
        return {}
    found = {}
    for name, table in tables.items():
        with mistakes.gathered():
            found[name] = _provider(name, table)
    return found


def _provider(name: str, table: Any) -> ProviderSettings:
    where = f"providers.{name}"
    if not PROVIDER_NAME.fullmatch(name):
        what = f"[{where}]: no name of a provider: write letters, digits, `-` and `_`"
        raise SettingsError(what, where="providers")
    if not isinstance(table, dict):
        raise SettingsError(f"`{where}` must be a table: write [{where}]", where=where)
    kind = table.get("type", name)
    known = registry.known()
    if not isinstance(kind, str) or kind not in known:
        raise SettingsError(
            f'[{where}]: no provider type {kind!r}; write type = "…" with one of {", ".join(sorted(known))}'
            + probably(str(kind), known),
            where=where,
        )
    return section({"type": kind, **table}, known[kind].Settings, where)
