"""The REST resource on Django: what came becomes an `ApiRequest`, the answer an `HttpResponse`.

Mount it with `path("hooks/", include("thorn_django.urls"))`, or for Django REST framework with
`thorn_django.rest_framework.urls`. Subscriptions are then at `/hooks/` and `/hooks/{id}/`, and what
else there is beside them: `/hooks/deliveries/{id}/`, `/hooks/event-types/`, `/hooks/openapi.json`.
Any other prefix serves as well.
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
    """Whose a request is.

    Attributes:
        owner: Id of the user, as subscriptions carry it; None for nobody.
        operator: True for those who see and touch everything.
    """

    owner: str | None = None
    operator: bool = False


NOBODY = Access()


def access_of(request: Any) -> Access:
    """Whose a request is: the one rule, whichever framework has authenticated it.

    Who is logged in owns what they subscribe: `owner` is the user's primary key, as text. Active
    staff who may change subscriptions (the model permission; superusers may) are operators besides:
    they see and touch everybody's.

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
    """The resource of the app, made anew when the app is.

    Args:
        carrier: Who carries it: each has its own, and so its own count of who does what how often.
        security_schemes: How one authenticates there, for the OpenAPI document.
    """
    app = get_app()
    with _lock:
        found = _resources.get(carrier)
        if found is None or found.app is not app:
            found = Resource(app, security_schemes=security_schemes())
            _resources[carrier] = found
        return found


def session_scheme() -> dict[str, Any]:
    """The cookie of Django's sessions, as OpenAPI has it."""
    return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


# -- in


def api_request(
    request: HttpRequest, below: str, *, access: Access, body: bytes, ignored: str | None = None
) -> ApiRequest:
    """What came, free of Django.

    Args:
        request: Django's.
        below: The end of its path, below where the resource is mounted.
        access: Whose it is.
        body: Of the request: see `body_of`.
        ignored: A parameter that isn't for the resource.
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
    """The last parts of a path, which are below where the resource is mounted.

    Args:
        path: The whole path.
        depth: How many parts; a slash at the end is none.

    Example:
        >>> below_of("/api/hooks/sub_1/test/", 2), below_of("/api/hooks/", 0)
        ('sub_1/test/', '')
    """
    if not depth:
        return ""
    slash = "/" if path.endswith("/") else ""
    return "/".join(path.removesuffix("/").split("/")[-depth:]) + slash


def body_of(request: HttpRequest, limit: int) -> bytes:
    """The body of a request; of one that is too large, something that is as well.

    Args:
        request: Django's.
        limit: Bytes.
    """
    length = request.META.get("CONTENT_LENGTH") or ""
    if length.isdecimal() and int(length) > limit:
        return bytes(limit + 1)
    if request.content_type == MULTIPART:
        # Django may have read it, for the CSRF token. The resource refuses it for its type.
        return b"--"
    # A server that speaks ASGI doesn't always know how long it is.
    return request.body if length else request.read(limit + 1)


# -- out


def http_response(answer: ApiResponse) -> HttpResponse:
    """The answer, as Django's; one that refuses takes back what was written for it."""
    if answer.status >= 400:
        roll_back()
    response = HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
    if "content-type" not in answer.headers:
        del response["Content-Type"]
    return response


def roll_back() -> None:
    """Let the transactions of this request (ATOMIC_REQUESTS) come to nothing."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)
