"""The URLs of Django's views, and the base of their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.urls import NoReverseMatch, reverse

from thorn_core import ConfigurationError


def reverse_view(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the path of a view; None in a project without URLs.

    Raises:
        ConfigurationError: No URL has that name or takes these arguments.
    """
    if not settings.configured or not getattr(settings, "ROOT_URLCONF", None):
        return None
    try:
        return reverse(view, args=args, kwargs=dict(kwargs))
    except NoReverseMatch as error:
        raise ConfigurationError(f"no URL for view {view!r} in this project: {error}") from error


def base_url() -> str | None:
    """Return `https://` and the current site's domain, if the sites framework is installed.

    Django caches the site, so the database is read once.
    """
    if not apps.ready or not apps.is_installed("django.contrib.sites"):
        return None
    from django.contrib.sites.models import Site

    try:
        site = Site.objects.get_current()
    except (ImproperlyConfigured, ObjectDoesNotExist):
        return None  # Without SITE_ID, the site depends on the request.
    return f"https://{site.domain}"
