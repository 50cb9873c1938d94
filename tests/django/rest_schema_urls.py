"""The resource for drf-spectacular, beside a view of the project's own."""

from __future__ import annotations

from django.urls import include, path
from rest_framework import serializers
from rest_framework.generics import CreateAPIView


class Article(serializers.Serializer):
    state = serializers.ChoiceField(choices=["draft", "published"])


class Articles(CreateAPIView):
    serializer_class = Article


urlpatterns = [
    path("hooks/", include("thorn_django.rest_framework.urls")),
    path("articles/", Articles.as_view()),
]
