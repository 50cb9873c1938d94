"""The magazine's URLs."""

from __future__ import annotations

from django.http import HttpResponse
from django.urls import path


def article(request, pk):
    return HttpResponse(f"article {pk}")


urlpatterns = [path("articles/<int:pk>/", article, name="article")]
