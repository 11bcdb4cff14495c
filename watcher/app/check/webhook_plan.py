"""What is sent where, by the config; and whether the name of a receiver can be looked up and may be connected to."""

import contextlib
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from watcher.app.findings import Finding
from watcher.app.settings import Settings
from watcher.model.filters import may_match
from watcher.model.watches import WatchIndex
from watcher.webhooks.connections import look_up
from watcher.webhooks.settings import Webhook
from watcher.webhooks.targets import refusal

LOOKUP = 10.0
"""Seconds for one name."""


def webhook_line(webhook: Webhook) -> str:
    """As a line for people."""
    table = webhook.settings
    filtered = [name for name in (*table.wanted.__struct_fields__, "kind") if getattr(table, name) is not None]
    those = f", by {', '.join(filtered)}" if filtered else ""
    return f"webhook {webhook.title}: {' and '.join(table.events)}{those}, to {urlsplit(webhook.url).scheme}://{webhook.host}"


def useless_webhook(webhook: Webhook, watches: WatchIndex, config: Settings) -> Iterator[Finding]:
    """What is never sent."""
    where, table = f"webhook.{webhook.title}", webhook.settings
    if not may_match(table.wanted, watches):
        what = f"[[webhook]] {webhook.title} is sent nothing: no watch matches its filter"
        yield Finding("warning", where, what, "look at its provider, chain, account, token, label and tag")
    if table.events == ("crossed",) and not any(alert.unread_for is None for alert in config.alerts):
        what = f"[[webhook]] {webhook.title} is sent nothing: it takes crossings, and no [[alert]] makes any"
        yield Finding("warning", where, what, 'write an [[alert]] with below or above, or events = ["changed"]')


async def unreachable(webhooks: Sequence[Webhook]) -> list[Finding]:
    """Those whose host has no address now, or none that is connected to. Nothing is sent."""
    found: list[Finding] = []

    async def look(webhook: Webhook) -> None:
        where = f"webhook.{webhook.title}"
        addresses: list[str] = []
        with anyio.move_on_after(LOOKUP):
            with contextlib.suppress(OSError, UnicodeError):
                addresses = await anyio.to_thread.run_sync(look_up, webhook.host, 0, abandon_on_cancel=True)
        refusals = [
            refusal(one, allow_private=webhook.settings.allow_private, plain=webhook.plain) for one in addresses
        ]
        if not addresses:
            what = f"[[webhook]] {webhook.title}: the host name cannot be resolved"
            found.append(Finding("warning", where, what, "look at its url; events wait until it can be"))
        elif all(refusals):
            words, _, step = str(refusals[0]).partition(": ")
            what = f"[[webhook]] {webhook.title}: the address is refused: {words}"
            found.append(Finding("warning", where, what, step or "name a host that others can reach"))

    async with anyio.create_task_group() as tasks:
        for webhook in webhooks:
            tasks.start_soon(look, webhook)
    return sorted(found, key=lambda finding: finding.where)
