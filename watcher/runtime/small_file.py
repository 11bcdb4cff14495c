"""Small files that somebody names: read whole, up to a bound, and never waited at."""

import errno
import os
import stat
from pathlib import Path

PEM_BYTES = 16 * 1024 * 1024
"""Of certificates or keys: those of all authorities of the world have a quarter of a megabyte."""


class NotRegular(OSError):
    """A device stands there, or what the subclass says; of a folder it is IsADirectoryError, as ever."""


class Pipe(NotRegular):
    """A pipe: it could be waited at for ever."""


class TooLong(OSError):
    """It holds more than it may."""


def read(path: str | Path, most: int) -> bytes:
    """What a regular file holds, at most so many bytes. Raises OSError, and ValueError for a path that can be none."""
    with open(path, "rb", opener=_open) as file:
        mode = os.fstat(file.fileno()).st_mode  # of what was opened: by now another may stand at the path
        if stat.S_ISFIFO(mode):
            raise Pipe(errno.EINVAL, "it is a pipe", str(path))
        if not stat.S_ISREG(mode):
            raise NotRegular(errno.EINVAL, "it is no regular file", str(path))
        return _bounded(file.read(most + 1), most, path)


def read_once(path: str | Path, most: int) -> bytes:
    """The same of whatever stands there; a pipe is waited at. For what is read at a start alone."""
    with Path(path).open("rb") as file:
        return _bounded(file.read(most + 1), most, path)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe is opened although nobody writes to it


def _bounded(data: bytes, most: int, path: str | Path) -> bytes:
    if len(data) > most:
        raise TooLong(errno.EFBIG, f"it holds more than {most} bytes", str(path))
    return data
