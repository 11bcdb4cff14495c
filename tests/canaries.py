"""Every key that a test gives us is a canary: after each test what was shown and written is searched for all of them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from watcher.sandbox.messages import VALID_KEY

CANARIES = (VALID_KEY.encode(), b"canary-")
"""What the keys begin with that stand in the tests' configurations."""
WRITTEN = (".out", ".err", ".log", ".db", ".db-wal")
"""What our processes write: their output, their journals. Configurations and files with keys are the test's own."""
TOLD = b"the key is "
"""`watcher sandbox` says which key it takes."""


def shown(report: pytest.TestReport, folder: Path | None) -> Iterator[str]:
    """Lines with a key in them: of what was captured, and of the files below the test's folder."""
    yield from leaks("captured", "\n".join(text for _, text in report.sections).encode(errors="replace").splitlines())
    for path in sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else ():
        if path.name.endswith(WRITTEN) and path.is_file():
            with path.open("rb") as lines:
                yield from leaks(path.name, lines)


def leaks(where: str, lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        if any(canary in line for canary in CANARIES) and TOLD not in line:
            yield f"{where}: {line[:500]!r}"
