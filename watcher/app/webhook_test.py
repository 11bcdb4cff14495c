"""`watcher webhook test`: one signed event to each webhook, as the daemon would send it, and what came of it."""

import secrets
from collections.abc import Mapping, Sequence

import msgspec

from watcher.app.daemon import wall
from watcher.app.exit_status import Exit
from watcher.app.settings import Settings
from watcher.app.webhook_runs import receiver_of, webhooks_of
from watcher.model.times import format_rfc3339
from watcher.model.watches import NOT_KNOWN
from watcher.redaction import safe_text
from watcher.runtime.config_section import SettingsError, probably
from watcher.webhooks.figures import WebhookFigures
from watcher.webhooks.sender import Attempt, Message
from watcher.webhooks.settings import Webhook

TYPE = "webhook.test"
HELP: Mapping[int, str] = {
    400: "the receiver does not take the body: look at its own log",
    401: "the receiver refuses the signature: give it the same secret, and set both clocks right",
    403: "the receiver refuses the signature: give it the same secret, and set both clocks right",
    404: "nothing is there: look at the path of the url",
    405: "it takes no POST: look at the path of the url",
    410: "the receiver is gone: `run` sends nothing more to it until its table is changed",
    413: "it takes no body of that size: raise its limit",
    429: "it has too much to do: `run` tries again as it asks",
}


async def test(config: Settings, environment: Mapping[str, str], name: str | None) -> None:
    """Raises Exit: 2 where there is no such webhook, 69 when one did not take the event."""
    wanted = _wanted(config, environment, name)
    failed = 0
    for webhook in wanted:
        attempt = await _send(webhook)
        safe_text.print_line(f"{webhook.title}: {attempt_words(attempt)}")
        failed += attempt.problem is not None
    if failed:
        raise Exit(69, f"{failed} of {len(wanted)} webhooks did not take the test event")


def _wanted(config: Settings, environment: Mapping[str, str], name: str | None) -> Sequence[Webhook]:
    names = [table.title for table in config.webhooks]
    if not names:
        raise SettingsError("the config has no [[webhook]]: write one, as in docs/webhooks.md")
    if name is not None and name not in names:
        raise SettingsError(f"no webhook is called {name!r}; there is {', '.join(names)}{probably(name, names)}")
    # The others' secrets need not be here.
    kept = tuple(table for table in config.webhooks if name in (None, table.title))
    return webhooks_of(msgspec.structs.replace(config, webhooks=kept), environment, polls=True)


def message(webhook: Webhook) -> Message:
    """A test event: of a type of its own, so that no receiver takes it for a balance."""
    made = {"type": TYPE, "timestamp": format_rfc3339(wall()), "data": {"webhook": webhook.title}}
    return Message(f"test-{secrets.token_hex(16)}", msgspec.json.encode(made))


async def _send(webhook: Webhook) -> Attempt:
    receiver = receiver_of(webhook, WebhookFigures(webhook.title), NOT_KNOWN, wall)
    async with receiver.sender() as sender:
        return await sender.send(message(webhook))


def attempt_words(attempt: Attempt) -> str:
    """In one line: the status, the time it took, and what to do."""
    took = f"in {attempt.seconds:.3f} s"
    if attempt.problem is None:
        return f"status {attempt.status} {took}"
    if attempt.status is None:
        return f"not delivered, {took}: {attempt.problem}"
    if step := HELP.get(attempt.status):
        return f"status {attempt.status} {took}: {step}"
    if attempt.status >= 500:
        return f"status {attempt.status} {took}: the receiver has a fault: look at its own log"
    return f"{attempt.problem.replace(f'status {attempt.status}', f'status {attempt.status} {took}', 1)}"
