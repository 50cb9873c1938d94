"""The permission classes of the setting THORN_DRF_PERMISSION_CLASSES."""

from __future__ import annotations

from typing import Any

from django.utils.module_loading import import_string

from thorn_core import ConfigurationError

SETTING = "THORN_DRF_PERMISSION_CLASSES"


def permission(named: Any) -> Any:
    """Return an instance of a permission class.

    Args:
        named: The class, or its dotted path.

    Raises:
        ConfigurationError: It can't be imported, or isn't a permission class.

    Example:
        >>> permission("json.dumps")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: ...is not a permission class...
    """
    found = named
    if isinstance(named, str):
        try:
            found = import_string(named)
        except ImportError as error:
            raise ConfigurationError(
                f"{SETTING} names {named!r}, which can't be imported: {error}"
            ) from error
    try:
        made = found()  # Classes combined with & and | are callable, too.
    except TypeError:
        made = None
    if not callable(getattr(made, "has_permission", None)):
        raise ConfigurationError(
            f"{SETTING} names {named!r}, which is not a permission class; use classes with a"
            f" method has_permission(request, view)"
        )
    return made
