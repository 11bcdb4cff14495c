"""What `check` finds: how bad it is, where, what it is, and what to do."""

import re
from typing import Literal

import msgspec

from watcher.runtime.config_section import SettingsError

Severity = Literal["error", "warning", "info"]

_PLACE = re.compile(r"\[(?P<table>[\w.-]+(?:\[\d+\])?)\](?: (?P<key>\w+))?")
"""How a message of ours begins: `[relay] port = …`, `[providers.helius]: …`."""


class Finding(msgspec.Struct, frozen=True):
    """One line for people, in parts for programs."""

    severity: Severity
    where: str
    """A place in the config ("providers.helius.watch[2].account"), or what of this machine it is about ("journal")."""
    what: str
    next_step: str | None = None

    @property
    def line(self) -> str:
        return self.what if self.next_step is None else f"{self.what}: {self.next_step}"

    @classmethod
    def of(cls, severity: Severity, text: str, *, where: str | None = None, next_step: str | None = None) -> "Finding":
        """Of a message as we write them: `[table] key …`, what it is, a colon, what to do."""
        what, colon, step = text.rpartition(": ")
        if next_step is not None:
            what, step = text.removesuffix(f": {next_step}"), next_step
        elif not colon:
            what, step = text, ""
        if where is None and (place := _PLACE.match(text)):
            where = ".".join(filter(None, (place["table"], place["key"])))
        return cls(severity, where or "config", what, step or None)

    @classmethod
    def mistake(cls, error: SettingsError) -> "Finding":
        """Of one mistake in the config."""
        return cls.of("error", str(error), where=error.where, next_step=error.next_step)
