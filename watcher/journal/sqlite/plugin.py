"""`journal = "sqlite:///FILE"`: the journal that needs nothing set up."""

from collections.abc import Iterator

import msgspec

from watcher.journal import JournalOptions, JournalPlugin, PrivateFile
from watcher.journal.sqlite.journal import SqliteJournal, path_of
from watcher.runtime.config_section import SettingsError


class SqlitePlugin:
    """The `JournalPlugin` of `sqlite:///`. It has no table."""

    Settings: type[msgspec.Struct] | None = None
    interface = 2
    example = "sqlite:///FILE (four slashes for an absolute path)"

    def check(self, url: str, _settings: None) -> None:
        if not url.startswith("sqlite:///") or not path_of(url).name or "\0" in url:
            raise SettingsError(f"journal = {url!r}: write {self.example}")

    def open(self, options: JournalOptions, _settings: None) -> SqliteJournal:
        return SqliteJournal(
            path_of(options.url),
            encoding=options.encoding,
            retention=options.retention,
            clock=options.clock,
            boottime=options.boottime,
            checkpoints=options.checkpoints,
        )

    def private_files(self, url: str, _settings: None) -> Iterator[PrivateFile]:
        path = path_of(url)
        for side in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            yield PrivateFile("journal", side, unless="if no relay of another user reads it")


PLUGIN: JournalPlugin = SqlitePlugin()
