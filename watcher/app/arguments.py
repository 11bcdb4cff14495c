"""A parser of arguments that shows no value, tells every default, and can be asked what it knows."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from watcher.redaction import safe_text

PARTS = ("provider", "chain", "account", "token", "label", "tag")
"""Of a filter."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments without showing a value, since that may be a key."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.known: list[argparse.Action] = []
        """Everything that may be given, in its order."""
        self.commands: dict[str, Parser] = {}
        """Command → its own parser."""
        super().__init__(*arguments, **named)

    def add_argument(self, *names: Any, **more: Any) -> argparse.Action:
        """As ever; a default that the help does not tell is added to it."""
        text, default = more.get("help"), more.get("default")
        shown = default not in (None, False, "", argparse.SUPPRESS)
        if text and text is not argparse.SUPPRESS and shown and "default" not in text:
            more["help"] = f"{text} (default: %(default)s)"
        action = super().add_argument(*names, **more)
        self.known.append(action)
        return action

    def add_command(self, of: "argparse._SubParsersAction[Parser]", name: str, text: str) -> "Parser":
        """`text`: what it does, in the list of commands and in its own help."""
        command = of.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
        self.commands[name] = command
        return command

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            unknown = [argument.partition("=")[0] for argument in rest if argument.startswith("-")] or [
                "too many values"
            ]
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options

    def error(self, message: str) -> NoReturn:
        super().error(safe_text.safe_line(message))

    def flags(self) -> Iterator[argparse.Action]:
        """What is written with a dash."""
        yield from (action for action in self.known if action.option_strings)


def filter_flags(command: Parser, parts: Sequence[str]) -> None:
    """One flag for each part of a filter."""
    for part in parts:
        text = "only these; may be repeated (default: all)"
        command.add_argument(f"--{part}", action="append", metavar="VALUE", help=text)


def config_flag(command: Parser, default: Path | str = Path("watcher.toml")) -> None:
    """`-c`."""
    text = "the config (default: watcher.toml)"
    command.add_argument("-c", "--config", type=Path, default=default, metavar="FILE", help=text)
