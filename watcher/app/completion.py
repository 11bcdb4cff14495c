"""`watcher completion SHELL`: a script that completes commands, flags and their values, made from the parser itself."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from watcher.app.arguments import Parser


def script(shell: str, parser: Parser) -> str:
    """The script for `bash`, `zsh` or `fish`."""
    return SHELLS[shell](parser)


def _bash(top: Parser) -> str:
    """Bash offers words; which ones, the command before and the flag before the cursor decide."""
    return f"""# bash completion of watcher: eval "$(watcher completion bash)"
_watcher() {{
    local now=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= words= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in {"|".join(top.commands)}) command=${{COMP_WORDS[i]}}; break ;; esac
    done
    case $command,$before in
{_bash_values(top)}
    esac
    case $command in
{_bash_words(top)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$now"))
}}
complete -o filenames -F _watcher watcher
"""


def _bash_values(top: Parser) -> str:
    """What may stand behind a flag that takes a value."""
    return "\n".join(
        f"        {' | '.join(f'{name},{flag}' for flag in action.option_strings)}) {_bash_reply(action)}; return ;;"
        for name, parser in {"": top, **top.commands}.items()
        for action in parser.flags()
        if action.nargs != 0
    )


def _bash_reply(action: argparse.Action) -> str:
    if action.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(map(str, action.choices))}" -- "$now"))'
    return 'COMPREPLY=($(compgen -f -- "$now"))' if _is_file(action) else "COMPREPLY=()"


def _bash_words(top: Parser) -> str:
    return "\n".join(
        f'        {name}) words="{" ".join([*_places(parser), *_flags(parser)])}" ;;'
        for name, parser in {"''": top, **top.commands}.items()
    )


def _zsh(top: Parser) -> str:
    commands = "\n".join(f"        {_quoted(f'{name}:{_about(top, name)}')}" for name in top.commands)
    cases = "\n".join(f"        {name}) _arguments -s {_zsh_rules(parser)} ;;" for name, parser in top.commands.items())
    return f"""#compdef watcher
# zsh completion of watcher: source <(watcher completion zsh)
_watcher() {{
    local context state line
    typeset -A opt_args
    _arguments -C {_zsh_rules(top)} '1: :->command' '*::argument:->arguments'
    case $state in
    command)
        local -a commands=(
{commands}
        )
        _describe command commands ;;
    arguments)
        case $words[1] in
{cases}
        esac ;;
    esac
}}
compdef _watcher watcher
"""


def _zsh_rules(parser: Parser) -> str:
    rules = []
    for action in parser.flags():
        value = "" if action.nargs == 0 else f":{_name(action)}:{_zsh_values(action)}"
        rules += [_quoted(f"{flag}[{_plain(action.help)}]{value}") for flag in action.option_strings]
    rules += [
        _quoted(f":value:({' '.join(places)})")
        for places in [list(_places(parser))]
        if places and parser.prog != "watcher"
    ]
    return " ".join(rules)


def _zsh_values(action: argparse.Action) -> str:
    if action.choices:
        return f"({' '.join(map(str, action.choices))})"
    return "_files" if _is_file(action) else ""


def _fish(top: Parser) -> str:
    lines = ["# fish completion of watcher: watcher completion fish | source", "complete -c watcher -f"]
    unused = "__fish_use_subcommand"
    lines += [f"complete -c watcher -n {unused} -a {name} -d {_quoted(_about(top, name))}" for name in top.commands]
    for name, parser in {"": top, **top.commands}.items():
        when = f"'__fish_seen_subcommand_from {name}'" if name else unused
        lines += [
            f"complete -c watcher -n {when} -a {_quoted(' '.join(places))}"
            for places in [list(_places(parser))]
            if name and places
        ]
        lines += [f"complete -c watcher -n {when} {_fish_flag(action)}" for action in parser.flags()]
    return "\n".join(lines) + "\n"


def _fish_flag(action: argparse.Action) -> str:
    names = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings]
    value = ""
    if action.choices:
        value = f" -x -a {_quoted(' '.join(map(str, action.choices)))}"
    elif action.nargs != 0:
        value = " -r -F" if _is_file(action) else " -x"
    return f"{' '.join(names)}{value} -d {_quoted(_plain(action.help))}"


def _places(parser: Parser) -> Iterator[str]:
    """Words that may stand where no flag is needed."""
    yield from parser.commands
    for action in parser.known:
        if not action.option_strings and action.choices:
            yield from map(str, action.choices)


def _flags(parser: Parser) -> list[str]:
    return [flag for action in parser.flags() for flag in action.option_strings]


def _is_file(action: argparse.Action) -> bool:
    return action.type is Path


def _name(action: argparse.Action) -> str:
    return str(action.metavar or action.dest).lower()


def _about(top: Parser, name: str) -> str:
    return _plain(top.commands[name].description).rstrip(".")


def _plain(help_text: str | None) -> str:
    """One line without what shells read as their own, and without argparse's fields."""
    text = re.sub(r" ?\(default: %\(default\)s\)", "", help_text or "").replace("'", "’")
    return re.sub(r"[\[\]:`\\]", "", text).strip()


def _quoted(text: str) -> str:
    return f"'{text}'"


SHELLS: Mapping[str, Callable[[Parser], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
