"""The magazine's models."""

from __future__ import annotations

from django.db import models

from thorn_django.models import AbstractSubscription


class Author(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True)

    class Meta:
        app_label = "magazine"

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "magazine"

    def __str__(self) -> str:
        return self.name


class Article(models.Model):
    author = models.ForeignKey(
        Author, null=True, blank=True, on_delete=models.CASCADE, related_name="articles"
    )
    title = models.CharField(max_length=200, default="")
    state = models.CharField(max_length=20, default="DRAFT")
    tags = models.ManyToManyField(Tag, blank=True, related_name="articles")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "magazine"

    def __str__(self) -> str:
        return self.title


class Headline(Article):
    """A proxy."""

    class Meta:
        app_label = "magazine"
        proxy = True


class Review(Article):
    """A child with a table of its own."""

    stars = models.IntegerField(default=0)
    work = models.CharField(max_length=200, default="")

    class Meta:
        app_label = "magazine"


class Hook(AbstractSubscription):
    """The magazine's own subscriptions."""

    plan = models.CharField(max_length=20, default="free")
    user = models.ForeignKey("auth.User", null=True, on_delete=models.CASCADE, db_constraint=False)

    class Meta:
        app_label = "magazine"
