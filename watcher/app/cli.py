"""The command line: takes what the user typed, gives an exit status and at most one clear line."""

import argparse
import contextlib
import functools
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import anyio

from watcher.app import check as checking
from watcher.app import daemon, fleet_status, settings
from watcher.app import demo as demonstration
from watcher.app.exit_status import Exit, exits_for_known_errors
from watcher.client import tail as tailing
from watcher.client.stream import RelayRefused, is_relay_url
from watcher.logs import output, setup
from watcher.redaction import safe_text, secret
from watcher.redaction.redactor import SECRETS
from watcher.sandbox.world import SandboxSettings

PARTS = ("provider", "chain", "account", "token")

EPILOG = """exit status: 0 ended as asked; 2 bad usage or config, topics or marker missing or different; 69 broker not reached,
port taken, database unwritable; 75 replaced by another instance; 78 credentials refused"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments without showing a value, since that may be a key."""

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


def parser() -> Parser:
    top = Parser(prog="watcher", description="Change data capture for balances.", epilog=EPILOG)
    of = top.add_subparsers(dest="command", required=True, metavar="command")

    demo = of.add_parser("demo", help="the whole system on this machine, against simulated providers")
    demo.add_argument("--seconds", type=seconds, metavar="N", help="stop by itself after N seconds")
    demo.add_argument("--seed", type=int, default=1, metavar="N", help="which simulated world (default: 1)")

    run = of.add_parser("run", help="the daemon: pollers, journal, relay")
    config(run)
    run.add_argument("--only", choices=("pollers", "relay"), help="one half: pollers and journal, or a relay")

    check = of.add_parser("check", help="is the config right, what do the limits allow, what do the providers answer")
    config(check)
    check.add_argument("--offline", action="store_true", help="ask no provider")
    check.add_argument("--schedule", action="store_true", help="also what the schedule believes, from the journal")

    init = of.add_parser("init", help="create the topics, or the database")
    config(init)
    init.add_argument(
        "--new-log",
        action="store_true",
        help="also begin a new log on what stands there, after the journal was rolled back or cloned unseen: balances, "
        "versions and events stay, ids are new, and every subscriber gets a snapshot instead of resuming; stop `run` first",
    )
    fleet = of.add_parser("fleet", help="who polls what in a fleet ([kafka] group)")
    config(fleet)
    fleet.add_argument("--json", action="store_true", help="for programs")
    action = fleet.add_subparsers(dest="action", metavar="action")
    leave = action.add_parser("leave", help="take a member out that will not come back: others have its partitions")
    leave.add_argument("member", metavar="MEMBER", help="its name, as `watcher fleet` shows it")
    config(leave, default=argparse.SUPPRESS)
    of.add_parser("sample", help="print the documented sample of a config")
    commands_without_config(of)
    return top


def commands_without_config(of: "argparse._SubParsersAction[Parser]") -> None:
    tail = of.add_parser("tail", help="follow the relay, a line per change")
    tail.add_argument("url", nargs="?", default="ws://127.0.0.1:8765/v1/stream", help="default: %(default)s")
    for part in PARTS:
        tail.add_argument(f"--{part}", action="append", metavar="VALUE", help="only these; may be repeated")
    tail.add_argument("--json", action="store_true", help="events as they stand in the journal, one a line")
    tail.add_argument("--since", metavar="CURSOR", help="start behind this cursor instead of now")
    tail.add_argument("--token-env", metavar="NAME", help="environment variable that holds the relay's token")

    sandbox = of.add_parser("sandbox", help="the simulated providers alone, for anyone's tests")
    sandbox.add_argument("--port", type=int, default=9100, help="default: %(default)s; 0 takes a free one")
    sandbox.add_argument("--seed", type=int, default=1, help="which world (default: %(default)s)")
    sandbox.add_argument("--rate", type=float, default=5.0, help="changes a second (default: %(default)s)")
    sandbox.add_argument("--faults", default="none", help="none, default, or late=0.05,stale=0.05,… (default: none)")
    sandbox.add_argument("--limits", default="", help="none, x10 for ten times the real ones, or helius=50/1,…")


def config(command: Parser, default: Path | str = Path("watcher.toml")) -> None:
    command.add_argument("-c", "--config", type=Path, default=default, metavar="FILE")


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
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
    options = parser().parse_args(arguments)
    try:
        with exits_for_known_errors():
            COMMANDS[options.command](options, environment)
    except Exit as end:
        if end.message:
            safe_text.print_line(f"watcher: {end.message}", sys.stderr)
        return end.status
    except KeyboardInterrupt:
        return 0
    return 0


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)
    setup.configure()
    anyio.run(daemon.serve, config, environment, options.only, functools.partial(settings.load, options.config))


def check(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)
    setup.configure()
    anyio.run(checking.check, config, environment, options.offline, options.schedule)


def init(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)
    setup.configure()

    async def create() -> str:
        journal = daemon.journal_of(config, environment)
        try:
            return await journal.init(new_log=options.new_log)
        finally:
            await journal.close()

    safe_text.print_line(anyio.run(create))


def fleet(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    config = settings.load(options.config)
    setup.configure()
    if options.action == "leave":
        anyio.run(fleet_status.leave, config, environment, options.member)
    else:
        anyio.run(fleet_status.show, config, environment, options.json)


def sample(_options: argparse.Namespace, _environment: Mapping[str, str]) -> None:
    package = Path(__file__).parents[1]
    # In a wheel it is inside the package, in a checkout beside it.
    place = next(folder for folder in (package, package.parent) if (folder / "config" / "watcher.toml").is_file())
    use_utf8()
    print((place / "config" / "watcher.toml").read_text(encoding="utf-8"), end="")


def use_utf8() -> None:
    """On stdout, whatever the terminal's encoding: a file in TOML or JSON is in UTF-8."""
    stdout: object = sys.stdout
    if isinstance(stdout, output.LineWriter | io.TextIOWrapper):
        stdout.reconfigure(encoding="utf-8")


def tail(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    setup.configure()
    if not is_relay_url(options.url):
        raise Exit(2, f"{secret.without_user(options.url)!r} is no address of a relay: write ws://HOST:PORT/v1/stream")
    token = None
    if options.token_env is not None:
        token = secret.of_variable("--token-env", options.token_env, environment, secret.token)
    filters = {part: values for part in PARTS if (values := getattr(options, part))}
    colour = safe_text.coloured(sys.stdout, environment)
    if options.json and not sys.stdout.isatty():
        use_utf8()

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


def simulate(options: argparse.Namespace, _environment: Mapping[str, str]) -> None:
    setup.configure()
    try:
        simulated = SandboxSettings(
            port=options.port, seed=options.seed, rate=options.rate, faults=options.faults, limits=options.limits
        )
    except ValueError as error:
        raise Exit(2, str(error)) from None
    anyio.run(demonstration.sandbox, simulated)


def demo(options: argparse.Namespace, environment: Mapping[str, str]) -> None:
    setup.configure("warning")
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
    "init": init,
    "fleet": fleet,
    "sample": sample,
    "tail": tail,
    "sandbox": simulate,
}
