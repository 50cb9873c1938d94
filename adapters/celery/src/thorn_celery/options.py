"""Options: the settings `thorn_…` in Celery's configuration, checked when read."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import attrs

from thorn_core import ConfigurationError
from thorn_core.patterns import check_pattern, matches

PREFIX = "thorn_"


@attrs.frozen(kw_only=True)
class Route:
    """How a task is sent through the broker.

    Attributes:
        queue: Name of its queue; None uses Celery's own routing.
        priority: The broker's priority; None for the queue's default.
        expires: Seconds after which the task is dropped.
        again: Whether there are several tasks for the same messages.
    """

    queue: str | None = None
    priority: int | None = None
    expires: float | None = None
    again: bool = False

    def options(self) -> dict[str, Any]:
        """Return the options for `apply_async`."""
        given = {"queue": self.queue, "priority": self.priority, "expires": self.expires}
        return {name: value for name, value in given.items() if value is not None}


PLAIN = Route()


@attrs.frozen(kw_only=True)
class Options:
    """Thorn's settings in Celery's configuration.

    Attributes:
        routes: Event patterns and their routes; the first match applies.
        retry_queue: Queue for deliveries whose first attempt failed; None uses the event's queue.
        sweep_interval: Seconds between sweeps for due work in the store.
        purge_after: Age after which finished deliveries are purged daily; None never purges.
    """

    routes: tuple[tuple[str, Route], ...] = ()
    retry_queue: str | None = None
    # Equal to the first delay of the default retry policy.
    sweep_interval: float = 5.0
    purge_after: timedelta | None = None

    def route_of(self, event: str) -> Route:
        """Return the route for an event's messages.

        Example:
            >>> options = options_of({"thorn_routes": {"bill.*": "bills"}})
            >>> options.route_of("bill.paid").queue, options.route_of("article.read").queue
            ('bills', None)
        """
        for pattern, route in self.routes:
            if matches(pattern, event):
                return route
        return PLAIN


def options_of(conf: Any) -> Options:
    """Read Thorn's settings from Celery's configuration.

    Args:
        conf: `Celery.conf`, or a mapping.

    Raises:
        ConfigurationError: A name that begins with `thorn_` is unknown, or a value isn't allowed.
        InvalidNameError: A pattern is invalid.

    Example:
        >>> options_of({"thorn_route": {}})
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: ...unknown setting thorn_route; did you mean ...
    """
    # Reading a value loads the configuration, whose namespace is unknown before.
    given = {name: conf.get(name) for name in _READERS}
    for name in _names(conf):
        if name not in _READERS:
            near = difflib.get_close_matches(name, _READERS, 1)
            hint = f"did you mean {near[0]}?" if near else f"available: {', '.join(_READERS)}"
            raise ConfigurationError(f"Celery's configuration: unknown setting {name}; {hint}")
    read: dict[str, Any] = {
        name.removeprefix(PREFIX): _READERS[name](name, value)
        for name, value in given.items()
        if value is not None
    }
    return Options(**read)


def _names(conf: Any) -> list[str]:
    """Return the names `thorn_…` that are set, without the namespace that Django projects use."""
    namespace = getattr(conf, "prefix", None) or ""
    upper = namespace.isupper()
    names = [key.removeprefix(namespace) for key in conf if key.startswith(namespace)]
    names = [name.lower() if upper else name for name in names]
    return [name for name in names if name.startswith(PREFIX)]


def _refuse(name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"Celery's setting {name} is {value!r}; use {allowed}")


def _routes(name: str, value: Any) -> tuple[tuple[str, Route], ...]:
    if not isinstance(value, Mapping):
        raise _refuse(name, value, "a mapping of event pattern to queue")
    return tuple((check_pattern(pattern), _route(name, to)) for pattern, to in value.items())


def _route(name: str, value: Any) -> Route:
    options = {"queue": value} if isinstance(value, str) else value
    if not isinstance(options, Mapping) or not options or options.keys() - {"queue", "priority"}:
        raise _refuse(name, value, "a queue's name, or a mapping of 'queue', 'priority' or both")
    priority = options.get("priority")
    if isinstance(priority, bool) or not isinstance(priority, int | None):
        raise _refuse(name, value, "a whole number for 'priority'")
    queue = options.get("queue")
    return Route(queue=None if queue is None else _queue(name, queue), priority=priority)


def _queue(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _refuse(name, value, "a queue's name")
    return value


def _seconds(name: str, value: Any, *, least: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds < least:
        raise _refuse(name, value, f"a number of seconds, at least {least:g}")
    return float(seconds)


def _interval(name: str, value: Any) -> float:
    return _seconds(name, value, least=0.1)


def _age(name: str, value: Any) -> timedelta:
    return timedelta(seconds=_seconds(name, value, least=0))


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "thorn_routes": _routes,
    "thorn_retry_queue": _queue,
    "thorn_sweep_interval": _interval,
    "thorn_purge_after": _age,
}
