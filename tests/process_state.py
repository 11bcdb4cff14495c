"""A command sets up the process that it runs in, and many tests share one."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

import structlog

from watcher.logs.setup import QUIET


@contextlib.contextmanager
def process_as_it_was() -> Iterator[None]:
    """Whatever is set up within, logging and who is told of unexpected errors: afterwards it is as it was before."""
    root, configured, config = logging.getLogger(), structlog.is_configured(), structlog.get_config()
    handlers = list(root.handlers)
    levels = {logger: logger.level for logger in (root, *map(logging.getLogger, QUIET))}
    hooks = sys.excepthook, threading.excepthook
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook = hooks
        root.handlers[:] = handlers  # those of pytest, which are the same in each phase of a test
        for logger, level in levels.items():
            logger.setLevel(level)
        if configured:
            structlog.configure(**config)
        else:
            structlog.reset_defaults()
