"""The kinds of journal: ours, and whoever stands in the entry point group `balance_watcher.journals`.

An entry point's name is the scheme of the URLs that it opens, and of its table in the config; its value is a
`JournalPlugin`, or a class without arguments that makes one.
"""

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from watcher.journal import INTERFACE, JournalPlugin
from watcher.journal.kafka import plugin as kafka
from watcher.journal.sqlite import plugin as sqlite
from watcher.redaction.safe_text import one_line
from watcher.redaction.secret import without_user
from watcher.runtime.config_section import SettingsError

GROUP = "balance_watcher.journals"
BUILT_IN: Mapping[str, JournalPlugin] = {"sqlite": sqlite.PLUGIN, "kafka": kafka.PLUGIN}
PARTS = ("Settings", "example", "check", "open", "private_files")
"""Of a JournalPlugin."""
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


def known() -> Mapping[str, JournalPlugin]:
    """Every kind of journal by its scheme; ours cannot be replaced. Raises SettingsError for one that cannot be loaded, or is none."""
    return {**BUILT_IN, **{point.name: _loaded(point) for point in entry_points(group=GROUP)}, **BUILT_IN}


def _loaded(point: EntryPoint) -> JournalPlugin:
    where = f"the journal plugin {point.name} = {point.value}"
    if not SCHEME.fullmatch(point.name):
        raise SettingsError(f"{where}: its name is no scheme of a URL: rename or uninstall it")
    try:
        found = point.load()
        plugin: JournalPlugin = found() if isinstance(found, type) else found
    except Exception as error:  # whatever its code raises
        raise SettingsError(
            f"{where} cannot be loaded ({one_line(str(error), 300)}): repair or uninstall it"
        ) from error
    if lacks := [part for part in PARTS if not hasattr(plugin, part)]:
        raise SettingsError(f"{where} is no JournalPlugin (it has no {', '.join(lacks)}): repair or uninstall it")
    if (written_for := getattr(plugin, "interface", 1)) != INTERFACE:
        older = isinstance(written_for, int) and written_for < INTERFACE
        raise SettingsError(
            f"{where} is written for interface {one_line(str(written_for), 20)} of journals, and this version has "
            f"{INTERFACE}: upgrade {'or uninstall it' if older else 'watcher'}"
        )
    if plugin.Settings is not None:
        try:
            plugin.Settings()
        except TypeError as error:
            raise SettingsError(f"{where}: its Settings lack a default ({error}): repair or uninstall it") from error
    return plugin


def plugin_of(url: str, kinds: Mapping[str, JournalPlugin]) -> JournalPlugin:
    """The kind of journal that a URL names. Raises SettingsError."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in kinds:
        raise SettingsError(
            f"journal = {without_user(url)!r}: write {' or '.join(kind.example for kind in kinds.values())}"
        )
    if scheme not in BUILT_IN and "@" in rest.partition("/")[0]:  # the log tells where the journal stands
        raise SettingsError(
            f"journal = {without_user(url)!r}: no user or password stands in it: its table [{scheme}] names where they are"
        )
    return kinds[scheme]
