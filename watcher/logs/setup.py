"""Logging: each event is one line on stderr, for people on a terminal and as JSON otherwise, with no secret in it.

Libraries log through the standard library. Their records take the same way out, so that the redaction sees every line, and
sees it last. A terminal gets safe text; JSON is written in ASCII and is safe by itself.
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
"""httpx logs whole URLs at INFO, and the key of Helius stands in the URL; we log better what the others log."""

REPEATS = RepeatFilter()


def report_repeats(now: float) -> None:
    """Log how many repeated lines were left out, once no more of them come. `now`: seconds of the wall clock."""
    for record in REPEATS.report_left_out(now):
        for handler in logging.getLogger().handlers:
            handler.emit(record)


def safe_for_terminal(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog, behind SECRETS: makes every name and value safe text, and a traceback line by line."""
    return {safe_text.safe(key): _safe(value, key) for key, value in event.items()}


def _safe(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return safe_text.paragraph(value) if key in ("exception", "stack") else safe_text.safe(value)
    if isinstance(value, dict):
        return {safe_text.safe(str(name)): _safe(part) for name, part in value.items()}
    return [_safe(part) for part in value] if isinstance(value, list) else value


def configure(level: str = "info") -> None:
    """Set up logging for the whole process. No secret that was read leaves it, whoever logs it."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(REPEATS)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering()))
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
        lines.output.on_dropped = lambda count: log.warning(
            "log.dropped", lines=count, text="nobody took them: the pipe was full, or the disk"
        )


def _rendering() -> list[Processor]:
    """The last processors of every record: redaction, then the text of a line."""
    redacting: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        SECRETS,
    ]
    if not sys.stderr.isatty():
        return [*redacting, structlog.processors.JSONRenderer()]
    colours = safe_text.coloured(sys.stderr, os.environ)
    renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    return [*redacting, safe_for_terminal, renderer]


def dropped() -> int:
    """Lines that this process could not write to stderr."""
    lines = lines_of(sys.stderr)
    return 0 if lines is None else lines.output.dropped
