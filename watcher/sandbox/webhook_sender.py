"""The thin part of the webhooks: it sends what is to be sent, and holds nobody up."""

import anyio
import httpx

from watcher.sandbox.push_board import WEBHOOK, PushBoard
from watcher.sandbox.webhooks import WebhookDelivery, WebhookSession, WebhookTarget

TIMEOUT = 10.0
"""Seconds that a receiver has to answer."""


async def send_webhooks(board: PushBoard, target: WebhookTarget) -> None:
    """Until cancelled. The board must be advanced by somebody: `serve` does."""
    session = WebhookSession(target.secret)
    board.join(WEBHOOK, session, anyio.current_time())
    ready = anyio.Event()

    def wake() -> None:
        ready.set()

    session.ready = wake
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client,
            anyio.create_task_group() as tasks,
        ):
            while True:
                for delivery in session.outgoing():
                    tasks.start_soon(_deliver, client, target.url, session, delivery)
                await ready.wait()
                ready = anyio.Event()
    finally:
        board.leave(session)


async def _deliver(client: httpx.AsyncClient, url: str, session: WebhookSession, delivery: WebhookDelivery) -> None:
    attempts = 0
    pause: float | None = 0.0
    while pause is not None:
        await anyio.sleep(pause)
        attempts += 1
        broken = delivery.broken and attempts == 1
        pause = session.attempted(attempts, None if broken else await _attempt(client, url, delivery))


async def _attempt(client: httpx.AsyncClient, url: str, delivery: WebhookDelivery) -> int | None:
    """The status of the answer; None: there was none."""
    try:
        return (await client.post(url, content=delivery.body, headers=dict(delivery.headers))).status_code
    except httpx.TransportError:
        return None
