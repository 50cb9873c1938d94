"""The Celery apps with the apps whose messages they deliver, and the apps in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from celery import current_app

from thorn_core import Thorn, get_app

logger = logging.getLogger(__name__)

# The name of the app that Celery creates for programs without one.
NOBODYS = "default"

Target = Thorn | Callable[[], Thorn] | None

_installed: WeakKeyDictionary[Any, Target] = WeakKeyDictionary()
# Apps in use in this process.
_used: WeakSet[Thorn] = WeakSet()


def register(celery: Any, target: Target) -> None:
    """Let a Celery app deliver the messages of an app."""
    _installed[celery] = target


def is_registered(celery: Any) -> bool:
    """Return whether a Celery app delivers messages."""
    return celery in _installed


def thorn_of(celery: Any) -> Thorn:
    """Return the app whose messages a Celery app delivers.

    Raises:
        ConfigurationError: There is none.
    """
    return _resolved(_installed.get(celery))


def celery_of(app: Thorn) -> Any:
    """Return the latest Celery app installed for an app, otherwise the current one."""
    for celery, target in reversed(list(_installed.items())):
        if _means(target, app):
            return celery
    celery = current_app._get_current_object()
    if celery.main == NOBODYS:
        logger.warning(
            "no Celery app is known in this process, so tasks go to Celery's default broker;"
            " import the module that calls thorn_celery.install"
        )
    return celery


def _resolved(target: Target) -> Thorn:
    if target is None:
        return get_app()
    return target if isinstance(target, Thorn) else target()


def _means(target: Target, app: Thorn) -> bool:
    try:
        return _resolved(target) is app
    except Exception:
        # For example, outside its web app's context.
        logger.debug("%r returns no app in this process", target, exc_info=True)
        return False


def note_use(app: Thorn) -> None:
    """Remember that an app is in use in this process, to close it at the end."""
    _used.add(app)


def apps_in_use() -> list[Thorn]:
    """Return the apps in use in this process."""
    return list(_used)
