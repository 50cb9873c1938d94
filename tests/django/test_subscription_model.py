"""The subscription model itself: what its ORM saves, and what it calls itself."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connection
from django.forms import modelform_factory
from django.test.utils import CaptureQueriesContext
from eventing.sent import sending
from magazine.models import Hook

from thorn_core import ConfigurationError
from thorn_django.models import Subscription

HEADERS = {"Authorization": "Bearer abc", "X-Shop": "1"}


@pytest.fixture
def made(default_alias):
    """A row with a credential among its headers."""
    with sending(default_alias) as sent:
        key = sent.app.subscribe("*", "https://example.com/?token=abc", headers=HEADERS).id
        yield Subscription.objects.get(pk=key)


def stored(row):
    found = Subscription.objects.get(pk=row.pk)
    return found.url, found.headers


ELSEWHERE = "https://other.example/"


def test_a_credential_does_not_follow_to_another_origin_by_the_orm(made):
    made.url = "https://example.com/elsewhere"
    made.save()
    assert stored(made) == ("https://example.com/elsewhere", HEADERS)
    made.url = ELSEWHERE
    made.save()
    assert stored(made) == (ELSEWHERE, {"X-Shop": "1"})
    made.headers = {"Authorization": "Bearer new"}
    made.url = "https://third.example/"
    made.save()
    assert stored(made)[1] == {"Authorization": "Bearer new"}


def test_nor_if_the_url_alone_is_saved(made):
    made.url = ELSEWHERE
    made.save(update_fields=["url"])
    assert stored(made) == (ELSEWHERE, {"X-Shop": "1"})


def test_nor_by_a_form(made):
    form = modelform_factory(Subscription, fields=["url", "description"])(
        {"url": ELSEWHERE, "description": "moved"}, instance=made
    )
    form.save()
    assert stored(made) == (ELSEWHERE, {"X-Shop": "1"})


@pytest.mark.parametrize(
    "change",
    [
        lambda rows, row: rows.update(url=ELSEWHERE),
        lambda rows, row: rows.filter(pk=row.pk).update(description="moved", url=ELSEWHERE),
        lambda rows, row: asyncio.run(rows.aupdate(url=ELSEWHERE)),
        lambda rows, row: rows.bulk_update([row], ["url"]),
        lambda rows, row: rows.bulk_create(
            [row], update_conflicts=True, update_fields=["url"], unique_fields=["id"]
        ),
    ],
    ids=["update", "filter", "aupdate", "bulk_update", "bulk_create"],
)
@pytest.mark.parametrize("manager", ["objects", "_default_manager"])
def test_nor_by_a_queryset_which_names_what_to_call_instead(made, change, manager):
    before = stored(made)
    made.url = ELSEWHERE
    with pytest.raises(ConfigurationError, match=r"can't change url.*app\.update_subsc.*save\(\)"):
        change(getattr(Subscription, manager), made)
    assert stored(made) == before


def test_a_queryset_changes_anything_else(made):
    assert Subscription.objects.update(description="for the shop") == 1
    made.refresh_from_db()
    made.description = "for two shops"
    assert Subscription.objects.bulk_update([made], ["description"]) == 1
    assert Subscription.objects.get(pk=made.pk).description == "for two shops"


def test_a_model_of_the_projects_own_inherits_the_querys_rule():
    with pytest.raises(ConfigurationError, match="can't change url"):
        Hook.objects.update(url=ELSEWHERE)


def test_what_does_not_touch_the_url_asks_nothing(made):
    made.description = "for the shop"
    with CaptureQueriesContext(connection) as queries:
        made.save(update_fields=["description"])
    assert not [query for query in queries if query["sql"].startswith("SELECT")]


def test_its_name_shows_no_query(made):
    assert str(made) == "* → https://example.com/"
