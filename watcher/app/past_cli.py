"""The flags of `watcher at` and `watcher history`, and what is asked with them."""

import argparse
import functools
import sys
from collections.abc import Mapping

import anyio

from watcher.app import past_commands, settings
from watcher.app.arguments import PARTS, Parser, config_flag, filter_flags
from watcher.app.exit_status import Exit
from watcher.logs.output import use_utf8
from watcher.model.filters import FilterError
from watcher.past import asked

FIELDS = (*PARTS, "kind")


def add_commands(top: Parser, of: "argparse._SubParsersAction[Parser]") -> None:
    when = "in RFC 3339, as 2026-12-31T00:00:00Z"
    at = top.add_command(of, "at", "what was held at a past time, and how sure that is; `run` may run meanwhile")
    at.add_argument("time", metavar="TIME", help=when)
    history = top.add_command(of, "history", "the changes of a past interval; `run` may run meanwhile")
    begin = f"{when} (default: a day before --to, or as far back as events are kept)"
    history.add_argument("--from", dest="first", metavar="TIME", help=begin)
    history.add_argument("--to", dest="last", metavar="TIME", help=f"{when} (default: now)")
    history.add_argument("--crossed", action="store_true", help="also where an alert was crossed")
    for command, what in ((at, "balance"), (history, "event")):
        config_flag(command)
        filter_flags(command, FIELDS)
        command.add_argument("--csv", action="store_true", help="for spreadsheets, with a row of names first")
        command.add_argument("--json", action="store_true", help=f"for programs, one {what} a line")


def at(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    one, time = _asked(options), past_commands.moment(options.time, "TIME")
    anyio.run(past_commands.at, settings.load(options.config), environment, one, time)


def history(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    one = _asked(options)
    first, last = (
        None if text is None else past_commands.moment(text, name)
        for text, name in ((options.first, "--from"), (options.last, "--to"))
    )
    events = functools.partial(past_commands.past_events, crossed=options.crossed)
    anyio.run(events, settings.load(options.config), environment, one, first, last)


def _asked(options: argparse.Namespace) -> past_commands.Asked:
    """Raises Exit for what cannot be asked."""
    if options.csv and options.json:
        raise Exit(2, "--csv or --json: give one of them, or none for a table")
    try:
        wanted = asked.wanted({part: values for part in FIELDS if (values := getattr(options, part))})
    except FilterError as mistake:
        raise Exit(2, str(mistake)) from None
    if not sys.stdout.isatty() and (options.csv or options.json):
        use_utf8()
    return past_commands.Asked(wanted, "csv" if options.csv else "json" if options.json else "table")
