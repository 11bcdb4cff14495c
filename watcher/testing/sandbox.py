"""The simulated providers and the whole watcher inside a test, on loopback, each in a thread with an event loop of its own.

    with Sandbox(seed=7) as sandbox, RunningWatcher(sandbox.config(folder), sandbox.environment) as watcher:
        sandbox.set("helius", chain=…, account=…, token=…, amount="12")
        read(watcher.stream)

As fixtures of pytest they are `balance_sandbox` and `balance_watcher` (pytest_plugin.py).
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal

from watcher.app import settings
from watcher.app.daemon import Daemon, wall
from watcher.sandbox import registry
from watcher.sandbox.messages import VALID_KEY, SimulatedRequest
from watcher.sandbox.server import serve
from watcher.sandbox.webhook_sender import send_webhooks
from watcher.sandbox.webhooks import WebhookTarget
from watcher.sandbox.world import WEBHOOK_SECRET, SandboxSettings, World, hint_environment, hint_tables, tables

KEY = "WATCHER_SANDBOX_KEY"
"""The variable that holds the sandbox's key."""
REQUESTS = 20
Result = TypeVar("Result")


class SandboxError(ValueError):
    """The sandbox has no such balance, or the amount or the faults are none."""


class _LoopThread:
    """A thread with an event loop of its own, from the entry to the exit, and what `_begin` has started there."""

    def __init__(self) -> None:
        self._running = contextlib.ExitStack()
        """Ends all of it, what was started last first."""
        self._portal: BlockingPortal

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as running:
            self._portal = running.enter_context(start_blocking_portal("asyncio"))
            self._begin(running)
            self._running = running.pop_all()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._running.close()

    def _begin(self, running: contextlib.ExitStack) -> None:
        """Start what is to run, and leave with `running` what ends it."""
        raise NotImplementedError


class Sandbox(_LoopThread):
    """The simulated providers. Nothing moves by itself, no limit holds and nothing goes wrong unless it is asked for.

    seed: which world. rate: changes a second. faults, limits: as `watcher sandbox` takes them. hints: a watcher of `config`
    takes hints from its push channels. Raises ValueError.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        rate: float = 0.0,
        faults: str = "none",
        limits: str = "none",
        port: int = 0,
        hints: bool = False,
    ) -> None:
        super().__init__()
        self.hinting = hints
        self._settings = SandboxSettings(seed=seed, rate=rate, faults=faults, limits=limits, port=port)
        self._world: World
        self.port = port
        """The one that it listens on, once it does."""

    def _begin(self, running: contextlib.ExitStack) -> None:
        self._world = self._portal.call(self._new_world)
        serving, self.port = self._portal.start_task(self._serve)
        running.callback(serving.cancel)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; a provider is served under `/NAME`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The key, the addresses of the push channels and the secret of the webhooks, as the tables of `config` name them."""
        return {KEY: VALID_KEY, **hint_environment(self.url)}

    def providers(self) -> dict[str, dict[str, Any]]:
        """`[providers.NAME]` tables that watch every balance of this world.

        Where the sandbox has no limits, each provider is asked REQUESTS times a second: a test need not wait long.
        """
        found = tables(self.port, self._settings.seed, KEY)
        if self._settings.limits == "none":
            for name, kind in registry.known().items():
                api = kind()
                limits = [{"requests": REQUESTS * api.cost, "per": 1.0}]
                found[name].update({**api.demo, "limits": limits, "share": 1.0})
        return found

    def config(self, folder: Path, **more: Any) -> dict[str, Any]:
        """A whole config: these providers, a SQLite journal in `folder`, a relay on a free port. `more`: keys of the top level."""
        journal = f"sqlite:///{folder / 'balances.db'}"
        hints = {"hints": self.hints()} if self.hinting else {}
        return {"journal": journal, "relay": {"port": 0}, "providers": self.providers(), **hints, **more}

    def hints(self) -> list[dict[str, Any]]:
        """`[[hints]]` tables for all its push channels and its webhooks."""
        return hint_tables()

    def send_webhooks(self, url: str) -> None:
        """TokenKit's go to this address from now on, signed with the secret that `environment` has."""
        target = WebhookTarget(url, WEBHOOK_SECRET)
        sending = self._portal.start_task_soon(send_webhooks, self._world.pushes, target)
        self._running.callback(sending.cancel)

    def truth(self) -> dict[str, Any]:
        """What `GET /_truth` answers: each provider's balances, their changes, and how often it was asked and had to refuse."""
        report: dict[str, Any] = self._control("_truth", method="GET")
        return report

    def set(self, provider: str, *, amount: str, account: str, token: str, chain: str, kind: str = "total") -> None:
        """One balance from now on; `amount` as an event would write it. Raises SandboxError."""
        balance = {"provider": provider, "chain": chain, "account": account, "token": token, "kind": kind}
        self._control("_set", msgspec.json.encode({**balance, "amount": amount}))

    def use_faults(self, text: str) -> None:
        """From now on, in the words of `--faults`. Raises SandboxError."""
        self._control("_faults", text.encode())

    def freeze(self) -> None:
        """Nothing moves by itself until `thaw`."""
        self._control("_freeze")

    def thaw(self) -> None:
        self._control("_thaw")

    async def _new_world(self) -> World:
        return World(self._settings, start=anyio.current_time(), wall=wall() / 1e6)

    async def _serve(self, *, task_status: Any) -> None:
        await serve(self._world, port=self._settings.port, task_status=task_status)

    def _control(self, name: str, body: bytes = b"", method: str = "POST") -> Any:
        request = SimulatedRequest(method, f"/{name}", {}, {}, body)
        reply = self._in_loop(lambda: self._world.answer(request, anyio.current_time()))
        answer = msgspec.json.decode(reply.body)
        if reply.status != 200:
            raise SandboxError(answer["error"])
        return answer

    def _in_loop(self, work: Callable[[], Result]) -> Result:
        """The world belongs to the loop that serves it."""
        return self._portal.call(work)


class RunningWatcher(_LoopThread):
    """`watcher run` in this process. config: as its file would say it, decoded. environment: where its keys are.

    Entered, it polls and serves. Raises what keeps `watcher run` from starting: SettingsError, JournalError, OSError.
    """

    def __init__(self, config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        super().__init__()
        self._config = config
        self._environment = environment
        self.port: int
        """Of the relay, once it is entered."""

    def _begin(self, running: contextlib.ExitStack) -> None:
        daemon = Daemon(settings.parse(self._config), self._environment)
        polling, started = self._portal.start_task(daemon.run)
        running.callback(polling.cancel)
        self.port = started.port

    @property
    def url(self) -> str:
        """Of the page; `/v1/balances`, `/metrics` and the others stand beside it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def hook(self) -> str:
        """Where it takes TokenKit's webhooks."""
        return f"{self.url}/v1/hooks/tokenkit"

    @property
    def stream(self) -> str:
        """For `watcher.client.Stream`, or any client of websockets."""
        return f"ws://127.0.0.1:{self.port}/v1/stream"
