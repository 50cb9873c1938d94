"""The URLs of the project."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("blog.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("blog.api")),
    path("hooks/", include("thorn_django.rest_framework.urls")),
]
