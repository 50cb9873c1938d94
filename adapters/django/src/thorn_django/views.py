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
    """Respond to any call of the resource.

    Django authenticates the user, and its CSRF protection applies: unsafe methods need the CSRF
    token.

    Args:
        request: The Django request.
        below: The path below the resource's prefix.
        **_: Values captured by the prefix, such as a tenant.
    """
    resource = resource_of("views", lambda: {"session": session_scheme()})
    body = body_of(request, resource.body_limit)
    asked = api_request(request, below, access=access_of(request), body=body)
    return http_response(resource.handle(asked))
