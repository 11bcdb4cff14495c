"""The Pythons that we promise, as far as they are here: on the PATH, or among pyenv's.

`python -m tests.pythons` tells where those are that differ from its own, a line each.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.lock import PYTHONS

ABLE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


def found() -> dict[str, Path]:
    """By version, as `3.12`."""
    usual = {python: next(filter(_runs(python), _candidates(python)), None) for python in PYTHONS}
    return {python: path for python, path in usual.items() if path is not None}


def _candidates(python: str) -> Iterator[Path]:
    name = f"python{python}"
    if path := shutil.which(name):
        yield Path(path)
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(kept.glob(f"{python}.*/bin/{name}"))


def _runs(python: str):
    """A name on the PATH may be a shim with nothing behind it."""

    def runs(path: Path) -> bool:
        said = subprocess.run([path, "-c", ABLE], capture_output=True, text=True, check=False)
        return said.stdout.strip() == python

    return runs


if __name__ == "__main__":
    ours = "{}.{}".format(*sys.version_info)
    print(*(path for python, path in found().items() if python != ours), sep="\n")
