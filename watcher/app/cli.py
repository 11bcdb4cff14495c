"""The command line: takes what the user typed, gives an exit status and at most one clear line."""

import argparse
import contextlib
import functools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import anyio

from watcher.app import completion as completions
from watcher.app import daemon, fleet_status, past_cli, settings, webhook_test
from watcher.app import demo as demonstration
from watcher.app.arguments import PARTS, Parser, config_flag, filter_flags
from watcher.app.check import command as checking
from watcher.app.exit_status import Exit, exits_for_known_errors
from watcher.app.rehearse import command as rehearsing
from watcher.client import tail as tailing
from watcher.client.stream import RelayRefused, is_relay_url
from watcher.logs import output, setup
from watcher.redaction import safe_text, secret
from watcher.redaction.redactor import SECRETS
from watcher.runtime.progress import still_at
from watcher.sandbox.world import SandboxSettings

AT_A_TERMINAL = ("demo", "sandbox", "tail")
"""What they have to say is on stdout: they log nothing that is in order."""
OF_THE_PAST = ("at", "history")
"""The same, but on a terminal they log how far they are."""
LEVELS = ("debug", "info", "warning", "error")

MOST_DAYS, MOST_LATENCY, MOST_RATE = 366, 60, 3600
"""Of a rehearsal: days, seconds of a request, changes of a watch in an hour."""

EPILOG = """exit status: 0 ended as asked; 2 bad usage or config, topics or marker missing or different; 69 broker not reached,
port taken, database unwritable; 75 replaced by another instance; 78 credentials refused"""


def parser() -> Parser:
    top = Parser(prog="watcher", description="Change data capture for balances.", epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"watcher {version('balance-watcher')}")
    log_level(top, default=None)
    of = top.add_subparsers(dest="command", required=True, metavar="command", parser_class=Parser)

    demo = top.add_command(of, "demo", "the whole system on this machine, against simulated providers")
    demo.add_argument(
        "--seconds", type=seconds, metavar="N", help="stop by itself after N seconds (default: at Ctrl-C)"
    )
    demo.add_argument("--seed", type=int, default=1, metavar="N", help="which simulated world")

    run = top.add_command(of, "run", "the daemon: pollers, journal, relay")
    config_flag(run)
    only = "one half: pollers and journal, or a relay (default: both)"
    run.add_argument("--only", choices=("pollers", "relay"), help=only)

    check = top.add_command(
        of, "check", "is all there that `run` needs, what do the limits allow, what do the providers answer"
    )
    config_flag(check)
    check.add_argument("--offline", action="store_true", help="ask no provider and no broker")
    check.add_argument(
        "--all", action="store_true", help="ask for every watch, within the limits, and not only once a provider"
    )
    check.add_argument("--json", action="store_true", help="all findings and the plan of each provider, for programs")
    check.add_argument("--schedule", action="store_true", help="also what the schedule believes, from the journal")

    rehearse_command(top, of)
    leave = commands_of_the_journal(top, of)
    try_webhooks = commands_of_webhooks(top, of)
    commands_without_config(top, of)
    for command in (*top.commands.values(), leave, try_webhooks):
        log_level(command)
    return top


def rehearse_command(top: Parser, of: "argparse._SubParsersAction[Parser]") -> None:
    command = top.add_command(
        of, "rehearse", "what a config would do: a month in virtual time, over the journal's past"
    )
    config_flag(command)
    command.add_argument("--old", type=Path, metavar="FILE", help="the config to compare with (default: none)")
    where = "the journal whose changes are taken, as the config would name it (default: that of the config)"
    command.add_argument("--journal", metavar="URL", help=where)
    command.add_argument("--days", type=days, default=30.0, metavar="N", help="how long (default: 30)")
    command.add_argument("--seed", type=int, default=1, metavar="N", help="of all that is left to chance")
    answered = "seconds from a request to its answer"
    command.add_argument("--latency", type=latency, default=0.15, metavar="SECONDS", help=answered)
    made_up = "make the changes up, whatever the journal knows"
    command.add_argument("--synthetic", action="store_true", help=made_up)
    rate = "changes an hour of a watch, on average, where they are made up"
    command.add_argument("--rate", type=change_rate, default=1.0, metavar="N", help=rate)
    whole = "go through all of it, and not only through pieces of each day where that would take minutes"
    command.add_argument("--whole", action="store_true", help=whole)
    command.add_argument("--json", action="store_true", help="all figures, for programs")


def commands_of_the_journal(top: Parser, of: "argparse._SubParsersAction[Parser]") -> Parser:
    """Gives the parser of `fleet leave`, too."""
    init = top.add_command(of, "init", "create the topics, or the database")
    config_flag(init)
    init.add_argument(
        "--new-log",
        action="store_true",
        help="also begin a new log on what stands there, after the journal was rolled back or cloned unseen: balances, "
        "versions and events stay, ids are new, and every subscriber gets a snapshot instead of resuming; stop `run` first",
    )
    fleet = top.add_command(of, "fleet", "who polls what in a fleet ([kafka] group)")
    config_flag(fleet)
    fleet.add_argument("--json", action="store_true", help="for programs")
    action = fleet.add_subparsers(dest="action", metavar="action", parser_class=Parser)
    leave = fleet.add_command(action, "leave", "take a member out that will not come back: others have its partitions")
    leave.add_argument("member", metavar="MEMBER", help="its name, as `watcher fleet` shows it")
    config_flag(leave, default=argparse.SUPPRESS)
    past_cli.add_commands(top, of)
    return leave


def commands_of_webhooks(top: Parser, of: "argparse._SubParsersAction[Parser]") -> Parser:
    """Gives the parser of `webhook test`."""
    webhook = top.add_command(of, "webhook", "what is done with [[webhook]] tables by hand")
    action = webhook.add_subparsers(dest="action", required=True, metavar="action", parser_class=Parser)
    test = webhook.add_command(action, "test", "send one signed test event to each webhook, or to the named one")
    test.add_argument("name", nargs="?", metavar="NAME", help="of a webhook in the config (default: each)")
    config_flag(test)
    return test


def commands_without_config(top: Parser, of: "argparse._SubParsersAction[Parser]") -> None:
    top.add_command(of, "sample", "print the documented sample of a config")
    tail = top.add_command(of, "tail", "follow the relay, a line per change and per crossing of an alert")
    tail.add_argument("url", nargs="?", default="ws://127.0.0.1:8765/v1/stream", help="the relay's stream")
    filter_flags(tail, PARTS)
    tail.add_argument("--json", action="store_true", help="events as they stand in the journal, one a line")
    tail.add_argument("--since", metavar="CURSOR", help="start behind this cursor (default: now)")
    tail.add_argument("--verbose", action="store_true", help="also say on stderr what sources of hints do")
    where = "environment variable that holds the relay's token (default: none is sent)"
    tail.add_argument("--token-env", metavar="NAME", help=where)

    sandbox = top.add_command(of, "sandbox", "the simulated providers alone, for anyone's tests")
    sandbox.add_argument("--port", type=int, default=9100, help="0 takes a free one (default: %(default)s)")
    sandbox.add_argument("--seed", type=int, default=1, help="which world")
    sandbox.add_argument("--rate", type=float, default=5.0, help="changes a second")
    sandbox.add_argument(
        "--faults",
        default="none",
        help="none, the usual ones with `default`, or late=0.05,push_lost=0.1,... (default: none)",
    )
    limits = "none, x10 for ten times the real ones, or helius=50/1,... (default: the real ones)"
    sandbox.add_argument("--limits", default="", help=limits)
    sandbox.add_argument("--webhook", default="", metavar="URL", help="where TokenKit's webhooks go (default: nowhere)")
    signs = "environment variable that holds the secret which signs them (default: none)"
    sandbox.add_argument("--webhook-secret-env", default="", metavar="NAME", help=signs)

    completion = top.add_command(of, "completion", "print a script that completes commands and flags in your shell")
    completion.add_argument("shell", choices=tuple(completions.SHELLS), help="for which shell")


def log_level(command: Parser, default: str | None = argparse.SUPPRESS) -> None:
    text = "what is logged on stderr, at least (default: info; demo, sandbox and tail: warning; at and history: warning, on a terminal info)"
    command.add_argument("--log-level", choices=LEVELS, default=default, help=text)


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def days(text: str) -> float:
    value = float(text)
    if not 0 < value <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days above 0 and up to {MOST_DAYS}")
    return value


def latency(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MOST_LATENCY:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0 to {MOST_LATENCY}")
    return value


def change_rate(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MOST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is not a number of changes an hour from 0 to {MOST_RATE}")
    return value


def print_bug(_kind: type[BaseException], error: BaseException | None, _where: TracebackType | None) -> None:
    """Prints an unexpected error as Python does, as safe text without secrets."""
    if error is not None:
        text = "".join(traceback.format_exception(error)).rstrip()
        print(safe_text.paragraph(SECRETS.scrubbed(text)), file=sys.stderr, flush=True)


def install() -> None:
    """From here on Python prints unexpected errors with `print_bug`."""
    sys.excepthook = print_bug
    threading.excepthook = lambda hook: print_bug(hook.exc_type, hook.exc_value, hook.exc_traceback)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    if sys.flags.optimize:
        # aiokafka checks its transaction states with assert: without them it would commit what it must not.
        print("watcher: run without -O and without PYTHONOPTIMIZE, its safety checks would be off", file=sys.stderr)
        return 2
    install()
    try:
        with exits_for_known_errors():
            options = parser().parse_args(arguments)
            setup.configure(options.log_level or usual_level(options))
            COMMANDS[options.command](options, environment)
    except Exit as end:
        for line in end.message.splitlines():
            safe_text.print_line(f"watcher: {line}", sys.stderr)
        return end.status
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    except KeyboardInterrupt:
        return 0
    return 0


def usual_level(options: argparse.Namespace) -> str:
    """What is logged where nobody says otherwise."""
    quiet = options.command in AT_A_TERMINAL and not getattr(options, "verbose", False)
    quiet = quiet or (options.command in OF_THE_PAST and not sys.stderr.isatty())
    return "warning" if quiet else "info"


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)
    anyio.run(daemon.serve, config, environment, options.only, functools.partial(settings.load_again, options.config))


def check(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    wish = checking.Wish(offline=options.offline, all=options.all, json=options.json, schedule=options.schedule)
    if options.json and not sys.stdout.isatty():
        output.use_utf8()
    anyio.run(checking.check, options.config, environment, wish)


def rehearse(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    if options.json and not sys.stdout.isatty():
        output.use_utf8()
    rehearsing.rehearse(
        rehearsing.RehearsalOptions(
            config=options.config,
            old=options.old,
            journal=options.journal,
            days=options.days,
            seed=options.seed,
            latency=options.latency,
            per_hour=options.rate,
            synthetic=options.synthetic,
            whole=options.whole,
            json=options.json,
        ),
        environment,
    )


def init(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)

    async def create() -> str:
        journal = daemon.journal_of(config, environment)
        try:
            async with anyio.create_task_group() as tasks:
                with still_at("creating what is missing", tasks):
                    made = await journal.init(new_log=options.new_log)
            return made
        finally:
            await journal.close()

    safe_text.print_line(anyio.run(create))


def fleet(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)
    if options.action == "leave":
        anyio.run(fleet_status.leave, config, environment, options.member)
    else:
        anyio.run(fleet_status.show, config, environment, options.json)


def webhook(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    anyio.run(webhook_test.test, settings.load(options.config), environment, options.name)


def sample(_options: argparse.Namespace, _environment: Mapping[str, str]) -> None:
    package = Path(__file__).parents[1]
    # In a wheel it is inside the package, in a checkout beside it.
    place = next(folder for folder in (package, package.parent) if (folder / "config" / "watcher.toml").is_file())
    output.use_utf8()
    print((place / "config" / "watcher.toml").read_text(encoding="utf-8"), end="")


def completion(options: argparse.Namespace, _environment: Mapping[str, str]) -> None:
    output.use_utf8()
    print(completions.script(options.shell, parser()), end="")


def tail(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    if not is_relay_url(options.url):
        raise Exit(2, f"{secret.without_user(options.url)!r} is no address of a relay: write ws://HOST:PORT/v1/stream")
    token = None
    if options.token_env is not None:
        token = secret.of_variable("--token-env", options.token_env, environment, secret.token)
    filters = {part: values for part in PARTS if (values := getattr(options, part))}
    colour = safe_text.coloured(sys.stdout, environment)
    if options.json and not sys.stdout.isatty():
        output.use_utf8()

    async def follow() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(daemon.stop_on_signal, tasks.cancel_scope)
            tasks.start_soon(output.watch_closed, sys.stdout)
            with refusals():
                await tailing.tail(
                    options.url,
                    filters=filters,
                    json=options.json,
                    since=options.since,
                    token=None if token is None else token.reveal(),
                    out=sys.stdout,
                    colour=colour,
                )

    anyio.run(follow)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns a refusal of the relay into an Exit."""
    try:
        yield
    except RelayRefused as refused:
        said = safe_text.one_line(str(refused), 400)
        if refused.code in ("unauthorized", "forbidden"):
            raise Exit(78, f"the relay refuses the token ({said}): name the right one with --token-env") from refused
        raise Exit(2, f"the relay refuses what is asked ({said})") from refused


def simulate(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    try:
        simulated = SandboxSettings(
            port=options.port,
            seed=options.seed,
            rate=options.rate,
            faults=options.faults,
            limits=options.limits,
            webhook=options.webhook,
        )
    except ValueError as error:
        raise Exit(2, str(error)) from None
    anyio.run(demonstration.sandbox, simulated, webhook_secret(options, environment))


def webhook_secret(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Empty where there is no webhook."""
    name = options.webhook_secret_env
    if bool(name) != bool(options.webhook):
        raise Exit(2, "--webhook and --webhook-secret-env belong together: give both, or neither")
    if name and not environment.get(name):
        raise Exit(2, f"the environment variable {name} is not set: put the webhooks' secret into it")
    return environment.get(name, "")


def demo(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    anyio.run(
        demonstration.demo,
        options.seconds,
        options.seed,
        tailing.TailColumns(colour=safe_text.coloured(sys.stdout, environment)),
    )


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Mapping[str, str]], None]] = {
    "demo": demo,
    "run": run,
    "check": check,
    "rehearse": rehearse,
    "init": init,
    "fleet": fleet,
    "webhook": webhook,
    "at": past_cli.at,
    "history": past_cli.history,
    "sample": sample,
    "tail": tail,
    "sandbox": simulate,
    "completion": completion,
}
