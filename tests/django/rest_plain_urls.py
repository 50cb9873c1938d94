"""The resource in a Django project."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("webhooks/", include("thorn_django.urls")),
    path("tenants/<slug:tenant>/häuser & co/", include("thorn_django.urls", namespace="tenants")),
]
