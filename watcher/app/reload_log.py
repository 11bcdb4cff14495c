"""What a reload came to, in one line of the log."""

import structlog

from watcher.app.reload import Difference, in_environment
from watcher.journal import WrongJournal
from watcher.runtime.config_section import SettingsError

log = structlog.get_logger()


def log_refusal(error: SettingsError | WrongJournal) -> None:
    log.error("config.reloaded", result="refused", reason="; ".join(str(error).splitlines()), changed="nothing")


def log_reload(change: Difference) -> None:
    """One line, without what there is none of."""
    config = change.wanted.config
    parts = {
        "added": change.added,
        "removed": change.removed,
        "changed": change.changed,
        "keys_renewed": change.renewed,
        "watches_added": dict(change.watches_added),
        "watches_removed": dict(change.watches_removed),
        "relay": change.relay and "tokens and origins",
        "names": change.named and "labels and tags",
        "hints_added": change.hints_added,
        "hints_removed": change.hints_removed,
        "hints_changed": change.hints_changed,
        "alerts_added": change.alerts_added,
        "alerts_removed": change.alerts_removed,
        "alerts_changed": change.alerts_changed,
        "webhooks_added": change.webhooks_added,
        "webhooks_removed": change.webhooks_removed,
        "webhooks_changed": change.webhooks_changed,
        "needs_restart": change.needs_restart,
        "cannot_change_in_the_environment": in_environment(config),
    }
    log.info("config.reloaded", result=change.result, **{name: part for name, part in parts.items() if part})
