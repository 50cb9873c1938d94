"""The REST resource on Django: converts requests to `ApiRequest`, and responses to `HttpResponse`.

Mount it with `path("hooks/", include("thorn_django.urls"))`, or for Django REST framework with
`thorn_django.rest_framework.urls`. Subscriptions are then at `/hooks/` and `/hooks/{id}/`, next to
`/hooks/deliveries/{id}/`, `/hooks/event-types/` and `/hooks/openapi.json`. Any other prefix works,
too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.utils.encoding import escape_uri_path

from thorn_core import get_app
from thorn_core.api import ApiRequest, ApiResponse, Resource
from thorn_django.subscription_model import subscription_model

MULTIPART = "multipart/form-data"

_resources: dict[str, Resource] = {}
_lock = threading.Lock()


@attrs.frozen
class Access:
    """The rights of a request's user.

    Attributes:
        owner: The user's id as in subscriptions' `owner`; None for an anonymous user.
        operator: True for users who may see and change everything.
    """

    owner: str | None = None
    operator: bool = False


NOBODY = Access()


def access_of(request: Any) -> Access:
    """Return the rights of a request's user, by the same rule for all frameworks.

    Users own their subscriptions: `owner` is the user's primary key as text. Active staff with the
    model permission to change subscriptions, and superusers, are also operators: they may see and
    change everybody's subscriptions.

    Args:
        request: A request with a `user`, of Django or of Django REST framework.
    """
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or user.pk is None:
        return NOBODY
    return Access(owner=str(user.pk), operator=_is_operator(user))


def _is_operator(user: Any) -> bool:
    if not (getattr(user, "is_staff", False) and user.is_active):
        return False
    model = subscription_model()._meta
    return bool(user.has_perm(f"{model.app_label}.change_{model.model_name}"))


def resource_of(carrier: str, security_schemes: Callable[[], Mapping[str, Any]]) -> Resource:
    """Return the app's REST resource; create a new one for a new app.

    Args:
        carrier: The framework that serves it; each has its own resource with its own rate limits.
        security_schemes: The authentication schemes for the OpenAPI document.
    """
    app = get_app()
    with _lock:
        found = _resources.get(carrier)
        if found is None or found.app is not app:
            found = Resource(app, security_schemes=security_schemes())
            _resources[carrier] = found
        return found


def session_scheme() -> dict[str, Any]:
    """Return the OpenAPI scheme of Django's session cookie."""
    return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


# -- requests


def api_request(
    request: HttpRequest, below: str, *, access: Access, body: bytes, ignored: str | None = None
) -> ApiRequest:
    """Convert a Django request to the resource's request.

    Args:
        request: The Django request.
        below: The path below the resource's prefix.
        access: The rights of its user.
        body: The request's body, from `body_of`.
        ignored: A query parameter to leave out.
    """
    prefix = request.path[: len(request.path) - len(below)]
    return ApiRequest(
        method=request.method or "",
        path=f"/{below}",
        query={name: values for name, values in request.GET.lists() if name != ignored},
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        owner=access.owner,
        operator=access.operator,
        base_url=f"{request.scheme}://{request.get_host()}{escape_uri_path(prefix)}",
        hooks_at_root=True,
    )


def below_of(path: str, depth: int) -> str:
    """Return the last parts of a path, which are below the resource's prefix.

    Args:
        path: The complete path.
        depth: The number of parts, without a slash at the end.

    Example:
        >>> below_of("/api/hooks/sub_1/test/", 2), below_of("/api/hooks/", 0)
        ('sub_1/test/', '')
    """
    if not depth:
        return ""
    slash = "/" if path.endswith("/") else ""
    return "/".join(path.removesuffix("/").split("/")[-depth:]) + slash


def body_of(request: HttpRequest, limit: int) -> bytes:
    """Return a request's body; for one that is too large, a substitute that is too large.

    Args:
        request: The Django request.
        limit: The maximum number of bytes.
    """
    length = request.META.get("CONTENT_LENGTH") or ""
    if length.isdecimal() and int(length) > limit:
        return bytes(limit + 1)
    if request.content_type == MULTIPART:
        # Django may have parsed it for the CSRF token. The resource refuses it because of its type.
        return b"--"
    # An ASGI server doesn't always know the length.
    return request.body if length else request.read(limit + 1)


# -- responses


def http_response(answer: ApiResponse) -> HttpResponse:
    """Convert the response to Django's; roll the request's writes back after a refusal."""
    if answer.status >= 400:
        roll_back()
    response = HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
    if "content-type" not in answer.headers:
        del response["Content-Type"]
    return response


def roll_back() -> None:
    """Roll back the transactions of this request (ATOMIC_REQUESTS)."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)
