"""The kinds of journal: ours, and whoever stands in the entry point group `balance_watcher.journals`.

An entry point's name is the scheme of the URLs that it opens, and of its table in the config; its value is a
`JournalPlugin`, or a class without arguments that makes one.
"""

import re
from collections.abc import Mapping
from importlib.metadata import entry_points

from watcher.journal import JournalPlugin
from watcher.journal.kafka import plugin as kafka
from watcher.journal.sqlite import plugin as sqlite
from watcher.redaction.secret import without_user
from watcher.runtime.config_section import SettingsError

GROUP = "balance_watcher.journals"
BUILT_IN: Mapping[str, JournalPlugin] = {"sqlite": sqlite.PLUGIN, "kafka": kafka.PLUGIN}
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


def known() -> Mapping[str, JournalPlugin]:
    """Every kind of journal by its scheme; ours cannot be replaced. Raises SettingsError for one that cannot be loaded."""
    plugins: dict[str, JournalPlugin] = {}
    for point in entry_points(group=GROUP):
        where = f"the journal plugin {point.name} = {point.value}"
        if not SCHEME.fullmatch(point.name):
            raise SettingsError(f"{where}: its name is no scheme of a URL: rename or uninstall it")
        try:
            found = point.load()
            plugins[point.name] = found() if isinstance(found, type) else found
        except (ImportError, AttributeError, TypeError) as error:
            raise SettingsError(f"{where} cannot be loaded ({error}): repair or uninstall it") from error
    return {**BUILT_IN, **plugins, **BUILT_IN}


def plugin_of(url: str, kinds: Mapping[str, JournalPlugin]) -> JournalPlugin:
    """The kind of journal that a URL names. Raises SettingsError."""
    scheme, colon, _ = url.partition("://")
    if not colon or scheme not in kinds:
        raise SettingsError(
            f"journal = {without_user(url)!r}: write {' or '.join(kind.example for kind in kinds.values())}"
        )
    return kinds[scheme]
