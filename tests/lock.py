"""Whether the locks are complete: every requirement of every locked package, on each Python that we promise.

The suite asks this of what is committed, from what is installed. `make lock` asks it of what it has just resolved, from
the wheels of each Python themselves: `python -m tests.lock`.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
"""As the classifiers of pyproject.toml promise them."""
INSTALL = (
    sys.executable,
    "-m",
    "uv",
    "pip",
    "install",
    "--quiet",
    "--no-deps",
    "--require-hashes",
    "--only-binary=:all:",
)

Requirements = Sequence[Requirement]
Environment = Mapping[str, str]


class Pin(NamedTuple):
    """A line of a lock."""

    version: Version
    marker: Marker | None
    hashes: frozenset[str]

    def holds(self, environment: Environment) -> bool:
        return _holds(self.marker, environment)


class Wheel(NamedTuple):
    """What a wheel tells of itself."""

    version: Version
    extras: frozenset[str]
    requires: Requirements


Wheels = Mapping[str, Wheel]
"""By canonical name."""
Lock = Mapping[str, Sequence[Pin]]
"""Pins by canonical name: several where another version is meant for another Python."""


def project() -> tuple[Requirements, Requirements, Requirements]:
    """What pyproject.toml asks for: to run, to build, and for tests."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run, build = table["project"]["dependencies"], table["build-system"]["requires"]
    tests = table["project"]["optional-dependencies"]["dev"]
    return tuple([Requirement(line) for line in lines] for lines in (run, build, tests))  # type: ignore[return-value]


def locks() -> dict[str, Requirements]:
    """Each lock, and what it must be enough for."""
    run, build, tests = project()
    every = [*run, *build, *tests]
    return {"requirements.txt": [*run, *build], "requirements-dev.txt": every, "requirements-lowest.txt": every}


def read(text: str) -> dict[str, list[Pin]]:
    """A lock as it is written: pinned versions, with hashes, nothing else. Raises ValueError."""
    found: dict[str, list[Pin]] = {}
    uncommented = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in filter(str.strip, uncommented.replace("\\\n", " ").splitlines()):
        words, *hashes = line.split(" --hash=")
        requirement = Requirement(words)
        exact = [one.version for one in requirement.specifier if one.operator == "=="]
        if len(exact) != 1 or "*" in exact[0]:
            raise ValueError(f"{words.strip()} is not one version")
        pin = Pin(Version(exact[0]), requirement.marker, frozenset(map(str.strip, hashes)))
        found.setdefault(canonicalize_name(requirement.name), []).append(pin)
    return found


def environment(python: str, system: str = "Linux") -> Environment:
    """What markers are judged by: this machine's, under another Python (`3.12.0`) and system (`Darwin`)."""
    under = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    return {**default_environment(), **under, "platform_system": system, "sys_platform": system.lower()}


def installed(*path: str) -> Wheels:
    """What stands there; without a path, what this Python can import."""
    wheels = {}
    for found in distributions(path=list(path)) if path else distributions():
        headers = found.metadata  # read anew each time that it is asked for
        extras = frozenset(canonicalize_name(extra) for extra in headers.get_all("Provides-Extra") or ())
        requires = [Requirement(line) for line in headers.get_all("Requires-Dist") or ()]
        wheels[canonicalize_name(headers["Name"])] = Wheel(Version(headers["Version"]), extras, requires)
    return wheels


def gaps(
    lock: Lock, asked: Requirements, wheels: Wheels, environment: Environment, *, all_known: bool
) -> Iterator[str]:
    """What the lock lacks there, a line each.

    `wheels` tell what each locked package asks for in turn. `all_known`: one whose wheel is not among them is a gap too,
    else nothing is said of it.
    """
    yield from (f"{name} has no hash" for name, pins in lock.items() for pin in pins if not _hashed(pin))
    several = {name: [pin for pin in pins if pin.holds(environment)] for name, pins in lock.items()}
    yield from (f"{name} is locked in two versions" for name, pins in several.items() if len(pins) > 1)
    here = {name: pins[0] for name, pins in several.items() if pins}
    waiting = [(one, "pyproject.toml") for one in asked if _holds(one.marker, environment)]
    waiting += [(Requirement(name), "the lock") for name in here]
    seen = set()
    while waiting:
        requirement, whose = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in here:
            yield f"{requirement} (asked for by {whose}) is not in the lock"
            continue
        version = here[name].version
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement} (asked for by {whose}) is not met by {name} {version}"
        wheel = wheels.get(name)
        if wheel is None or wheel.version != version:
            if all_known and name not in seen:
                yield f"{name} {version} is locked, and not installed"
            seen.add(name)
            continue
        for extra in ("", *requirement.extras):
            if extra and canonicalize_name(extra) not in wheel.extras:
                yield f"{requirement} (asked for by {whose}): {name} {version} has no such extra"
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [
                    (one, f"{name} {version}") for one in wheel.requires if _holds(one.marker, environment, extra)
                ]


def _hashed(pin: Pin) -> bool:
    return bool(pin.hashes) and all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in pin.hashes)


def _holds(marker: Marker | None, environment: Environment, extra: str = "") -> bool:
    return marker is None or marker.evaluate({**environment, "extra": extra})


def main() -> int:
    """Resolved anew: bring the wheels of each Python, as they would be installed, and look."""
    found, written = 0, locks()
    for name, asked in written.items():
        lock = read((ROOT / name).read_text())
        for python in PYTHONS:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(
                    [*INSTALL, "--python-version", python, "--target", folder, "-r", ROOT / name], check=True
                )
                there = environment(f"{python}.0")
                for gap in gaps(lock, asked, installed(folder), there, all_known=True):
                    print(f"{name}, Python {python}: {gap}", file=sys.stderr)
                    found += 1
    print(f"{len(written)} locks, Python {', '.join(PYTHONS)}: {found or 'no'} gaps")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
