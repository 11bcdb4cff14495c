"""Logging: one line an event to stderr, for people on a terminal and as JSON otherwise, with no secret in it.

Libraries log through the standard library; their records take the same way out, so that the redaction below touches
every line behind everybody else. A terminal gets what is fit for one; JSON is written in ASCII and so has nothing else.
"""

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from watcher.logs.output import lines_of
from watcher.logs.repeat_filter import RepeatFilter
from watcher.redaction import safe_text
from watcher.redaction.redactor import SECRETS

log = structlog.get_logger()

QUIET = ("aiokafka", "hpack", "httpcore", "httpx", "websockets")
"""httpx tells whole URLs at INFO, and Helius' key stands in the URL; the others tell what we tell better."""

STORMS = RepeatFilter()


def lull(now: float) -> None:
    """Tell how many lines were left out of storms that are over. `now`: seconds of the wall clock."""
    for record in STORMS.lull(now):
        for handler in logging.getLogger().handlers:
            handler.emit(record)


def fitting(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """As a processor of structlog, behind SECRETS: every name and value fit for a screen, a traceback line by line."""
    return {safe_text.safe(key): _fit(value, key) for key, value in event.items()}


def _fit(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return safe_text.paragraph(value) if key in ("exception", "stack") else safe_text.safe(value)
    if isinstance(value, dict):
        return {safe_text.safe(str(name)): _fit(part) for name, part in value.items()}
    return [_fit(part) for part in value] if isinstance(value, list) else value


def configure(level: str = "info") -> None:
    """Set the process's logging up. No secret that was read leaves it, whoever logs it."""
    terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        SECRETS,
    ]
    if terminal:
        last += [
            fitting,
            structlog.dev.ConsoleRenderer(
                colors=safe_text.coloured(sys.stderr, os.environ), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    else:
        last.append(structlog.processors.JSONRenderer())
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(STORMS)
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
