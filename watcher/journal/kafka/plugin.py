"""`journal = "kafka://HOST:PORT,…"`, with the table `[kafka]`."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from watcher.journal import JournalOptions, JournalPlugin, PrivateFile
from watcher.journal.kafka.journal import KafkaJournal
from watcher.journal.kafka.settings import KafkaSettings, require_valid
from watcher.redaction.secret import without_user
from watcher.runtime.config_section import SettingsError


class KafkaPlugin:
    """The `JournalPlugin` of `kafka://`."""

    Settings: type[msgspec.Struct] | None = KafkaSettings
    interface = 2
    example = "kafka://HOST:PORT"

    def check(self, url: str, settings: KafkaSettings) -> None:
        if (shown := without_user(url)) != url:
            raise SettingsError(
                f"journal = {shown!r}: no user, password or option stands in it: write {self.example}, and name the "
                "password's place in [kafka] with sasl_password_env or sasl_password_file"
            )
        for server in servers_of(url):
            host, colon, port = server.rpartition(":")
            if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                raise SettingsError(f"journal = {url!r}: {server!r} is no HOST:PORT: write {self.example}")
        require_valid(settings)

    def open(self, options: JournalOptions, settings: KafkaSettings) -> KafkaJournal:
        return KafkaJournal(
            servers_of(options.url),
            settings,
            environ=options.environment,
            encoding=options.encoding,
            retention=options.retention,
            clock=options.clock,
            boottime=options.boottime,
            group=settings.group or "",
            checkpoints=options.checkpoints,
        )

    def private_files(self, _url: str, settings: KafkaSettings) -> Iterator[PrivateFile]:
        for name in ("sasl_password_file", "sasl_oauth_client_secret_file", "ssl_keyfile"):
            if (file := getattr(settings, name)) is not None:
                yield PrivateFile(f"[kafka] {name}", Path(file))


def servers_of(url: str) -> list[str]:
    """`host:port` of each server that the URL names."""
    return [server.strip() for server in url.removeprefix("kafka://").split(",")]


PLUGIN: JournalPlugin = KafkaPlugin()
