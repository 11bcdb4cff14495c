"""Which log a SQLite file holds. A file knows itself: one that was copied, or put back from a backup, is another log.

Three witnesses, none of them in what a copy takes along: the inode; the time when it was made, where the file system
tells it (an inode's number is given away again); and a mark, an extended attribute that says how far the log in this
file has come (contents that were put back into the same file are behind it). The device's number is none: a reboot
may change it. What no witness sees is a whole volume that is rolled back or cloned, and contents that were put back
together with a mark of their own: `watcher init --new-log` is for those.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MARK = "user.balance-watcher"
"""The extended attribute. Its text is the cursor of the head when it was written."""

LINUX: bool = sys.platform == "linux"
AT_FDCWD, STATX_INO, STATX_BTIME = -100, 0x100, 0x800
STATX = {"x86_64": 332, "aarch64": 291}
"""The system call's number, for a C library that does not know it (musl before 1.2.5, glibc before 2.28)."""


class FileIdentity(NamedTuple):
    """One file, whatever it is called and whatever stands in it."""

    inode: int
    made: int | None = None
    """Nanoseconds since 1970. None: the file system does not tell."""

    def __str__(self) -> str:
        return str(self.inode) if self.made is None else f"{self.inode}@{self.made}"

    @classmethod
    def parse(cls, text: str) -> "FileIdentity":
        inode, _, made = text.partition("@")
        return cls(int(inode), int(made) if made else None)

    def is_same(self, other: "FileIdentity") -> bool:
        return self.inode == other.inode and (None in (self.made, other.made) or self.made == other.made)


class _Statx(ctypes.Structure):
    """The kernel's `struct statx`: the same on every architecture."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("_1", ctypes.c_uint8 * 28),
        ("inode", ctypes.c_uint64),
        ("_2", ctypes.c_uint8 * 40),
        ("made_seconds", ctypes.c_int64),
        ("made_nanoseconds", ctypes.c_uint32),
        ("_3", ctypes.c_uint8 * 164),
    )


def identify(path: Path) -> FileIdentity:
    """The file at that path, behind any symbolic link. Raises OSError when there is none."""
    if LINUX:
        found = _statx(path)
        if found is not None and found.mask & STATX_BTIME:
            return FileIdentity(found.inode, found.made_seconds * 1_000_000_000 + found.made_nanoseconds)
        return FileIdentity(path.stat().st_ino)
    found_here = path.stat()
    made: float | None = getattr(found_here, "st_birthtime", None)
    return FileIdentity(found_here.st_ino, None if made is None else int(made * 1e9))


def _statx(path: Path) -> _Statx | None:
    """None where it cannot be asked: an old kernel, a sandbox that forbids it, a C library that knows no such call."""
    statx = _Statx()
    with contextlib.suppress(OSError, AttributeError, KeyError):
        call = _call()
        if call(AT_FDCWD, os.fsencode(path), 0, STATX_INO | STATX_BTIME, ctypes.byref(statx)) == 0:
            return statx
    return None


def _call() -> Callable[..., int]:
    """statx(2) by the C library's name, else by number. Raises AttributeError, KeyError."""
    library = ctypes.CDLL(None)
    if hasattr(library, "statx"):
        statx = library.statx
        statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
        return statx
    syscall, number = library.syscall, ctypes.c_long(STATX[platform.machine()])
    syscall.restype = ctypes.c_long
    return lambda folder, name, flags, mask, statx: syscall(
        number, ctypes.c_int(folder), ctypes.c_char_p(name), ctypes.c_int(flags), ctypes.c_uint(mask), statx
    )


def mark_of(path: Path) -> str:
    """How far the log in that file had come; empty when nobody said it, or the file system keeps no marks."""
    mark = b""
    if LINUX:
        with contextlib.suppress(OSError):
            mark = os.getxattr(path, MARK)
    return mark.decode() if re.fullmatch(rb"[0-9a-f]+\.[0-9]+", mark) else ""


def keeps_marks(path: Path) -> bool:
    """Whether the file system does: a file without one then had none."""
    if not LINUX:
        return False
    try:
        os.getxattr(path, MARK)
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def leave_mark(path: Path, epoch: str, head: int) -> None:
    """Say how far the log has come. Behind the commit that it speaks of, never before: a kill in between is harmless.

    By its path: to open the file and close it again would take SQLite's locks away.
    """
    if LINUX:
        with contextlib.suppress(OSError):
            os.setxattr(path, MARK, f"{epoch}.{head}".encode())


class LogMetadata(NamedTuple):
    """What the database stores about its log."""

    log: str
    """The epoch."""
    file: str
    """The file that it was written to; empty before anyone who knows of it has opened it."""
    former: str
    """The log that the mark spoke of when this one began."""
    head: int


def epoch_of(contents: LogMetadata, file: FileIdentity, mark: str) -> str:
    """The epoch of the log in that file: the stored one, or, when a copy or a restore made another log of it, one that
    follows from what tells them apart, so that whoever looks first, a reader too, calls it the same."""
    if not contents.file:
        return contents.log
    epoch, _, head = mark.partition(".")
    ahead = epoch == contents.log and int(head) > contents.head
    if FileIdentity.parse(contents.file).is_same(file) and not ahead and epoch in ("", contents.log, contents.former):
        return contents.log
    return hashlib.blake2b(f"{contents.log}\n{file}\n{mark}".encode(), digest_size=8).hexdigest()
