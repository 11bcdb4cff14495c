"""The locks are enough: for what pyproject.toml asks, on each Python that it promises, without asking a registry."""

import ast
import functools
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import lock
from tests.lock import PYTHONS, ROOT

LOCKS = lock.locks()
WHEELS = lock.installed()
HERE = "{}.{}.{}".format(*sys.version_info)
PATCHES = [*(f"{python}.{patch}" for python in (*PYTHONS, "3.14") for patch in (0, 20)), HERE]
"""Requirements may tell the patches of one Python apart. The Makefile takes 3.14 too, where it finds nothing else."""


@functools.cache
def committed(name):
    return lock.read((ROOT / name).read_text())


def here(pins):
    """What a lock has for the Python that runs."""
    return {name: pin for name, several in pins.items() for pin in several if pin.holds(lock.environment(HERE))}


def stands_here(pins):
    """Whether this environment is made from that lock, or from one that has it in it."""
    return all(name in WHEELS and WHEELS[name].version == pin.version for name, pin in here(pins).items())


def gaps(pins, asked, *, python=HERE, system="Linux"):
    known = python == HERE and stands_here(pins)
    return list(lock.gaps(pins, asked, WHEELS, lock.environment(python, system), all_known=known))


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
@pytest.mark.parametrize("python", PATCHES)
@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_of_every_locked_package_is_met_by_the_lock(name, python, system):
    assert gaps(committed(name), LOCKS[name], python=python, system=system) == []


WHOLE = next(
    (name for name in ("requirements-dev.txt", "requirements-lowest.txt") if stands_here(committed(name))), None
)
"""The lock that this environment is made from."""


def test_this_environment_is_made_from_one_of_the_locks_so_that_all_of_it_was_looked_at():
    assert WHOLE


@pytest.mark.parametrize("taken", here(committed(WHOLE)) if WHOLE else ())
def test_a_line_that_is_taken_away_is_missed(taken):
    rest = {name: pins for name, pins in committed(WHOLE).items() if name != taken}
    missed = [gap for gap in gaps(rest, LOCKS[WHOLE]) if gap.endswith(" is not in the lock")]
    assert {canonicalize_name(re.match(r"[\w.-]+", gap)[0]) for gap in missed} == {taken}


def test_a_requirement_of_ours_that_gains_an_extra_is_missed():
    more = [*LOCKS[WHOLE], Requirement("httpx[http2,socks]")]
    (gap,) = gaps(committed(WHOLE), more)
    assert re.match(r"socksio\b.*\(asked for by httpx .*\) is not in the lock", gap)


HASH = " --hash=sha256:" + 64 * "0"


def wheel(folder, name, version, *headers):
    """What a wheel leaves in an environment and tells of itself."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    lines = ("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *headers)
    (place / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("asks", "gap"),
    [
        ("b>=1", None),
        ("b[fast]", None),
        ("b[fast,new]", "b[fast,new] (asked for by a 1): b 2 has no such extra"),
        ("b[slow]", 'd>=2; extra == "slow" (asked for by b 2) is not met by d 1'),
        ("b>=3", "b>=3 (asked for by a 1) is not met by b 2"),
        ("e", "e (asked for by a 1) is not in the lock"),
        ('e; python_version < "3.12"', 'e; python_version < "3.12" (asked for by a 1) is not in the lock'),
        ('e; python_version > "3.11"', None),
    ],
)
def test_a_requirement_of_a_locked_package_is_followed_with_its_extras_and_markers(tmp_path, asks, gap):
    wheel(tmp_path, "a", 1, f"Requires-Dist: {asks}")
    extras = ("Provides-Extra: fast", "Requires-Dist: c; extra == 'fast'", "Provides-Extra: slow")
    wheel(tmp_path, "b", 2, *extras, "Requires-Dist: d>=2; extra == 'slow'")
    wheel(tmp_path, "c", 1)
    wheel(tmp_path, "d", 1)
    pins = lock.read("".join(f"{line}{HASH}\n" for line in ("a==1", "b==2", "c==1", "d==1")))
    there = lock.environment("3.11.0")
    found = list(lock.gaps(pins, [Requirement("a")], lock.installed(str(tmp_path)), there, all_known=True))
    assert found == ([gap] if gap else [])


def test_a_package_that_is_locked_without_a_hash_or_not_installed_is_told(tmp_path):
    there = lock.environment("3.11.0")
    found = list(lock.gaps(lock.read("a==1\n"), [], lock.installed(str(tmp_path)), there, all_known=True))
    assert found == ["a has no hash", "a 1 is locked, and not installed"]


@pytest.mark.parametrize(
    ("lines", "gap"),
    [
        (["a==1 --hash=sha256:00"], "a has no hash"),
        (["a==1 --hash=md5:" + 64 * "0"], "a has no hash"),
        (["a==1" + HASH, "b==1 ; sys_platform == 'win32'"], "b has no hash"),
        (["a==1" + HASH, "a==2" + HASH], "a is locked in two versions"),
        (["a==1" + HASH, "a==2 ; sys_platform == 'win32'" + HASH], None),
        (["a==1 ; python_version < '3.12'" + HASH], None),
    ],
)
def test_a_lock_that_says_too_little_or_two_things_is_told(tmp_path, lines, gap):
    wheel(tmp_path, "a", 1)
    asked = [Requirement("a"), Requirement("b; sys_platform == 'win32'")]
    wheels = lock.installed(str(tmp_path))
    found = list(lock.gaps(lock.read("\n".join(lines)), asked, wheels, lock.environment("3.11.0"), all_known=True))
    assert found == ([gap] if gap else [])


@pytest.mark.parametrize("line", ["a>=1", "a", "a==1.*"])
def test_a_lock_has_exact_versions_alone(line):
    with pytest.raises(ValueError, match="is not one version"):
        lock.read(line)


def test_each_floor_is_the_version_that_is_tried_as_the_lowest():
    lowest = committed("requirements-lowest.txt")
    run, _, tests = lock.project()
    for requirement in [*run, *tests]:
        floor = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        (pin,) = lowest[canonicalize_name(requirement.name)]
        assert floor == [pin.version], requirement


def test_what_is_relied_on_in_private_has_a_cap():
    run, _, _ = lock.project()
    capped = {one.name for one in run if any(part.operator == "<" for part in one.specifier)}
    assert capped == {"aiokafka", "anyio", "httpcore", "httpx", "websockets"}
    tried = "".join(path.read_text() for path in (ROOT / "tests" / "compat").glob("test_*.py"))
    assert all(f"import {name}" in tried or f"from {name}" in tried for name in capped)


def test_the_pythons_that_are_promised_are_those_that_are_tried():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [line.rpartition(" ")[2] for line in table["classifiers"] if re.search(r":: Python :: 3\.\d", line)]
    assert tuple(promised) == PYTHONS
    assert table["requires-python"] == f">={PYTHONS[0]}"


def test_what_runs_was_tested_in_the_same_files():
    tested = committed("requirements-dev.txt")
    assert all(tested[name] == pins for name, pins in committed("requirements.txt").items())


owners_of_modules = functools.cache(packages_distributions)


@pytest.mark.parametrize("folder", ["watcher", "tests"])
def test_what_is_imported_is_declared(folder):
    run, build, tests = lock.project()
    declared = {canonicalize_name(one.name) for one in (run if folder == "watcher" else [*run, *build, *tests])}
    owners = owners_of_modules()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            allowed = {"tests", "watcher", "pytest"} if "testing" in path.parts else {"tests", "watcher"}
            allowed |= {"schemas"} if folder == "tests" else set()
            if path.with_name("pyproject.toml").exists():  # a distribution of its own
                allowed |= {module.stem for module in path.parent.glob("*.py")}
            for name in {name.split(".")[0] for name in names} - allowed - sys.stdlib_module_names:
                assert declared & {canonicalize_name(owner) for owner in owners[name]}, f"{path} imports {name}"


OF_THE_INSTALLERS = re.compile(r"install --quiet (--disable-pip-version-check uv packaging$|\$\(PIP\)\)$)")
"""The pip that somebody names, and what `make lock` resolves with."""


def installs(path):
    """The commands of a file that install something, as they are run."""
    text = path.read_text(errors="replace").replace("\\\n", " ")
    for name in ("INSTALL", "PIPS"):
        if found := re.search(rf"^{name} := (.*)$", text, re.MULTILINE):
            text = text.replace(found[0], "").replace(f"$({name})", found[1])
    commands = re.split(r"\n|&&", text)
    return [line for line in commands if re.search(r"\bpip[\d.]*\b.*\s(install|download|wheel|check)\b", line)]


def test_nothing_that_installs_asks_a_resolver():
    places = [ROOT / name for name in ("Makefile", "README.md", "Dockerfile", "CONTRIBUTING.md", ".ci/run")]
    places += [*(ROOT / "docs").glob("*.md"), *(ROOT / "config").iterdir()]
    found = {path.name: installs(path) for path in places}
    assert all(found[name] for name in ("Makefile", "README.md", "Dockerfile"))
    for path, lines in found.items():
        *before, last = [line for line in lines if not OF_THE_INSTALLERS.search(line)] or [None]
        assert last is None or re.search(r" check\b", last), (path, "installs, and does not check what it has")
        for line in before:
            assert "--no-deps" in line, (path, line)
            assert re.search(r"--require-hashes -r |--no-build-isolation (-e )?\.", line), (path, line)
