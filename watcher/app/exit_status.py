"""How a process ends: each known error with its exit status and one line for the user. Any other error is a bug."""

import contextlib
from collections.abc import Iterator, Sequence

from watcher.journal import Fenced, Forbidden, Unwritable, WrongJournal
from watcher.logs.output import ReaderClosed
from watcher.model.log import Closed, JournalError, Unavailable
from watcher.runtime.config_section import SettingsError


class Exit(Exception):
    """The end of the process: its status, and one line for the user (empty: none is needed)."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@contextlib.contextmanager
def exits_for_known_errors() -> Iterator[None]:
    """Turns a known error into an Exit. Any other error is a bug and passes as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise exit_for(group) from group
    except (JournalError, SettingsError, ReaderClosed, OSError) as error:
        raise exit_for(error) from error


STATUS_OF: tuple[tuple[type[BaseException], int], ...] = (
    (Fenced, 75),
    (Forbidden, 78),
    (WrongJournal, 2),
    (SettingsError, 2),
    (Unwritable, 69),
    (Unavailable, 69),  # behind what has closed the journal: whoever waits for a commit then learns no more than that
    (OSError, 69),
    (ReaderClosed, 0),
)
"""When several errors come together, the first one of this list decides, and of those the one that happened first."""


def exit_for(error: BaseException) -> Exit:
    """The Exit for an error of STATUS_OF. Raises the error itself when it is none of these.

    Of several, what follows from another one is not told: it would be the last line, and hide the cause.
    """
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, Exit):
            return leaf
    unknown = [leaf for leaf in leaves if not isinstance(leaf, tuple(kind for kind, _ in STATUS_OF))]
    if unknown:
        raise error
    causes = [leaf for leaf in leaves if not isinstance(leaf, Closed)] or leaves
    kind, status = next(row for row in STATUS_OF if any(isinstance(leaf, row[0]) for leaf in causes))
    return Exit(status, _words(_first([leaf for leaf in causes if isinstance(leaf, kind)])))


def _first(errors: Sequence[BaseException]) -> BaseException:
    """The one that happened first, as far as they say: a group has its errors in the order in which its tasks ended."""
    return min(errors, key=lambda error: error.number if isinstance(error, JournalError) else 0)


def _words(error: BaseException) -> str:
    """The message without the error number, which says nothing to people."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
