"""The seam between the poller and a balance API: what a provider is given, what it asks, what it gives back.

A provider is pure. It says which request to send and what an answer means; it never sends, waits or reads a clock.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from watcher.limits.windows import Limit
from watcher.model.keys import Scope
from watcher.model.readings import Ordering, Reading
from watcher.model.targets import Lane, Target, TargetGroup
from watcher.providers.settings import ProviderSettings


class Request(msgspec.Struct, frozen=True):
    """What to send. `path` is appended to `base_url`; credentials are not in here."""

    method: str
    path: str
    targets: tuple[Target, ...]
    params: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """JSON, when there is one."""
    endpoint: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    id: str | None = None
    """What the answer must carry, where the protocol gives every request a name of its own."""


class Response(msgspec.Struct, frozen=True):
    """What came back, decompressed."""

    status: int
    body: bytes
    wall: float
    """Unix seconds at arrival."""
    headers: Mapping[str, str] = {}
    """Names in lower case."""
    wait: float | None = None
    """Seconds for which its headers ask for no request; None: they do not say, or were not looked at."""


class ReadResult(msgspec.Struct):
    """What a good answer says."""

    readings: Sequence[Reading]
    listing: Scope | None = None
    """Set when this is a listing: unless it is partial, what it covers and does not name, it says is absent."""
    partial: bool = False
    """Of a listing: something in it could not be understood, or is not in it. It proves no absence."""
    missing: tuple[Target, ...] = ()
    """Asked about, but not answered: unknown, never zero. The other targets are fine."""
    remark: str | None = None
    """One line on why something is missing."""


class Credentials(msgspec.Struct, frozen=True):
    """What to put on the HTTP client. Never shown."""

    headers: dict[str, str] = {}
    params: dict[str, str] = {}

    def __repr__(self) -> str:
        return "Credentials(…)"

    __str__ = __repr__


class Provider(Protocol):
    """A balance API behind one credential. Built from its name, its settings and whether a key is configured.

    The constructor raises SettingsError for what the settings' types cannot refuse.
    """

    Settings: ClassVar[type[ProviderSettings]]
    """A ProviderSettings with this provider's own keys."""

    name: str
    ordering: Ordering
    settle: float
    cache: float
    """Seconds that the provider itself keeps an answer: asking sooner proves nothing. 0: not known to."""
    groups: tuple[TargetGroup, ...]
    """What is asked about. None of them is empty."""
    limits: tuple[Limit, ...]
    """Defaults applied, `share` not."""
    cost: float
    min_interval: float
    max_balances: int
    base_url: str
    """Without a trailing slash."""
    advice: tuple[str, ...]
    """What else helps when the limits do not suffice, as the config writes it."""

    def __init__(self, name: str, settings: Any, *, keyed: bool) -> None: ...

    @property
    def settings(self) -> ProviderSettings: ...

    def credentials(self, secret: str | None) -> Credentials:
        """Where the API wants its key; `secret` is None when there is none."""
        ...

    def ask(self, lane: Lane, targets: Sequence[Target], interval: float) -> Request:
        """The request for up to `lane.batch` targets, each read about every `interval` seconds."""
        ...

    def read(self, request: Request, response: Response) -> ReadResult:
        """What the answer means. Raises Failure, and nothing else."""
        ...


@runtime_checkable
class BulkProvider(Provider, Protocol):
    """A provider whose listings may grow large: it has a second way to read them, a slice at a time.

    The body and the target alone decide what such an answer says: a body that equals the one before is not read again.
    """

    def read_in_slices(self, request: Request, response: Response) -> Generator[None, None, ReadResult]:
        """As `read`, for status 200 and a target of family LISTING. Each `yield` lets others run."""
        ...
