"""The REST resource as a Django view."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from thorn_core.api import Problem
from thorn_django.rest import (
    NOBODY,
    access_of,
    api_request,
    body_of,
    http_response,
    resource_of,
    session_scheme,
)


@csrf_exempt  # by the middleware, whose answer is a page
@login_not_required
def webhooks(request: HttpRequest, below: str = "", **_: Any) -> HttpResponse:
    """Answer any call of the resource.

    The user comes from Django's authentication, and Django's protection against cross-site
    requests holds, where the project has it: unsafe methods need the CSRF token.

    Args:
        request: Django's.
        below: The path below where the resource is mounted.
        **_: What the path above it says, as of a tenant.
    """
    resource = resource_of("views", lambda: {"session": session_scheme()})
    access = access_of(request)
    body = body_of(request, resource.body_limit)
    if access != NOBODY and _is_another_sites(request):
        problem = Problem("forbidden", "The CSRF token is missing or wrong; send it.")
        return http_response(resource.refuse(problem, method=request.method or ""))
    asked = api_request(request, below, access=access, body=body)
    return http_response(resource.handle(asked))


def _is_another_sites(request: HttpRequest) -> bool:
    """Whether the project's protection refuses it."""
    return any(
        # Asked about this view, which is exempt, it would say nothing.
        each.process_view(request, _nothing, (), {}) is not None
        for each in _protections(tuple(settings.MIDDLEWARE))
    )


@cache
def _protections(middleware: tuple[str, ...]) -> Sequence[Any]:
    found = {name: import_string(name) for name in middleware}
    return [made(_nothing) for name, made in found.items() if _protects(name, made)]


def _protects(name: str, made: Any) -> bool:
    """Whether a middleware is such a protection: Django's, one made of it, or one that says so."""
    if not (isinstance(made, type) and hasattr(made, "process_view")):
        return False
    return issubclass(made, CsrfViewMiddleware) or "csrf" in name.lower()


def _nothing(_: HttpRequest) -> HttpResponse:
    return HttpResponse()
