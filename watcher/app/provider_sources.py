"""The configured providers, each with its key."""

from collections.abc import Mapping

import msgspec

from watcher.app.settings import Settings
from watcher.providers import registry
from watcher.providers.protocol import Credentials, Provider
from watcher.providers.settings import ProviderSettings
from watcher.redaction import secret
from watcher.redaction.secret import Secret
from watcher.runtime.config_section import SettingsError


class Source(msgspec.Struct, frozen=True):
    """One configured provider and its key, which is never shown."""

    provider: Provider
    secret: Secret | None = None

    def __repr__(self) -> str:
        return f"Source({self.provider.name})"

    def credentials(self) -> Credentials:
        """What the provider makes of the key."""
        return self.provider.credentials(None if self.secret is None else self.secret.reveal())


def sources(config: Settings, environment: Mapping[str, str]) -> list[Source]:
    """All providers of the config with their keys. Raises SettingsError."""
    if not config.providers:
        raise SettingsError(
            "no provider is configured: add a [providers.NAME] table, as in config/watcher.toml (`watcher sample` prints it)"
        )
    known = registry.known()
    found = []
    for name, table in config.providers.items():
        key = secret_of(name, table, environment)
        found.append(Source(registry.build(name, table, known, keyed=key is not None), key))
    return found


def secret_of(name: str, table: ProviderSettings, environment: Mapping[str, str]) -> Secret | None:
    """The key of one provider; None when none is configured. Raises SettingsError for one that cannot be used."""
    what, env, file = f"[providers.{name}]: api_key", table.api_key_env, table.api_key_file
    return secret.read(what, environment, env=env, file=file, judge=secret.key)
