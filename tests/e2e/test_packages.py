"""What is handed out, as strangers take it: the sdist and the wheel, in environments that had nothing in them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.harness import REQUESTS, ROOT, get, until
from tests.e2e.test_demo import summarised
from tests.pythons import found

PYTHONS = found()
LOCKED = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", ROOT / "requirements.txt")


def done(*command, **more):
    said = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **more)
    assert said.returncode == 0, (command, said.stdout[-2000:], said.stderr[-2000:])
    return said.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The folder that it unpacks to."""
    folder = tmp_path_factory.mktemp("sdist")
    done(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (archive,) = folder.iterdir()
    done("tar", "-xzf", archive, "-C", folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the sdist alone, as an index would."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=sdist)
    (path,) = folder.iterdir()
    return path


def environment(folder, python):
    """An empty one; gives where its commands stand."""
    done(python, "-m", "venv", folder)
    return folder / "bin"


@pytest.fixture(scope="module", params=PYTHONS)
def commands(request, wheel, tmp_path_factory):
    """Where the wheel's commands stand, on one Python."""
    place = environment(tmp_path_factory.mktemp("installed") / request.param, PYTHONS[request.param])
    done(place / "python", "-m", "pip", "install", "--quiet", *LOCKED)
    done(place / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    done(place / "python", "-m", "pip", "check")
    return place


@pytest.fixture
def watcher(house, commands):
    """Starts a command of the wheel, far from the checkout."""
    return lambda *arguments, **more: house.watcher(
        *arguments, cwd=house.folder, program=[commands / "watcher"], **more
    )


def test_the_demo_shows_its_page_and_is_followed_and_ends_with_a_summary(watcher):
    demo = watcher("demo")
    until(lambda: "http://" in demo.out or demo.status is not None, "the demo serves")
    page, stream = (re.search(rf"{scheme}://127\.0\.0\.1:\d+/\S*", demo.out)[0] for scheme in ("http", "ws"))
    assert b"<html" in get(page)[1]
    tail = watcher("tail", stream, "--json")
    until(lambda: tail.out.count("\n") > 1 or tail.status is not None, lambda: f"changes are told: {tail.err}")
    assert tail.end(signal.SIGINT)[0] == 0, tail.err
    told = json.loads(tail.out.splitlines()[0])["event"]
    assert told["previous_amount"] != told["amount"]
    assert demo.end(signal.SIGINT)[0] == 0, demo.err


def test_the_demo_ends_by_itself(watcher):
    demo = watcher("demo", "--seconds", 5)
    assert demo.wait() == 0, demo.err
    _, figures = summarised(demo)
    assert sum(told for _, told, _, _ in figures.values()) > 0
    assert sum(refusals for *_, refusals in figures.values()) == 0


def test_check_takes_the_sample_that_came_with_it(watcher, house):
    sample = watcher("sample", env={"PYTHONIOENCODING": "ascii"})
    assert sample.wait() == 0, sample.err
    assert sample.out == (ROOT / "config" / "watcher.toml").read_text(encoding="utf-8")
    config = house.folder / "watcher.toml"
    config.write_text(sample.out, encoding="utf-8")
    keys = dict.fromkeys(re.findall(r'api_key_env = "(\w+)"', sample.out), "x")
    check = watcher("check", "--offline", env=keys)
    assert check.wait() == 0, check.err
    assert all(name in check.out for name in REQUESTS)


def test_check_asks_every_provider(watcher, house):
    sandbox = house.sandbox(limits="none")
    check = watcher("check", "-c", house.config(sandbox.providers()))
    assert check.wait() == 0, check.err
    assert all(f"{name}: answers with" in check.out for name in REQUESTS)


def test_the_schemas_and_deployment_files_are_in_the_wheel_and_nothing_that_lay_beside_them(commands):
    (package,) = commands.parent.glob("lib/python*/site-packages/watcher")
    deployed = {name for name in tracked() if name.startswith("config/")}
    assert {path.relative_to(package).as_posix() for path in (package / "config").iterdir()} == deployed
    published = {
        path.relative_to(ROOT) for path in (ROOT / "schemas").rglob("*") if path.suffix in (".json", ".msgpack")
    }
    assert {path.relative_to(package) for path in (package / "schemas").rglob("*") if path.is_file()} == published


def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("these tests run from an sdist themselves")
    return done("git", "ls-files", cwd=ROOT).split()


def test_the_sdist_has_all_that_the_checkout_has(sdist):
    assert [name for name in tracked() if not (sdist / name).is_file()] == []


def test_no_package_takes_a_secret_along_that_lies_in_the_checkout(sdist, tmp_path):
    place = tmp_path / "checkout"
    shutil.copytree(sdist, place)
    (place / "PKG-INFO").unlink()
    secrets = [
        ".env",
        "watcher.toml",
        "balances.db",
        "config/.env",
        "config/mine.toml",
        "watcher/.env",
        "docs/.env.local",
    ]
    for name in secrets:
        (place / name).write_text("canary")
    done(sys.executable, "-m", "hatchling", "build", "-d", tmp_path / "built", cwd=place)
    (archive,), (wheel,) = ((tmp_path / "built").glob(pattern) for pattern in ("*.tar.gz", "*.whl"))
    packed = done("tar", "-tzf", archive).split() + zipfile.ZipFile(wheel).namelist()
    assert len(packed) > 200
    assert [name for name in packed if any(name.endswith("/" + secret) for secret in secrets)] == [
        f"{sdist.name}/config/watcher.toml",
        "watcher/config/watcher.toml",
    ]


def test_the_readme_s_lines_install_it(sdist, tmp_path):
    found = re.search(
        r"## Run it\n.*?```sh\n(.*?)\n```.*?```sh\n(.*?)\nexport", (ROOT / "README.md").read_text(), re.DOTALL
    )
    lines = "\n".join(found.groups())
    assert lines.count("pip install") == 2
    home = tmp_path / "home"
    home.mkdir()
    place = tmp_path / "checkout"
    shutil.copytree(sdist, place)
    path = [str(_named_python3(tmp_path)), *os.environ["PATH"].split(os.pathsep)]
    there = os.environ | {"HOME": str(home), "PATH": os.pathsep.join(path)}
    done("bash", "-euc", lines, cwd=place, env=there)
    assert (place / "watcher.toml").read_text() == (ROOT / "config" / "watcher.toml").read_text()


def _named_python3(folder):
    """The Python that runs, under the name that the README gives it."""
    place = folder / "bin"
    place.mkdir()
    (place / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    return place


def test_the_image_s_steps_install_it(sdist, tmp_path):
    """Without Docker: its files, copied and installed as the Dockerfile says, into an environment of its own."""
    place = environment(tmp_path / "image", sys.executable)
    source = tmp_path / "src"
    source.mkdir()
    there = os.environ | {"PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *names, target = rest.split()
            for name in names:
                copy = shutil.copytree if (sdist / name).is_dir() else shutil.copy
                copy(sdist / name, source / target)
        elif word == "RUN" and "pip" in rest:
            done("sh", "-euc", rest, cwd=source, env=there)
    assert done(place / "watcher", "sample", cwd=tmp_path).startswith("# The one sample")
