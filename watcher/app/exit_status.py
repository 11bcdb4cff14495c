"""How a process ends: each known reason with its status and one line for the user. Anything else is a bug, and shows."""

import contextlib
from collections.abc import Iterator

from watcher.journal import Fenced, Forbidden, Unwritable, WrongJournal
from watcher.logs.output import ReaderGone
from watcher.model.log import JournalError, Unavailable
from watcher.runtime.config_section import SettingsError


class Exit(Exception):
    """The end of the process: its status, and one line for the user (empty: none is needed)."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@contextlib.contextmanager
def exits_for_known_errors() -> Iterator[None]:
    """Turns what ended the work into an Exit. What is not named here is a bug, and shows itself as one."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise ending(group) from group
    except (JournalError, SettingsError, ReaderGone, OSError) as error:
        raise ending(error) from error


ENDINGS: tuple[tuple[type[BaseException], int], ...] = (
    (Fenced, 75),
    (Forbidden, 78),
    (WrongJournal, 2),
    (SettingsError, 2),
    (Unavailable, 69),
    (Unwritable, 69),
    (OSError, 69),
    (ReaderGone, 0),
)
"""In the order in which they count when several things end at once."""


def ending(error: BaseException) -> Exit:
    """The Exit that an error means; raises the error itself when it is none of the named ones."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, Exit):
            return leaf
    unknown = [leaf for leaf in leaves if not isinstance(leaf, tuple(kind for kind, _ in ENDINGS))]
    if unknown:
        raise error
    for kind, status in ENDINGS:
        for leaf in leaves:
            if isinstance(leaf, kind):
                return Exit(status, _words(leaf))
    raise error


def _words(error: BaseException) -> str:
    """Without the error's number, which says nothing to people."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
