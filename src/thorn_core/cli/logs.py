"""Formats of a worker's log: JSON lines or plain text."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from thorn_core.cli.common import safe

# Attributes of every record; all others come from `extra`.
STANDARD = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON line: time, level, logger, message, and its `extra` values.

    Example:
        >>> record = logging.makeLogRecord({"msg": "%d delivered", "args": (3,), "seconds": 1.5})
        >>> told = json.loads(JsonFormatter().format(record))
        >>> told["message"], told["seconds"]
        ('3 delivered', 1.5)
    """

    def format(self, record: logging.LogRecord) -> str:
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
    """Formats a record as a line of text with the local time."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without control characters, which untrusted text may contain."""
        return safe(" ".join(super().formatMessage(record).splitlines()))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the traceback without control characters."""
        return safe(super().formatException(ei))


@contextmanager
def logging_by(handler: logging.Handler, loggers: Iterable[str], level: str) -> Iterator[None]:
    """Route the records of some loggers to one handler only.

    The rest of the program's logging configuration stays unchanged.

    Args:
        handler: Receives the records.
        loggers: Names.
        level: The lowest level to write.
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
