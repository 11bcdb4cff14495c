"""A real session with a real relay: whatever comes over the websocket is as the AsyncAPI document has it."""

import contextlib
import json

import anyio
import jsonschema
import msgspec
import pytest

from schemas.fields import example
from tests.relay.stage import SOLANA, Subscriber, Teller, calm, staged, until, wall
from tests.relay.test_slow import slow
from tests.schemas.contract import Contract
from watcher.journal.sqlite.journal import SqliteJournal
from watcher.model.events import HintsHealth, UnreadAlert

pytestmark = pytest.mark.anyio

BIG = "x" * 4000
"""An account that makes events large, so that few of them fill a socket."""


RARE = {"Filter.label", "Filter.tag", "Update.label", "Crossed.label"}
"""Fields that stand only where watches have labels, which the stage's relay has not."""


class Judged(Subscriber):
    """A subscriber whose every message is judged, and whose every command that is done."""

    def __init__(self, socket, contract):
        super().__init__(socket)
        self.contract = contract
        self.commands = {}

    async def ask(self, method, **params):
        self.commands[self.count + 1] = {"id": self.count + 1, "method": method, "params": params}
        return await super().ask(method, **params)

    async def _receive(self, within):
        message = await super()._receive(within)
        self.contract.from_relay(message, self.methods.get(message.get("id")))
        if "result" in message:
            self.contract.command(self.commands[message["id"]])
        return message


@contextlib.asynccontextmanager
async def judged(stage, contract, **options):
    async with stage.subscriber(**options) as one:
        yield Judged(one.socket, contract)


async def commands(stage, contract):
    """Each command, done and refused; the pushes of a quiet connection."""
    async with judged(stage, contract) as one:
        assert (await one.push("welcome"))["auth"] == "required"
        assert (await one.ask("auth", token="secret"))["result"] == {"auth": "ok"}
        everything = {"provider": ["jupiter"], "chain": [SOLANA], "account": ["A", BIG], "token": ["native"]}
        opened = await one.subscribe(filter=everything, snapshot=True, delivery="conflate", interval_ms=1, crossed=True)
        cursor = (await one.push("snapshot"))["cursor"]
        await stage.teller.tell("A", crossed=["A"])
        assert (await one.push("update"))["event"]["version"] == 1
        assert (await one.push("crossed"))["event"]["alert"] == "low"
        while not (await one.push("heartbeat"))["providers"]:
            pass
        assert (await one.ask("list_subscriptions"))["result"]["subscriptions"]
        assert "result" in await one.ask("unsubscribe", subscription_id=opened["subscription_id"])
        assert "result" in await one.ask("ping")
        await one.subscribe(filter={"account": ["nobody"]}, snapshot=False)
        assert (await one.subscribe(cursor=cursor, on_gap="snapshot"))["recovered"]
        assert (await one.subscribe(cursor=f"00{cursor}"))["reason"] == "epoch_changed"
        await one.push("snapshot")
    async with judged(stage, contract) as one:
        await one.ask("auth", token="secret")
        for code, method, params in [
            ("bad_request", "subscribe", {"filter": {"account": []}}),
            ("bad_cursor", "subscribe", {"cursor": "?"}),
            ("unrecoverable_cursor", "subscribe", {"cursor": f"00{cursor}", "on_gap": "error"}),
            ("unknown_method", "publish", {}),
            ("not_found", "unsubscribe", {"subscription_id": "9"}),
            ("filter_limit", "subscribe", {"filter": {"account": [str(n) for n in range(1025)]}}),
        ]:
            assert (await one.ask(method, **params))["error"]["code"] == code
        await one.socket.send("nonsense")
        assert (await one.push("error"))["code"] == "bad_request"


async def slowly(stage, contract):
    """A reader that does not keep up, and does at last."""
    async with slow(stage) as raw:
        one = Judged(raw.socket, contract)
        await one.ask("auth", token="secret")
        await one.subscribe(snapshot=False)
        for _ in range(100):
            await stage.teller.tell(BIG)
        await until(lambda: stage.relay.stats.lagging)
        await one.push("lagging")
        await one.push("live")


async def another_log(stage, contract):
    """A snapshot that comes unasked."""
    async with judged(stage, contract) as one:
        await one.ask("auth", token="secret")
        await one.subscribe(snapshot=False)
        aside = stage.path.with_name("aside")
        aside.mkdir()
        for file in stage.path.parent.glob(f"{stage.path.name}*"):
            file.rename(aside / file.name)
        successor = Teller(SqliteJournal(stage.path, encoding="json", retention=1e6, clock=wall))
        await successor.writer.open()
        await successor.tell("B")
        try:
            assert (await one.push("snapshot"))["reason"] == "epoch_changed"
        finally:
            await successor.journal.close()


async def test_every_command_result_and_push_of_a_real_session_is_as_the_document_has_it(tmp_path):
    contract = Contract()
    pace = calm(heartbeat=0.2, sweep=0.02, outbox_bytes=20_000, replay_bytes=8_000)
    async with staged(tmp_path, pace, environ={"T": "secret"}, tokens_env="T") as stage:
        await stage.teller.tell("A", BIG)
        hints = msgspec.convert(example(HintsHealth), HintsHealth)
        unread = msgspec.convert(example(UnreadAlert), UnreadAlert)
        await stage.teller.beat("jupiter", last_success="2026-01-25T14:43:57.000000Z", hints=hints, unread=(unread,))
        await commands(stage, contract)
        await slowly(stage, contract)
        await another_log(stage, contract)
        async with stage.http(headers={"Authorization": "Bearer secret"}) as http:
            (row,) = (await http.get("/v1/balances")).json()["data"]
        contract.judge({"$ref": "#/components/schemas/BalanceRow"}, row)
        staying = Judged(await stage.connect(compression=None), contract)
        await staying.push("welcome")
    await staying.push("shutdown")
    await staying.socket.wait_closed()
    assert contract.met == set(contract.document["channels"]["stream"]["messages"])
    assert contract.described(*contract.met) - contract.fields <= RARE, "described, and never written"


@pytest.mark.parametrize(
    "planted",
    [
        lambda push: push | {"since": 5},
        lambda push: push | {"connection_id": None},
        lambda push: push | {"auth": "maybe"},
        lambda push: push | {"server_time": "yesterday"},
        lambda push: push | {"limits": {**push["limits"], "speed": 1}},
        lambda push: {name: value for name, value in push.items() if name != "epoch"},
    ],
)
async def test_a_field_that_is_not_described_or_described_otherwise_is_seen(tmp_path, planted):
    async with staged(tmp_path) as stage, stage.connect(compression=None) as client:
        with anyio.fail_after(10):
            push = json.loads(await client.recv())
    Contract().from_relay(push)
    with pytest.raises(jsonschema.ValidationError):
        Contract().from_relay(planted(push))
