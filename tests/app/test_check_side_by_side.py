"""`watcher check` asks all providers at once: it takes as long as the slowest, and what it tells keeps its order."""

import json
import re

import anyio
import msgspec
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.app.test_check import HELIUS
from tests.e2e.harness import toml
from tests.journal import acme_memory
from tests.loopback import PATIENCE, served
from tests.polling import virtually, wall
from watcher.app import journals, settings
from watcher.app.check import command
from watcher.app.check.command import Wish, check
from watcher.app.check.report import Document
from watcher.app.exit_status import Exit
from watcher.app.provider_sources import sources
from watcher.journal import Batch
from watcher.limits.lease import STAMPS
from watcher.poller.assembly import budget_of

KEYS = {"HELIUS_API_KEY": "canary-of-check-52e9"}
BALANCE = {"result": {"context": {"slot": 1}, "value": {"amount": "5", "decimals": 2}}}
REFUSAL = {"error": {"code": -32001, "message": "Unauthorized"}}
ANSWERS = {"first": (500, {}), "second": (200, BALANCE), "third": (401, REFUSAL), "fourth": (200, BALANCE)}
"""Provider → status and what its answer holds, in the order of the config."""


class LastFirst:
    """Providers that answer nobody before all are asked, and then the last one first: each when the next one has gone."""

    def __init__(self):
        self.asked = 0
        self.all_asked = anyio.Event()
        self.gone = {name: anyio.Event() for name in ANSWERS}

    async def serve(self, stream):
        async with stream:
            reader = BufferedByteReceiveStream(stream)
            head = (await reader.receive_until(b"\r\n\r\n", 10_000)).decode().lower()
            name = head.split("/")[1].partition("?")[0]
            request = json.loads(await reader.receive_exactly(int(re.search(r"content-length: (\d+)", head)[1])))
            self.asked += 1
            if self.asked == len(ANSWERS):
                self.all_asked.set()
            await self.all_asked.wait()
            for later in [*ANSWERS][[*ANSWERS].index(name) + 1 :]:
                await self.gone[later].wait()
            status, held = ANSWERS[name]
            body = json.dumps({"jsonrpc": "2.0", "id": request["id"], **held}).encode()
            await stream.send(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            self.gone[name].set()


def checked(folder, wish):
    """The exit of a check of these."""

    async def main():
        async with served(LastFirst().serve) as port:
            tables = {name: {**HELIUS, "base_url": f"http://127.0.0.1:{port}/{name}"} for name in ANSWERS}
            table = {"journal": f"sqlite:///{folder / 'x.db'}", "relay": {"port": 0}, "providers": tables}
            (path := folder / "watcher.toml").write_text(toml(table))
            with anyio.fail_after(PATIENCE), pytest.raises(Exit) as end:
                await check(path, KEYS, wish)
            return end.value

    return anyio.run(main)


def test_all_are_asked_at_once_and_told_in_the_order_of_the_config_whoever_answers_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    end = checked(tmp_path, Wish())
    assert (end.status, end.message.splitlines()) == (
        78,
        [
            "first did not answer with balances: temporary",
            "third refuses the credential: look at the key it is given",
        ],
    )
    told = [name for line in capsys.readouterr().out.splitlines() if (name := line.partition(":")[0]) in ANSWERS]
    assert told == [*ANSWERS]


def test_so_has_the_document(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    end = checked(tmp_path, Wish(json=True))
    document = msgspec.json.decode(capsys.readouterr().out, type=Document)
    assert (end.status, document.status, document.ok) == (78, 78, False)
    assert [one.where for one in document.findings if one.severity == "error"] == ["providers.first", "providers.third"]
    found = [(one.provider, one.asked, len(one.balances)) for one in document.providers]
    assert found == [("first", 1, 0), ("second", 1, 1), ("third", 1, 0), ("fourth", 1, 1)]


def test_beside_a_daemon_that_leaves_no_slot_it_takes_as_long_as_the_slowest(tmp_path, monkeypatch, capsys):
    """In virtual time. Each is waited for as long as twice its shortest window."""
    monkeypatch.setitem(journals.BUILT_IN, "acme-memory", acme_memory.PLUGIN)
    monkeypatch.setattr(command, "wall", wall)
    url, seconds = f"acme-memory://{tmp_path}", {"first": 10, "second": 15, "third": 5}
    tables = {name: {**HELIUS, "limits": [{"requests": 1, "per": per}]} for name, per in seconds.items()}
    config = {"journal": url, "relay": {"port": 0}, "providers": tables}
    (path := tmp_path / "watcher.toml").write_text(toml(config))

    async def daemon(begun):
        """One that asks whenever it may, and more."""
        writer = acme_memory.MemoryJournal(acme_memory.LOGS.setdefault(url, acme_memory.Log())).writer(0)
        await writer.open()
        budgets = {one.provider.name: budget_of(one.provider) for one in sources(settings.parse(config), KEYS)}
        while True:
            for budget in budgets.values():
                budget.count(anyio.current_time(), None)
            saved = {STAMPS + name: one.save(anyio.current_time(), wall()) for name, one in budgets.items()}
            await writer.commit(Batch([], saved))
            begun.set()
            await anyio.sleep(0.5)

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon, begun := anyio.Event())
            await begun.wait()
            began = anyio.current_time()
            await check(path, KEYS, Wish(json=True))
            tasks.cancel_scope.cancel()
        return anyio.current_time() - began

    took = virtually(main)
    assert took == pytest.approx(2 * max(seconds.values()), abs=1.5)
    document = msgspec.json.decode(capsys.readouterr().out, type=Document)
    assert [one.where for one in document.findings if "is not asked" in one.what] == [
        f"providers.{name}" for name in seconds
    ]
    assert [one.asked for one in document.providers] == [0, 0, 0]
