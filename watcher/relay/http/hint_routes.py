"""The doors for hints: `POST /v1/hints` for whoever knows of a change, and the webhook of TokenKit."""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

import anyio
import msgspec

from watcher.model import hints
from watcher.model.hints import Hint, HintError
from watcher.model.keys import Filter
from watcher.model.log import JournalError
from watcher.redaction.safe_text import one_line
from watcher.relay.http import head
from watcher.relay.http.connection import HttpConnection
from watcher.relay.http.head import HttpAnswer, error, json_answer, unavailable
from watcher.relay.http.routes import Route, RoutedRequest
from watcher.relay.messages import Code
from watcher.runtime.slicing import run_in_slices

HINTS = "/v1/hints"
TOKENKIT_HOOK = "/v1/hooks/tokenkit"
MOST_HINTS = 1000
"""In one request."""
HINTS_BYTES = 512 * 1024
HOOK_BYTES = 64 * 1024
AT_ONCE = 16
"""Requests with hints that are being taken, beyond which others are asked to come back."""
AT_ONCE_EACH = 8
"""Of one token, or of an address without one: behind a proxy everybody has the same."""
FEW_BYTES = 4096
"""Of a body with few hints: such a request waits for no longer one, and has a place of its own kind."""
FEW_HINTS = 64
"""In such a body, if they are of the usual size."""
FEW_AT_ONCE = 64
"""As AT_ONCE, of those with few hints."""
FEW_AT_ONCE_EACH = 32
PATIENCE = 5.0
"""Seconds in which that is done."""
STEP = 20
"""Hints that are read at a stretch: a fifth of a millisecond."""
COMMAS = 16 * MOST_HINTS
"""In a body at most: four times as many as hints have."""
SHOWN = 300
"""Characters of what is wrong with a hint, which may repeat what was sent."""
SHAPE = 'the body is {"hints": [{"provider": …, "account": …}, …]} in JSON'
BUSY = error(503, "rate_limited", "too many send hints at once: come back later", ("Retry-After", "5"))
NOWHERE = error(404, "not_found", "this process polls nothing and cannot hand hints on: ask the one that polls")


class NotPolledHere(Exception):
    """This process polls nothing, and its journal has no way to those that do."""


class Accepted(msgspec.Struct, frozen=True):
    """What became of hints that were sent: of a watch, or of none that the sender may know of."""

    accepted: int
    unknown: int


class HookAnswer(msgspec.Struct, frozen=True):
    """What a webhook's sender is answered: 200, or a status of REFUSALS."""

    status: int


REFUSALS: Mapping[int, tuple[Code, str]] = {
    401: ("unauthorized", "the signature is not that of this body under any of our secrets"),
    404: ("not_found", "no [[hints]] of type tokenkit is configured here"),
}
"""Of a webhook."""

TakeHints = Callable[[Sequence[Hint], Filter, str], Awaitable[Accepted]]
"""Hints, the rights of who sent them, and what they are counted under. Raises JournalError when they cannot be handed on now, and NotPolledHere."""
TakeHook = Callable[[bytes, Mapping[str, str]], Awaitable[HookAnswer]]
"""The raw body of a webhook, and the fields of its head in lower case; one that came twice is empty."""


def hint_routes(take: TakeHints, rejected: Callable[[str], None], hook: TakeHook) -> Mapping[str, Route]:
    """For HttpRoutes. `rejected`: counts a request whose hints could not be understood, under what it is given."""
    door = _HintDoor(take, rejected)
    return {
        HINTS: Route(
            door.answer,
            guarded=True,
            hints=True,
            methods=("POST",),
            wrong_method="hints are sent with POST",
            body=HINTS_BYTES,
        ),
        TOKENKIT_HOOK: Route(
            _HookDoor(hook).answer, methods=("POST",), wrong_method="a webhook is sent with POST", body=HOOK_BYTES
        ),
    }


class _HintDoor:
    """Takes the hints of one request after the other apart, in slices: whoever floods it holds nobody else up."""

    def __init__(self, take: TakeHints, rejected: Callable[[str], None]) -> None:
        self._take = take
        self._rejected = rejected
        self._few = _Places(FEW_AT_ONCE, FEW_AT_ONCE_EACH)
        self._many = _Places(AT_ONCE, AT_ONCE_EACH)

    async def answer(self, request: RoutedRequest) -> HttpAnswer:
        places = self._few if len(request.body) <= FEW_BYTES else self._many
        if not places.take(request.connection):
            return BUSY
        try:
            with anyio.move_on_after(PATIENCE):
                return await self._taken(request, places)
        except HintError as mistake:
            self._rejected(request.sender)
            return error(400, "bad_request", str(mistake))
        except JournalError as problem:
            return unavailable(problem)
        except NotPolledHere:
            return NOWHERE
        return error(503, "internal", "the hints could not be handed on in time", ("Retry-After", "5"))

    async def _taken(self, request: RoutedRequest, places: "_Places") -> HttpAnswer:
        assert request.rights is not None
        async with places.reading:
            found = await run_in_slices(read_hints(request.body))
        return json_answer(202, await self._take(found, request.rights, request.sender))


class _Places:
    """Those whose hints are being taken, of one kind."""

    def __init__(self, most: int, most_each: int) -> None:
        self.reading = anyio.Lock()
        """One after the other."""
        self._most = most
        self._most_each = most_each
        self._taken: set[HttpConnection] = set()

    def take(self, connection: HttpConnection) -> bool:
        """A place until its answer is written; False: there is none, or its sender has too many."""
        of_this_sender = sum(other.sender == connection.sender for other in self._taken)
        if len(self._taken) >= self._most or of_this_sender >= self._most_each:
            return False
        connection.count_in(self._taken)
        return True


class _HookDoor:
    def __init__(self, hook: TakeHook) -> None:
        self._hook = hook

    async def answer(self, request: RoutedRequest) -> HttpAnswer:
        headers = {name.lower(): head.field(request.http.headers, name) or "" for name in request.http.headers}
        status = (await self._hook(request.body, headers)).status
        return error(status, *REFUSALS[status]) if status in REFUSALS else json_answer(status, {})


def read_hints(body: bytes) -> Generator[None, None, list[Hint]]:
    """The hints of a request, a step for each few of them. Raises HintError, which names the one that is wrong."""
    if body.count(b",") > COMMAS:  # a list of 200,000 zeros would take longer to read than it may
        raise HintError(f"at most {MOST_HINTS} hints in one request")
    try:
        pieces = msgspec.json.decode(body, type=_HintsBody).hints
    except (ValueError, RecursionError) as mistake:
        raise HintError(f"{SHAPE}: {one_line(str(mistake), SHOWN)}") from None
    if len(pieces) > MOST_HINTS:
        raise HintError(f"at most {MOST_HINTS} hints in one request: these are {len(pieces)}")
    found = []
    for number, piece in enumerate(pieces):
        if number % STEP == 0:
            yield
        found.append(_read(number, piece))
    return found


class _HintsBody(msgspec.Struct, forbid_unknown_fields=True):
    hints: list[msgspec.Raw]


def _read(number: int, piece: msgspec.Raw) -> Hint:
    try:
        return hints.decode(bytes(piece))
    except HintError as mistake:
        raise HintError(f"hints[{number}]: {one_line(str(mistake), SHOWN)}") from None
