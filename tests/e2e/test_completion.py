"""Completion, in the shells themselves: what TAB offers is what the parser takes."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.e2e.harness import ROOT
from watcher.app.cli import parser

CASES = [
    (
        "watcher ",
        {
            "demo",
            "run",
            "check",
            "rehearse",
            "init",
            "fleet",
            "sample",
            "tail",
            "sandbox",
            "completion",
            "webhook",
            "at",
            "history",
        },
    ),
    ("watcher ta", {"tail"}),
    ("watcher run --only ", {"pollers", "relay"}),
    ("watcher check --off", {"--offline"}),
    ("watcher check --log-level w", {"warning"}),
    ("watcher check -c ", {"one.toml"}),
    ("watcher rehearse --ol", {"--old"}),
    ("watcher rehearse --old ", {"one.toml"}),
    ("watcher --log-level error fleet l", {"leave"}),
    ("watcher completion z", {"zsh"}),
    ("watcher at --cs", {"--csv"}),
    ("watcher history --f", {"--from"}),
    ("watcher history -c ", {"one.toml"}),
]
BASH = """
source "$1"; line=$2; COMP_WORDS=($line); [[ $line == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _watcher; printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
zmodload zsh/zpty; zpty z zsh -f -i
said() { local line; while zpty -r z line; do print -r -- "$line"; [[ $line == *$1* ]] && return; done }
zpty -w z 'PS1=; autoload -Uz compinit; compinit -u -D; zstyle ":completion:*" list-colors "no="; setopt noautomenu nobeep'
zpty -w z "source $1; LISTMAX=10000; stty columns 300; print ready\\$((1 + 1))"
said ready2 > /dev/null
zpty -w -n z "$2"$'\\t\\t'; shown=
for word in "${@:3}"; do while [[ $shown != *$word* ]]; do zpty -r z some '?*' || exit; shown+=$some; done; done
print -r -- "$shown"; zpty -w -n z $'\\C-u'; zpty -w z 'print done$((1 + 1))'
said done2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The scripts as the command prints them, and one file to complete."""
    place = tmp_path_factory.mktemp("completion")
    (place / "files").mkdir()
    (place / "files" / "one.toml").touch()
    for shell in ("bash", "zsh", "fish"):
        command = (sys.executable, "-m", "watcher", "completion", shell)
        said = subprocess.run(command, capture_output=True, cwd=ROOT, check=True)
        assert said.stderr == b""
        (place / shell).write_bytes(said.stdout)
    return place


def words(folder, *command):
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    said = subprocess.run(
        command, capture_output=True, text=True, cwd=folder / "files", env=environment, check=False, timeout=60
    )
    assert said.stderr == "", said.stderr
    return said.stdout


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_bash_offers_what_the_parser_takes(folder, line, offered):
    said = words(folder, "bash", "--norc", "-c", BASH, "-", folder / "bash", line)
    assert offered <= {*said.split()}
    assert all(word.startswith("-") for word in {*said.split()} - offered)


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_fish_offers_what_the_parser_takes(folder, line, offered):
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    code = f"source {folder / 'fish'}; complete -C {line!r}"
    said = {row.partition("\t")[0] for row in words(folder, "fish", "--no-config", "-c", code).splitlines()}
    assert offered <= said
    assert all(word.startswith("-") for word in said - offered)


@pytest.mark.parametrize(("line", "offered"), CASES)
def test_zsh_offers_what_the_parser_takes(folder, line, offered):
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    said = words(folder, "zsh", "-f", "-c", ZSH, "zsh", folder / "zsh", line, *sorted(offered))
    assert all(word in said for word in offered), said


def every_parser(top):
    yield top
    for command in top.commands.values():
        yield from every_parser(command)


def test_every_help_tells_the_default_of_all_that_takes_a_value():
    for one in every_parser(parser()):
        for action in one.known:
            # A place that must be filled and a plain flag have none to tell.
            if action.nargs != 0 and (action.option_strings or action.nargs == "?"):
                text = action.help % {"default": action.default}
                assert "default:" in text, (one.prog, action.option_strings or action.dest)
