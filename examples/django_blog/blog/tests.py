"""The blog's own tests of its events. Run them with `manage.py test`."""

from django.contrib.auth.models import User
from django.test import TestCase

from blog.models import Article, Comment, Tag
from thorn_django.testing import WebhookTestMixin


class EventTests(WebhookTestMixin, TestCase):
    """Each change sends the right events."""

    @classmethod
    def setUpTestData(cls):
        cls.ada = User.objects.create(username="ada")
        cls.article = Article.objects.create(author=cls.ada, title="Hello", body="World")

    def test_publishing_sends_one_event(self):
        self.article.state = "PUBLISHED"
        self.article.save()
        self.article.save()
        message = self.assertEventSent("article.published", sender=self.ada)
        assert message.ref == f"http://127.0.0.1:8000/articles/{self.article.pk}/"
        self.assertEventSent("article.changed", times=2)

    def test_tagging_sends_the_tags(self):
        self.article.tags.add(Tag.objects.create(name="python"))
        message = self.assertEventSent("article.tagged")
        assert message.payload["tags"] == ["python"]

    def test_a_comment_notifies_the_author(self):
        self.article.state = "PUBLISHED"
        self.article.save()
        self.client.post(self.article.get_absolute_url(), {"name": "Bob", "text": "Nice"})
        assert Comment.objects.count() == 1
        self.assertEventSent(
            "comment.created",
            sender=self.ada,
            payload={"article": "Hello", "name": "Bob", "text": "Nice"},
        )
