"""The URLs of the tests' project while it has an admin."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path
from magazine.urls import urlpatterns as magazine

urlpatterns = [path("admin/", admin.site.urls), *magazine]
