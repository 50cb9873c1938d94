"""URLs in events: of views, and what their paths are relative to."""

from __future__ import annotations

import subprocess
import sys

import pytest
from django.test import override_settings
from eventing.models import Post

from thorn_core import ConfigurationError, Settings, Thorn, model_reverser


def test_a_view_is_reversed_with_attributes_of_the_instance(default_alias):
    reverse = model_reverser("article", pk="pk")
    post = Post(pk=5)
    with Thorn() as app:
        assert reverse.reverse(post, app) == "/articles/5/"
    with Thorn(settings=Settings(base_url="https://example.com/")) as app:
        assert reverse.reverse(post, app) == "https://example.com/articles/5/"


def test_a_view_that_isnt_there_says_why(default_alias):
    with Thorn() as app:
        with pytest.raises(ConfigurationError, match=r"no URL for view 'article'.*pk"):
            model_reverser("article", "pk").reverse(Post(), app)
        unknown = pytest.raises(ConfigurationError, match="or a plugin")
        with override_settings(ROOT_URLCONF=None), unknown:
            model_reverser("article", pk="pk").reverse(Post(pk=5), app)


def test_get_absolute_url_is_made_absolute_alike(default_alias):
    post = Post(pk=5)
    with Thorn() as app:
        assert Post.webhooks.ref(post, None, app) == "/posts/5/"
    with Thorn(settings=Settings(base_url="https://example.com")) as app:
        assert Post.webhooks.ref(post, None, app) == "https://example.com/posts/5/"
        assert Post.webhooks.ref(post, lambda post: "https://other.example/", app) == (
            "https://other.example/"
        )
        assert Post.webhooks.ref(post, lambda post: "/p/", app) == "https://example.com/p/"


class TestSites:
    def test_the_current_site_is_it_unless_a_setting_says_otherwise(self):
        """In a process of its own, where the sites framework is installed."""
        program = """
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.sites", "thorn_django"], SITE_ID=1,
)
django.setup()
from django.core.management import call_command
from django.contrib.sites.models import Site
from thorn_core import Settings, Thorn
call_command("migrate", verbosity=0)
Site.objects.update_or_create(pk=1, defaults={"domain": "news.example"})
Site.objects.clear_cache()
with Thorn() as app:
    print(app.absolute_url("/a/"))
    settings.SITE_ID = 7
    print(app.absolute_url("/a/"))
    del settings.SITE_ID
    print(app.absolute_url("/a/"))
with Thorn(settings=Settings(base_url="http://localhost:8000")) as app:
    print(app.absolute_url("/a/"))
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == [
            "https://news.example/a/",
            "/a/",
            "/a/",
            "http://localhost:8000/a/",
        ], done.stderr


@pytest.mark.parametrize("value", ["example.com", "ftp://a.com", "https://", "https://a/?b", 5])
def test_a_base_url_that_isnt_one_is_refused(value):
    with pytest.raises(ConfigurationError, match="base_url"):
        Settings(base_url=value)
