"""URLs: of Django's views, and what their paths are relative to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.urls import NoReverseMatch, reverse

from thorn_core import ConfigurationError


def reverse_view(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The path of a view; None in a project that has no URLs.

    Raises:
        ConfigurationError: It has none of that name, or none that takes these arguments.
    """
    if not settings.configured or not getattr(settings, "ROOT_URLCONF", None):
        return None
    try:
        return reverse(view, args=args, kwargs=dict(kwargs))
    except NoReverseMatch as error:
        raise ConfigurationError(f"no URL for view {view!r} in this project: {error}") from error


def base_url() -> str | None:
    """`https://` and the domain of the current site, if the sites framework is installed.

    Django keeps the site, so that it is read from the database once.
    """
    if not apps.ready or not apps.is_installed("django.contrib.sites"):
        return None
    from django.contrib.sites.models import Site

    try:
        site = Site.objects.get_current()
    except (ImproperlyConfigured, ObjectDoesNotExist):
        return None  # no SITE_ID: which one it is depends on the request
    return f"https://{site.domain}"
