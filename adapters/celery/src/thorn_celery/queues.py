"""The queues of an app's tasks, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thorn_celery.hints import DELIVER, bounded_connection
from thorn_celery.options import Options, options_of
from thorn_celery.registry import celery_of
from thorn_core import Thorn, ThornError

TASKS = (DELIVER, "thorn.sweep", "thorn.purge")


class BrokerError(ThornError):
    """The broker can't be reached, or doesn't show its queues."""


def depths_of(app: Thorn) -> Mapping[str, int]:
    """Return the number of waiting tasks per queue of an app, including those of other programs.

    Args:
        app: The app.

    Raises:
        BrokerError: The sizes can't be read.
    """
    celery = celery_of(app)
    names = names_of(celery, options_of(celery.conf))
    connection = bounded_connection(celery)
    try:
        with connection:
            return {name: _depth(connection, name) for name in names}
    except Exception as error:
        raise BrokerError(
            f"can't read the queue sizes from the broker {connection.as_uri()}: {error}"
        ) from error


def names_of(celery: Any, options: Options) -> list[str]:
    """Return the names of an app's queues."""
    names = [_default_queue(celery, task) for task in TASKS]
    names += [route.queue for _, route in options.routes if route.queue is not None]
    names += [options.retry_queue] if options.retry_queue is not None else []
    return list(dict.fromkeys(names))


def _default_queue(celery: Any, task: str) -> str:
    queue = celery.amqp.router.route({}, task).get("queue")
    return str(getattr(queue, "name", queue) or celery.conf.task_default_queue)


def _depth(connection: Any, name: str) -> int:
    # Only AMQP has declared queues; for others, kombu may miss queues with a prefix.
    passive = connection.transport.driver_type == "amqp"
    # A missing queue breaks the channel.
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue=name, passive=passive).message_count)
        except connection.channel_errors:
            return 0
