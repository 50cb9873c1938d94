"""How a worker's log records are written: JSON for machines, a line of text for people."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

# What every record has; all else was given as `extra`.
STANDARD = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record: time, level, logger, message, what else it carries.

    Example:
        >>> record = logging.makeLogRecord({"msg": "%d delivered", "args": (3,), "seconds": 1.5})
        >>> told = json.loads(JsonFormatter().format(record))
        >>> told["message"], told["seconds"]
        ('3 delivered', 1.5)
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {k: v for k, v in vars(record).items() if k not in STANDARD and k not in told}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = self.formatStack(record.stack_info)
        return json.dumps(told, default=str)


class TextFormatter(logging.Formatter):
    """A line of text for each record, with its time in this place's zone."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")


@contextmanager
def logging_by(handler: logging.Handler, loggers: Iterable[str], level: str) -> Iterator[None]:
    """Have these loggers' records written by a handler, and by no other.

    What else the program has configured of logging stays as it is.

    Args:
        handler: Writes them.
        loggers: Names.
        level: The least that is written.
    """
    named = [logging.getLogger(name) for name in loggers]
    former = [(logger.level, logger.propagate, logger.handlers) for logger in named]
    for logger in named:
        logger.setLevel(level.upper())
        logger.propagate = False
        logger.handlers = [handler]
    try:
        yield
    finally:
        for logger, (was, propagate, handlers) in zip(named, former, strict=True):
            logger.setLevel(was)
            logger.propagate = propagate
            logger.handlers = handlers
