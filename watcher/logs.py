"""Logging: one line an event to stderr, for people on a terminal and as JSON otherwise, with no secret in it.

Libraries log through the standard library; their records take the same way out, so that the redaction below is the
last thing that touches every line.
"""

import logging
import sys
from collections.abc import Iterable

import structlog
from structlog.typing import Processor

from watcher.hiding import HIDDEN
from watcher.outlet import lines_of

log = structlog.get_logger()

QUIET = ("aiokafka", "hpack", "httpcore", "httpx", "websockets")
"""httpx tells whole URLs at INFO, and Helius' key stands in the URL; the others tell what we tell better."""


def configure(level: str = "info", secrets: Iterable[str] = ()) -> None:
    """Set the process's logging up. `secrets` never leave it, whoever logs them."""
    terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not terminal:
        last.append(structlog.processors.format_exc_info)
    HIDDEN.hide(secrets)
    last.append(HIDDEN)
    last.append(structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "aiokafka" else logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if (lines := lines_of(sys.stderr)) is not None:
        lines.outlet.on_dropped = lambda count: log.warning(
            "log.dropped", lines=count, text="nobody took them: the pipe was full, or the disk"
        )


def dropped() -> int:
    """Lines that this process could not get rid of on stderr."""
    lines = lines_of(sys.stderr)
    return 0 if lines is None else lines.outlet.dropped
