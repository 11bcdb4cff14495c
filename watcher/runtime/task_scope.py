"""Tasks that end after the block that started them, so that a pipeline stops from its source on."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


class StartSignal(Generic[T]):
    """A task status that another task may wait for, and may be cancelled while it waits."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: T | None = None

    def started(self, value: T | None = None) -> None:
        self._value = value
        self._event.set()

    async def value(self) -> T | None:
        await self._event.wait()
        return self._value


class TaskScope:
    """Tasks that go on when the block around them is cancelled, until `end`."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._scopes: list[anyio.CancelScope] = []

    def start_soon(self, run: Callable[[], Awaitable[None]]) -> None:
        scope = anyio.CancelScope(shield=True)
        self._scopes.append(scope)
        self._tasks.start_soon(self._run, scope, run)

    async def _run(self, scope: anyio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
        with scope:
            await run()

    def end(self) -> None:
        for scope in self._scopes:
            scope.cancel()


@contextlib.asynccontextmanager
async def task_scope() -> AsyncIterator[TaskScope]:
    """A task group whose tasks are cancelled only once the block has ended."""
    async with anyio.create_task_group() as tasks:
        scope = TaskScope(tasks)
        try:
            yield scope
        finally:
            scope.end()
