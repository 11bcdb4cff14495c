"""Logging is set up for a whole process, and many tests share one."""

import contextlib
import logging
from collections.abc import Iterator

import structlog

from watcher.logs.setup import QUIET


@contextlib.contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Whatever is set up within, as each command does that runs in this process: afterwards logging is as it was before."""
    root, configured, config = logging.getLogger(), structlog.is_configured(), structlog.get_config()
    handlers = list(root.handlers)
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, QUIET))}
    try:
        yield
    finally:
        root.handlers[:] = handlers  # those of pytest, which are the same in each phase of a test
        for logger, level in levels.items():
            logger.setLevel(level)
        if configured:
            structlog.configure(**config)
        else:
            structlog.reset_defaults()
