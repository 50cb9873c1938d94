"""The portal on Django: a page over the REST resource, for whoever is signed in.

Mount it with `path("webhooks/", include("thorn_django.portal"))`, or with options by
`path("webhooks/", include(portal_urls(title="…")))`, beside the resource's own URLs.
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
    """The portal's URLs, for `include`: `thorn_portal:page`, and the files beside it.

    Who isn't signed in is sent to LOGIN_URL. The page holds no data: what it shows, it asks the
    resource for, by the session's cookie and with the CSRF token. A prefix that captures something,
    as a tenant, is to be the resource's too.

    Args:
        rest: Name of the resource's list of subscriptions, where it has a namespace of yours.
        title: What the page is called.

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
            # Asked for anew, this page leads there.
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
