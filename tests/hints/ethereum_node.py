"""A real Ethereum node on this machine: anvil, with a token on it. Both come from npm, by the lock in `node/`."""

import contextlib
import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import anyio
from websockets.asyncio.client import connect

from tests.foreign import absent, npm

HERE = Path(__file__).with_name("node")


class Tools:
    """The node's program and the compiled token."""

    def __init__(self, folder):
        npm(HERE, folder)
        programs = [path for path in folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil*") if path.is_file()]
        if not programs or subprocess.run([programs[0], "--version"], capture_output=True, check=False).returncode:
            absent("npm has no anvil that runs on this machine")
        self.program = programs[0]
        self.home = folder
        done = subprocess.run(["node", folder / "compile.js"], capture_output=True, text=True, check=True)
        token = json.loads(done.stdout)
        self.bytecode, self.functions = token["bytecode"], token["functions"]


class Chain:
    """The node's own door: accounts, the token, transactions."""

    def __init__(self, socket, url, tools):
        self._socket = socket
        self._ids = itertools.count()
        self.url = url
        self._tools = tools
        self.accounts = []

    async def call(self, method, *params):
        number = next(self._ids)
        await self._socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        answer = json.loads(await self._socket.recv())
        assert answer["id"] == number
        assert "error" not in answer, answer
        return answer["result"]

    async def mine(self, sender, **transaction):
        """The receipt."""
        sent = await self.call("eth_sendTransaction", {"from": sender, **transaction})
        while (receipt := await self.call("eth_getTransactionReceipt", sent)) is None:
            await anyio.lowlevel.checkpoint()
        assert receipt["status"] == "0x1"
        return receipt

    async def deploy(self, owner):
        """The address of a new token, all of it the owner's."""
        return (await self.mine(owner, data=f"0x{self._tools.bytecode}"))["contractAddress"]

    async def do(self, sender, token, function, *words, value=0):
        await self.mine(sender, to=token, data=self._data(function, words), value=hex(value))

    async def balance(self, token, account):
        data = self._data("balanceOf(address)", [int(account, 16)])
        return int(await self.call("eth_call", {"to": token, "data": data}, "latest"), 16)

    def _data(self, function, words):
        return f"0x{self._tools.functions[function]}" + "".join(f"{word:064x}" for word in words)


@contextlib.asynccontextmanager
async def running(tools, chain_id=1, port=0):
    """A node of its own, with nothing on its chain; 0: on a port that it chooses."""
    command = [str(tools.program), "--port", str(port), "--chain-id", str(chain_id)]
    environment = {**os.environ, "HOME": str(tools.home)}
    async with await anyio.open_process(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = await _address(process.stdout)
            async with connect(url, proxy=None) as socket, anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, process.stdout)
                chain = Chain(socket, url, tools)
                chain.accounts = [account.lower() for account in await chain.call("eth_accounts")]
                yield chain
                tasks.cancel_scope.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def _address(output):
    said = b""
    async for part in output:
        said += part
        if found := re.search(rb"Listening on (\S+:\d+)\s", said):
            return f"ws://{found[1].decode()}"
    raise AssertionError(said)


async def _drain(output):
    async for _part in output:
        pass
