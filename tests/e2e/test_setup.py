"""`make setup`: an environment is there whole, or not at all."""

import os
import re
import shutil
import signal
import subprocess

import pytest

from tests.e2e.harness import ROOT, until

TOP = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
"""Nothing of the `make` that runs these tests."""


def make(*arguments, cwd, env=TOP):
    return subprocess.run(
        ["make", *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def checkout(tmp_path):
    """What set-up needs of ours, in a folder of its own."""
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "requirements-dev.txt").write_text(short_lock())
    for name in ("watcher", "config", "schemas"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def short_lock():
    """What ours needs to run and to be installed. Who runs these tests has installed all of it, by the same Makefile."""
    builder = re.search(
        r"^editables==.*?(?=^\S)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE | re.DOTALL
    )
    return (ROOT / "requirements.txt").read_text() + builder[0]


def ready(checkout):
    """Whether `make` finds nothing left to do."""
    return make("--question", "setup", cwd=checkout).returncode == 0


def cut_short(checkout, when):
    """Kill it, and all that it started, once `when` is true."""
    begun = subprocess.Popen(
        ["make", "setup"],
        cwd=checkout,
        env=TOP,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: when() or begun.poll() is not None, "set-up is under way")
    assert begun.poll() is None
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()


def look_installed(folder):
    """What pip takes for h11, without h11."""
    place = folder / "h11-0.16.0.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: h11\nVersion: 0.16.0\n")


def test_what_was_cut_short_is_begun_anew_and_ends_whole(checkout):
    venv = checkout / ".venv"
    packages = venv / "lib"
    cut_short(checkout, lambda: len(list(packages.glob("python*/site-packages/*.dist-info"))) > 5)
    assert not ready(checkout)
    # What the cut may leave, at its worst: a package that looks installed and is not.
    (site,) = packages.glob("python*/site-packages")
    look_installed(site)
    shutil.rmtree(site / "h11", ignore_errors=True)
    # And two who make it at the same time, among foreign packages that Python shows.
    shown = checkout / "shown"
    look_installed(shown)
    there = TOP | {"PYTHONPATH": str(shown), "PIP_USER": "1", "PIP_REQUIRE_HASHES": "1", "PIP_TARGET": str(shown)}
    with (checkout / "said").open("w") as said:
        both = [
            subprocess.Popen(["make", "setup"], cwd=checkout, env=there, stdout=said, stderr=said) for _ in range(2)
        ]
        assert [one.wait() for one in both] == [0, 0], (checkout / "said").read_text()
    assert (checkout / "said").read_text().count("-m venv .venv") == 1
    assert ready(checkout)
    subprocess.run([venv / "bin" / "python", "-I", "-c", "import h11, watcher.sandbox.server"], check=True)
    # Elsewhere it is none, nor when its Python is gone.
    elsewhere = checkout.with_name("elsewhere")
    shutil.copytree(checkout, elsewhere, symlinks=True)
    assert not ready(elsewhere)
    python = venv / "bin" / "python"
    stood = python.readlink()
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert not ready(checkout)
    python.unlink()
    python.symlink_to(stood)
    assert ready(checkout)
    # One that was whole is none while it is made anew, and after that was cut.
    os.utime(checkout / "requirements-dev.txt")
    assert not ready(checkout)
    cut_short(checkout, (venv / ".begun").exists)
    os.utime(checkout / "requirements-dev.txt", (0, 0))
    os.utime(checkout / "pyproject.toml", (0, 0))
    assert not ready(checkout)


def test_a_folder_that_is_no_environment_is_left_alone(checkout):
    (checkout / "mine").mkdir()
    (checkout / "mine" / "thesis.txt").write_text("all of it")
    done = make("setup", "VENV=mine", cwd=checkout)
    assert done.returncode == 2
    assert "mine is there and is no environment" in done.stderr
    assert [path.name for path in (checkout / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["VENV", "LOCK", "PIP"])
def test_what_stands_in_the_environment_names_nothing_that_set_up_takes_or_clears(checkout, name):
    """A `make` gives the words of its command line on to all that it starts, these tests too."""
    said = make("--dry-run", "setup", cwd=checkout, env=TOP | {name: "elsewhere"})
    assert said.returncode == 0, said.stderr
    assert "-m venv .venv" in said.stdout
    assert "elsewhere" not in said.stdout


@pytest.mark.parametrize("python", ["", "false", "/nowhere/python3"])
def test_without_a_python_that_will_do_it_says_which_will(checkout, python):
    done = make("setup", f"PYTHON={python}", cwd=checkout)
    assert done.returncode == 2
    assert "Python 3.11 to 3.14, with venv, is needed" in done.stderr
    assert not (checkout / ".venv").exists()
