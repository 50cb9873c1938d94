"""The blog's models and their events."""

from django.conf import settings
from django.db import models
from django.urls import reverse

from thorn_core import ModelEvent, model_reverser, webhook_model


class Category(models.Model):
    """The topic of an article."""

    name = models.SlugField(unique=True)

    class Meta:
        verbose_name_plural = "categories"

    def __str__(self):
        return self.name


class Tag(models.Model):
    """A keyword of articles."""

    name = models.SlugField(unique=True)

    def __str__(self):
        return self.name


@webhook_model
class Article(models.Model):
    """An article by an author."""

    class State(models.TextChoices):
        """Drafts are visible only to their author."""

        DRAFT = "DRAFT"
        PUBLISHED = "PUBLISHED"

    class webhooks:  # noqa: N801 - the name Thorn looks for
        # Notify the author's subscriptions, and those of operators.
        sender_field = "author"
        on_create = ModelEvent("article.created")
        on_change = ModelEvent("article.changed")
        on_delete = ModelEvent("article.removed")
        on_publish = ModelEvent(
            "article.published", state__now_eq="PUBLISHED"
        ).dispatches_on_change()
        on_tag = ModelEvent("article.tagged").dispatches_on_m2m_add("tags")
        on_untag = ModelEvent("article.untagged").dispatches_on_m2m_remove("tags")
        on_clear = ModelEvent("article.tags_cleared").dispatches_on_m2m_clear("tags")

        def payload(self, article):
            return {
                "id": article.pk,
                "title": article.title,
                "state": article.state,
                "category": article.category and article.category.name,
                "tags": sorted(tag.name for tag in article.tags.all()),
            }

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="articles")
    title = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    category = models.ForeignKey(Category, models.SET_NULL, null=True, blank=True)
    tags = models.ManyToManyField(Tag, blank=True, related_name="articles")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("blog:article", args=[self.pk])


@webhook_model
class Comment(models.Model):
    """A reader's comment on an article."""

    class webhooks:  # noqa: N801 - the name Thorn looks for
        sender_field = "article.author"
        reverse = model_reverser("blog:article", "article.pk")
        on_create = ModelEvent("comment.created")

        def payload(self, comment):
            return {"article": comment.article.title, "name": comment.name, "text": comment.text}

    article = models.ForeignKey(Article, models.CASCADE, related_name="comments")
    name = models.CharField(max_length=100)
    text = models.TextField(max_length=5000)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("created_at",)

    def __str__(self):
        return f"{self.name}: {self.text[:50]}"
