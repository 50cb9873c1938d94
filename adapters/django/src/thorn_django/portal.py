"""The portal on Django: a page over the REST resource for authenticated users.

Mount it with `path("webhooks/", include("thorn_django.portal"))`, or with options as
`path("webhooks/", include(portal_urls(title="…")))`, next to the resource's own URLs.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_safe

from thorn_core.portal import Portal

app_name = "thorn_portal"
FILES = Portal(api_path="/")


def portal_urls(
    *, rest: str = "thorn:hook-list", title: str = "Webhooks"
) -> tuple[list[URLPattern], str]:
    """Return the portal's URLs for `include`: `thorn_portal:page`, and its static files.

    The page redirects anonymous users to LOGIN_URL. It contains no data: it requests them from the
    resource, with the session's cookie and the CSRF token. If the portal's URL prefix captures a
    value, such as a tenant, the resource's prefix must capture it, too.

    Args:
        rest: The URL name of the resource's list of subscriptions, if you changed its namespace.
        title: The title of the page.

    Example:
        >>> patterns, namespace = portal_urls(title="Webhooks of a newspaper")
        >>> namespace, [pattern.name for pattern in patterns]
        ('thorn_portal', ['page', 'file'])
    """

    @login_not_required
    @require_safe
    def page(request: HttpRequest, **above: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        portal = Portal(
            api_path=reverse(rest, kwargs=above),
            hooks_at_root=True,
            title=title,
            # The login page redirects back here.
            sign_in_url=request.path,
        )
        return _response(portal, request, "/", get_token(request))

    return [path("", page, name="page"), path("<path:below>", _file, name="file")], app_name


@login_not_required
@require_safe
def _file(request: HttpRequest, below: str, **_: Any) -> HttpResponse:
    return _response(FILES, request, f"/{below}")


def _response(
    portal: Portal, request: HttpRequest, path: str, csrf_token: str | None = None
) -> HttpResponse:
    answer = portal.handle(path, method=request.method or "", csrf_token=csrf_token)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


urlpatterns, _ = portal_urls()
