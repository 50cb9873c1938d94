"""The URLs of the tests' project while it has a portal."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from thorn_django.portal import portal_urls

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/hooks/", include("thorn_django.urls")),
    path("portal/", include("thorn_django.portal")),
    path("of/<tenant>/hooks/", include("thorn_django.urls", namespace="tenants")),
    path(
        "of/<tenant>/portal/",
        include(
            portal_urls(rest="tenants:hook-list", title="Hooks of tenants"),
            namespace="tenants_portal",
        ),
    ),
]
