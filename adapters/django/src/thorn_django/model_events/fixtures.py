"""Fixtures: Django's deserializers send no events, not even for many-to-many fields.

Django passes `raw` for the row, but not for the many-to-many fields that it sets afterwards.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import Any

from django.core.serializers.base import DeserializedObject
from django.db.models import Model

_loading: ContextVar[Model | None] = ContextVar("thorn_loading", default=None)
MARK = "_thorn_follows"


def being_loaded(instance: Model) -> bool:
    """Return True while a deserializer writes an instance."""
    return _loading.get() is instance


def follow_fixtures() -> None:
    """Track the instances that deserializers write; calling it twice is safe."""
    save = DeserializedObject.save
    if hasattr(save, MARK):
        return

    @functools.wraps(save)
    def wrapped(self: DeserializedObject, *args: Any, **kwargs: Any) -> None:
        token = _loading.set(self.object)
        try:
            save(self, *args, **kwargs)
        finally:
            _loading.reset(token)

    setattr(wrapped, MARK, True)
    DeserializedObject.save = wrapped  # type: ignore[method-assign]
