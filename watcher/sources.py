"""The configured providers, each with its key."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from watcher import providers
from watcher.providers.provider import Provider, ProviderSettings, SettingsError
from watcher.settings import Settings


class Source(msgspec.Struct, frozen=True):
    """One configured provider and its key, which is never shown."""

    provider: Provider
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Source({self.provider.name})"


def sources(config: Settings, environment: Mapping[str, str]) -> list[Source]:
    """All providers of the config with their keys. Raises SettingsError."""
    if not config.providers:
        raise SettingsError(
            "no provider is configured: add a [providers.NAME] table, as in config/watcher.toml (`watcher sample` prints it)"
        )
    known = providers.known()
    found = []
    for name, table in config.providers.items():
        secret = secret_of(name, table, environment)
        found.append(Source(known[table.type](name, table, keyed=secret is not None), secret))
    return found


def secret_of(name: str, table: ProviderSettings, environment: Mapping[str, str]) -> str | None:
    """The key of one provider; None when none is configured. Raises SettingsError for one that is named but empty."""
    if table.api_key_env is not None:
        secret = environment.get(table.api_key_env, "").strip()
        if not secret:
            raise SettingsError(
                f"[providers.{name}]: api_key_env names {table.api_key_env}, which is not set: export {table.api_key_env}=…"
            )
        return secret
    if table.api_key_file is None:
        return None
    try:
        secret = Path(table.api_key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"[providers.{name}]: api_key_file cannot be read: {error}") from None
    if not secret:
        raise SettingsError(f"[providers.{name}]: api_key_file {table.api_key_file} is empty")
    return secret
