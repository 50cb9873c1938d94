"""The REST resource as a Django view."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse

from thorn_django.rest import (
    access_of,
    api_request,
    body_of,
    http_response,
    resource_of,
    session_scheme,
)


@login_not_required
def webhooks(request: HttpRequest, below: str = "", **_: Any) -> HttpResponse:
    """Answer any call of the resource.

    The user comes from Django's authentication, and Django's protection against cross-site
    requests holds: unsafe methods need the CSRF token.

    Args:
        request: Django's.
        below: The path below where the resource is mounted.
        **_: What the path above it says, as of a tenant.
    """
    resource = resource_of("views", lambda: {"session": session_scheme()})
    body = body_of(request, resource.body_limit)
    asked = api_request(request, below, access=access_of(request), body=body)
    return http_response(resource.handle(asked))
