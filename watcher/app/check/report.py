"""What is found, gathered: told as lines while it is found, or as one JSON document at the end."""

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import anyio
import msgspec

from watcher.app.check.plan import SweepPlan
from watcher.app.exit_status import Exit, exit_for
from watcher.app.findings import Finding, Severity
from watcher.limits.windows import Limit
from watcher.model.log import JournalError
from watcher.providers.protocol import Provider
from watcher.redaction import safe_text
from watcher.runtime.config_section import SettingsError

T = TypeVar("T")


class AnsweredBalance(msgspec.Struct, frozen=True):
    """One balance of an answer."""

    chain: str
    account: str
    token: str
    symbol: str | None
    kind: str
    amount: str
    unit: str


class ProviderReport(msgspec.Struct):
    """One provider in the JSON document."""

    provider: str
    type: str
    watches: int
    requests: int
    """That read every watch once."""
    interval: float
    """Seconds between two readings of one watch, on average."""
    binding_limit: Limit
    cost: float
    share: float
    asked: int = 0
    """Requests that were sent."""
    balances: list[AnsweredBalance] = []
    """What they told."""


class AlertReport(msgspec.Struct, frozen=True):
    """One alert in the JSON document."""

    alert: str
    watches: int
    """That it speaks of: balances and listings."""


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `check --json` prints."""

    ok: bool
    """No finding is an error."""
    status: int
    """The exit status."""
    findings: list[Finding]
    providers: list[ProviderReport]
    """Of each that could be built; empty while the config is wrong."""
    alerts: list[AlertReport] = []
    """Likewise; left out without one."""


class Report:
    """Everything that one `check` finds. With `json` nothing but the document goes to stdout."""

    def __init__(self, *, json: bool) -> None:
        self.findings: list[Finding] = []
        self.providers: dict[str, ProviderReport] = {}
        self.alerts: Mapping[str, int] = {}
        """Alert → of how many watches it speaks."""
        self._json = json
        self.exits: list[Exit] = []
        """Of errors for which `run` would not start."""
        self.answers: list[Exit] = []
        """Of providers that did not answer with balances."""

    @property
    def failed(self) -> bool:
        """`run` would not start."""
        return bool(self.exits)

    def say(self, line: str) -> None:
        """To people alone."""
        if not self._json:
            safe_text.print_line(line)

    def progress(self, line: str) -> None:
        """What is waited for: to people on stdout, beside the document on stderr."""
        safe_text.print_line(line, sys.stderr if self._json else None)

    def found(self, finding: Finding, status: int = 2, *, indent: str = "", line: str | None = None) -> None:
        """status: how the process ends for it, if it is an error. Errors are told at the end, each in a line of its own:
        `line`, or the finding's."""
        self.findings.append(finding)
        if finding.severity == "error":
            self.exits.append(Exit(status, line or finding.line))
        else:
            self.say(f"{indent}{'note' if finding.severity == 'info' else finding.severity}: {finding.line}")

    def tell(self, severity: Severity, text: str, where: str | None = None) -> None:
        self.found(Finding.of(severity, text, where=where))

    def tried(self, work: Callable[[], T], where: str) -> T | None:
        """What it gives; None when it fails as `run` would, with all that is wrong."""
        try:
            return work()
        except (SettingsError, JournalError, OSError) as error:
            self.failure(error, where)
            return None

    def failure(self, error: Exception, where: str) -> None:
        """What would end `run`. Raises the error itself when that is a bug."""
        if isinstance(error, SettingsError):
            for one in error.errors:
                self.found(Finding.mistake(one), line=str(one))
            return
        end = exit_for(error)
        self.found(Finding.of("error", end.message, where=where), end.status, line=end.message)

    def refused(self, name: str, reason: str, end: Exit) -> None:
        """A provider did not answer with balances. `reason`: in the provider's words."""
        self.say(f"{name}: {reason}")
        step = end.message.partition(": ")[2] if end.status != 69 else "look at its status page, and ask again later"
        self.findings.append(Finding("error", f"providers.{name}", f"{name}: {reason}", step))
        self.answers.append(end)

    def add(self, part: "HeldReport") -> None:
        """All that was found there, as if it were found now."""
        for line in part.lines:
            self.say(line)
        self.findings += part.findings
        self.exits += part.exits
        self.answers += part.answers

    def plan(self, provider: Provider, allowed: SweepPlan) -> None:
        self.providers[provider.name] = ProviderReport(
            provider.name,
            provider.settings.type,
            allowed.watches,
            allowed.calls,
            allowed.interval,
            allowed.binding,
            provider.cost,
            provider.settings.share,
        )

    def end(self) -> None:
        """Print the document, or nothing. Raises Exit with a line for each error, and the status of the first one that is not
        an answer; of answers the highest."""
        exits = [*self.exits, *self.answers]
        status = self.exits[0].status if self.exits else max((end.status for end in exits), default=0)
        if self._json:
            alerts = [AlertReport(name, watches) for name, watches in self.alerts.items()]
            self._print(Document(not exits, status, self.findings, list(self.providers.values()), alerts))
        if exits:
            raise Exit(status, "\n".join(end.message for end in exits))

    def _print(self, document: Document) -> None:
        print(safe_text.json_document(document))  # noqa: T201 (each of its lines is fit)


class HeldReport(Report):
    """What is found of one provider while others are asked beside it: it is told in its turn. What is waited for is told at once."""

    def __init__(self, whole: Report, *, json: bool) -> None:
        super().__init__(json=json)
        self.providers = whole.providers
        self.lines: list[str] = []
        """For people, in order."""
        self.complete = anyio.Event()
        """Set once nothing more is found."""

    def say(self, line: str) -> None:
        self.lines.append(line)
