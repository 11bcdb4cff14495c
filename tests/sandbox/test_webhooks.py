"""TokenKit's webhooks: signed over the bytes that are sent, and sent again until they are taken."""

import hashlib
import hmac

import anyio
import anyio.lowlevel
import httpx
import msgspec
import pytest
from trio.testing import MockClock

from tests.sandbox.push_scene import Scene
from tests.sandbox.test_apis import START
from watcher.sandbox.webhooks import MOST_DELIVERIES, PAUSES, WebhookSession, WebhookTarget

SECRET = "not-a-secret"


def scene(**settings):
    here = Scene("starknet", **settings)
    here.webhooks = WebhookSession(SECRET)
    here.world.pushes.join("webhook", here.webhooks, START)
    return here


def deliveries(here, seconds=1.0):
    here.wait(seconds)
    return here.webhooks.outgoing()


def is_signed(delivery):
    signature = hmac.new(SECRET.encode(), delivery.body, hashlib.sha256).hexdigest()
    return delivery.headers["x-tokenkit-signature"] == f"sha256={signature}"


def test_a_move_is_delivered_signed_with_its_account_and_token():
    here = scene()
    balance = here.of("tokenkit")[0]
    before = balance.amount
    here.put(balance, before + 1)
    (delivery,) = deliveries(here)
    told = msgspec.json.decode(delivery.body)
    assert is_signed(delivery)
    assert (told["event"], delivery.headers["x-tokenkit-event"]) == ("balance.changed",) * 2
    assert told["data"]["account_address"] == balance.key.account
    assert told["data"]["token_address"] == balance.key.token
    assert (told["data"]["previous_balance"], told["data"]["balance"]) == (str(before), str(before + 1))


def test_other_providers_have_no_webhooks():
    here = scene()
    for balance in here.of("ondo"):
        here.put(balance, balance.amount + 1)
    assert deliveries(here) == []


def test_a_repetition_is_the_same_delivery_and_another_move_is_not():
    here = scene(faults="push_repeated=1")
    balance = here.of("tokenkit")[0]
    here.put(balance, balance.amount + 1)
    first, again = deliveries(here, 5.0)
    here.put(balance, balance.amount + 1)
    other, _ = deliveries(here, 5.0)
    assert (first.headers, first.body) == (again.headers, again.body)
    assert other.headers["x-tokenkit-delivery"] != first.headers["x-tokenkit-delivery"]


def test_a_forged_one_is_about_another_balance_and_some_are_signed_by_a_stranger():
    here = scene(faults="push_forged=1")
    balance = here.of("tokenkit")[0]
    signed = []
    for _ in range(40):
        here.put(balance, balance.amount + 1)
        for delivery in deliveries(here):
            told = msgspec.json.decode(delivery.body)["data"]
            where = (told["account_address"], told["token_address"])
            if where == (balance.key.account, balance.key.token):
                assert is_signed(delivery)
            else:
                signed.append(is_signed(delivery))
    assert len(signed) == 40
    assert 5 < sum(signed) < 35


def test_a_receiver_that_is_down_costs_no_more_memory():
    here = scene()
    balance = here.of("tokenkit")[0]
    for _ in range(MOST_DELIVERIES + 7):
        here.put(balance, balance.amount + 1)
    assert len(deliveries(here)) == MOST_DELIVERIES
    assert here.webhooks.report() == {"attempts": 0, "accepted": 0, "given_up": 7, "under_way": MOST_DELIVERIES}


def test_a_secret_is_not_shown():
    assert SECRET not in repr(WebhookTarget("http://127.0.0.1:1/", SECRET))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([202], {"accepted": 1, "given_up": 0}),
        ([500, None, 202], {"accepted": 1, "given_up": 0}),
        ([503] * (len(PAUSES) + 1), {"accepted": 0, "given_up": 1}),
    ],
)
def test_it_is_sent_again_with_growing_pauses_a_few_times(answers, said):
    session = WebhookSession(SECRET)
    session.under_way = 1
    pauses = [session.attempted(number, status) for number, status in enumerate(answers, 1)]
    assert pauses == [*PAUSES[: len(answers) - 1], None]
    assert session.report() == {"attempts": len(answers), **said, "under_way": 0}


@pytest.mark.parametrize("faults", ["none", "push_cut=1"])
def test_the_sender_delivers_in_the_background_and_tries_again(monkeypatch, faults):
    """In virtual time, before a receiver that fails twice; where the connection breaks, the first attempt is lost before."""
    from watcher.sandbox import webhook_sender

    arrived = []

    def receive(request):
        arrived.append((anyio.current_time(), request.headers["x-tokenkit-delivery"], request.content))
        if len(arrived) == 1:
            raise httpx.ConnectError("nobody there", request=request)
        return httpx.Response(500 if len(arrived) == 2 else 202)

    client = httpx.AsyncClient
    transport = httpx.MockTransport(receive)
    monkeypatch.setattr(webhook_sender.httpx, "AsyncClient", lambda **more: client(transport=transport, **more))

    async def main():
        here = Scene("starknet", faults=faults)
        here.now = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(webhook_sender.send_webhooks, here.world.pushes, WebhookTarget("http://there/", SECRET))
            await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            balance = here.of("tokenkit")[0]
            here.put(balance, balance.amount + 1)
            here.wait(1.0)
            await anyio.sleep(60.0)
            told = here.world.report(here.now)["push"]["webhook"]
            tasks.cancel_scope.cancel()
        return told

    told = anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
    broken = faults != "none"
    assert told["deliveries"] == [{"attempts": 3 + broken, "accepted": 1, "given_up": 0, "under_way": 0}]
    assert len({identifier for _, identifier, _ in arrived}) == 1
    times = [time for time, _, _ in arrived]
    assert [round(later - times[0], 3) for later in times] == ([0.0, 5.0, 30.0] if broken else [0.0, 1.0, 6.0])
