"""The `[relay]` table of the config, and the fixed quantities of the protocol."""

import ipaddress

import msgspec

from watcher.redaction.secret import without_user
from watcher.runtime.config_section import SettingsError
from watcher.runtime.web_address import is_web_address


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[relay]` table."""

    host: str = "127.0.0.1"
    port: int = 8765
    tokens_env: str | None = None
    """Name of the variable that holds plain tokens, separated by commas, each with all rights."""
    tokens_file: str | None = None
    """TOML: `[[token]] sha256 = "…"`, perhaps with a `name`, narrowed by `provider`, `chain`, `account`, `token` lists."""
    max_connections: int = 10_000
    origins: list[str] = []
    """Browser origins allowed besides the relay's own, such as `https://desk.example`."""
    certificate: str | None = None
    key: str | None = None

    def check(self) -> None:
        """Raises SettingsError."""
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"[relay] port = {self.port}: a port is a number from 0 to 65535")
        if self.max_connections < 1:
            raise SettingsError(f"[relay] max_connections = {self.max_connections}: write 1 or more")
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("[relay] certificate and key belong together: name both PEM files, or neither")
        for origin in self.origins:
            if not is_web_address(origin) or origin.endswith("/") or without_user(origin) != origin:
                raise SettingsError(
                    f"[relay] origins holds {without_user(origin)!r}: write scheme and host only, as in https://desk.example"
                )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. Raises ValueError for a name."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


class RelayTuning(msgspec.Struct, frozen=True):
    """The protocol's times (seconds) and sizes. Tests shorten them; the config does not."""

    heartbeat: float = 15.0
    first_heartbeat: float = 0.5
    """After a client has come, who wants to know soon how the providers are."""
    news: float = 2.0
    """Between two heartbeats that come early, because the state of a provider is another one."""
    ping: float = 20.0
    auth: float = 5.0
    """For the first `auth` command."""
    upgrade: float = 10.0
    stall: float = 15.0
    """The kernel took no byte for so long while something was pending."""
    stuck: float = 60.0
    """A replaying connection came no nearer to the head for so long."""
    stuck_events: int = 100_000
    """It fell so much further behind than it was when it left the live path."""
    close_timeout: float = 2.0
    """Between a close frame and the abort."""
    sweep: float = 0.1
    """Between two looks at the connections that do not drain."""
    reconnect: float = 1.0
    """What `shutdown` advises."""
    outbox_bytes: int = 256 * 1024
    """That may wait for a connection on the live path."""
    conflated_bytes: int = 4 * 1024 * 1024
    """Of latest values that a conflating connection may have pending before it reads the log instead."""
    replay_bytes: int = 64 * 1024
    """That a replay puts into an outbox before it waits until that is empty."""
    page: int = 500
    """Rows of a snapshot in one push."""
