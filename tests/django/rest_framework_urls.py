"""The resource in a project with Django REST framework."""

from __future__ import annotations

from django.urls import include, path

RESOURCE = "thorn_django.rest_framework.urls"
urlpatterns = [
    path("webhooks/", include(RESOURCE)),
    path("tenants/<slug:tenant>/häuser & co/", include(RESOURCE, namespace="tenants")),
]
