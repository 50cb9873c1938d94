"""The REST resource's URLs: `path("hooks/", include("thorn_django.rest_framework.urls"))`.

Each has a name, such as `thorn:hook-list` and `thorn:hook-detail`. A slash at the end is optional.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponseBase
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

from thorn_django.rest_framework.views import (
    DeliveryViewSet,
    DocumentViewSet,
    EventTypeViewSet,
    HookViewSet,
)

app_name = "thorn"

_elsewhere = DocumentViewSet.as_view({"get": "retrieve"}, name="Nothing")


# A wrapper, because the browsable API would list the view itself among a page's parents.
@csrf_exempt
@login_not_required
def _nothing(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
    return _elsewhere(request, **kwargs)


urlpatterns = [
    path(
        "",
        HookViewSet.as_view({"get": "list", "post": "create"}, name="Subscriptions"),
        name="hook-list",
    ),
    re_path(
        r"^event-types/?$",
        EventTypeViewSet.as_view({"get": "list"}, depth=1, name="Event types"),
        name="event-type-list",
    ),
    re_path(
        r"^openapi\.json/?$",
        DocumentViewSet.as_view({"get": "retrieve"}, depth=1, name="OpenAPI"),
        name="openapi",
    ),
    re_path(
        r"^deliveries/(?P<id>[^/]+)/?$",
        DeliveryViewSet.as_view({"get": "retrieve"}, depth=2, name="Delivery"),
        name="delivery-detail",
    ),
    re_path(
        r"^deliveries/(?P<id>[^/]+)/retry/?$",
        DeliveryViewSet.as_view({"post": "retry"}, depth=3, name="Retry"),
        name="delivery-retry",
    ),
    re_path(
        r"^deliveries/(?P<id>[^/]+)/cancel/?$",
        DeliveryViewSet.as_view({"post": "cancel"}, depth=3, name="Cancel"),
        name="delivery-cancel",
    ),
    re_path(
        r"^(?P<id>[^/]+)/?$",
        HookViewSet.as_view(
            {
                "get": "retrieve",
                "put": "update",
                "patch": "partial_update",
                "delete": "destroy",
            },
            depth=1,
            name="Subscription",
        ),
        name="hook-detail",
    ),
    re_path(
        r"^(?P<id>[^/]+)/rotate-secret/?$",
        HookViewSet.as_view({"post": "rotate_secret"}, depth=2, name="Rotate secret"),
        name="hook-rotate-secret",
    ),
    re_path(
        r"^(?P<id>[^/]+)/pause/?$",
        HookViewSet.as_view({"post": "pause"}, depth=2, name="Pause"),
        name="hook-pause",
    ),
    re_path(
        r"^(?P<id>[^/]+)/resume/?$",
        HookViewSet.as_view({"post": "resume"}, depth=2, name="Resume"),
        name="hook-resume",
    ),
    re_path(
        r"^(?P<id>[^/]+)/test/?$",
        HookViewSet.as_view({"post": "test"}, depth=2, name="Send test"),
        name="hook-test",
    ),
    re_path(
        r"^(?P<id>[^/]+)/deliveries/?$",
        HookViewSet.as_view({"get": "deliveries"}, depth=2, name="Deliveries"),
        name="hook-deliveries",
    ),
    re_path(
        r"^(?P<id>[^/]+)/stats/?$",
        HookViewSet.as_view({"get": "stats"}, depth=2, name="Statistics"),
        name="hook-stats",
    ),
    re_path(
        r"^(?P<id>[^/]+)/recover/?$",
        HookViewSet.as_view(
            {"post": "recover"}, depth=2, name="Retry failed and cancelled deliveries"
        ),
        name="hook-recover",
    ),
    # The resource responds that it doesn't exist.
    re_path(r"^(?P<below>[\s\S]+)\Z", _nothing, name="resource"),
]
