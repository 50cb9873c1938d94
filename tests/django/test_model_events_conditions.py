"""Django's Q as the condition of an event."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.db import models
from django.db.models import F, Q
from eventing.models import Plain, Post, Writer
from eventing.sent import sending

from thorn_core import ModelEvent
from thorn_core import Q as ThornQ

# A condition of every lookup, and what it says of these rows in a database.
CONDITIONS = [
    Q(),
    ~Q(),
    Q(title="b"),
    Q(title__exact="b"),
    ~Q(title="b"),
    Q(count__gt=1),
    Q(count__gte=1),
    Q(count__lt=1),
    Q(count__lte=1),
    Q(count__in=[0, 2]),
    Q(count__range=(1, 2)),
    Q(title__contains="b"),
    Q(title__startswith="a"),
    Q(title__endswith="c"),
    Q(writer=None),
    Q(writer__isnull=True),
    Q(writer__isnull=False),
    Q(writer__name="Ann"),
    Q(writer__name__startswith="A"),
    Q(title="b") | Q(count=2),
    Q(title="b", count=1) & ~Q(state="DRAFT"),
    ~(Q(title="b") | Q(count=2)),
    Q(title="b") ^ Q(count=1) ^ Q(state="DRAFT"),
    ~Q(count__gt=0, title__contains="b"),
]


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_it_asks_of_an_instance_what_it_asks_of_the_database(condition, default_alias):
    ann = Writer.objects.create(name="Ann")
    for title, count, state in (("a", 0, "DRAFT"), ("b", 1, "READY"), ("abc", 2, "DRAFT")):
        Post.objects.create(title=title, count=count, state=state, writer=ann if count else None)
    asked = ThornQ(condition)
    held = {post.pk for post in Post.objects.select_related("writer") if asked(post)}
    assert held == set(Post.objects.filter(condition).values_list("pk", flat=True))


def test_it_may_hold_thorns_operators_and_stand_beside_thorns_conditions():
    event = ModelEvent(
        "a.b", Q(state__now_eq="X") & Q(name__ne="y"), ThornQ(size__gt=1) & ThornQ(Q(size=2))
    )
    thing = SimpleNamespace(state="X", name="z", size=2)
    assert event.filter.now_fields == {"state"}
    assert event.filter(thing, {"state": "W"})
    assert not event.filter(thing, {"size": 1})


def test_an_event_of_a_model_goes_by_it(default_alias):
    with sending(default_alias) as sent:
        plain = Plain.objects.create(name="a", size=20)
        plain.save()
        assert sent.names() == ["plain.large"]
        plain.name = ""
        plain.save()
        assert sent.names() == []


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Q(title__icontains="a"), "'icontains' of 'title__icontains' can't be evaluated"),
        (~Q(Q(created__year=2020)), "created__year__exact"),
        (Q(title__regex="a"), "may hold the lookups exact, gt"),
        (Q(count=F("size")), "only be evaluated by a database"),
        (Q(writer__in=models.QuerySet(Writer)), "only be evaluated by a database"),
        (Q(models.Exists(models.QuerySet(Writer))), "only be evaluated by a database"),
        (Q(state__now_equals="X"), "did you mean"),
    ],
)
def test_what_only_a_database_can_tell_is_refused_at_once(condition, words):
    with pytest.raises(ValueError, match=words):
        ModelEvent("a.b", condition)
