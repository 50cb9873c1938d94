"""Statements that change many rows, for models whose manager asks for events of them."""

from __future__ import annotations

from itertools import groupby

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.models import Count, F, Value
from django.db.models.functions import Concat
from eventing.models import Page, Post, Writer
from eventing.sent import sending

from thorn_core import signals


@pytest.fixture
def sent(default_alias):
    with sending(default_alias) as sent:
        yield sent


@pytest.fixture
def sent_anywhere(alias):
    with sending(alias) as sent:
        yield sent


def pages(sent, *slugs, **values):
    made = [Page(slug=slug, **values) for slug in slugs]
    Page.objects.bulk_create(made)
    sent.take()
    return list(Page.objects.filter(slug__in=slugs).order_by("slug"))


def slugs(sent, event):
    return sorted(payload["slug"] for name, payload in sent.take() if name == event)


class TestUpdate:
    def test_each_row_that_changes_is_told_with_what_it_held(self, sent_anywhere):
        sent = sent_anywhere
        pages(sent, "a", "b")
        pages(sent, "c", state="PUBLISHED")
        told = []

        def receive(model, instance, previous, **_):
            told.append((instance.slug, dict(previous)))

        with signals.model_changed.connected_to(receive, sender=Page):
            assert Page.objects.update(state="PUBLISHED") == 3
        assert sorted(told, key=str) == [("a", {"state": "DRAFT"}), ("b", {"state": "DRAFT"})]
        assert sent.names() == ["page.changed", "page.published"] * 2

    def test_values_that_the_database_works_out_are_told(self, sent_anywhere):
        sent = sent_anywhere
        pages(sent, "a")
        Page.objects.update(hits=F("hits") + 7, slug=Concat("slug", Value("!")))
        assert sent.take() == [("page.changed", {"slug": "a!", "state": "DRAFT", "hits": 7})]

    def test_filters_that_the_update_undoes_and_filters_over_other_tables(self, sent_anywhere):
        sent = sent_anywhere
        writer = Writer.objects.create(name="Ann")
        pages(sent, "a", "b", writer=writer)
        pages(sent, "c")
        Page.objects.filter(writer__name="Ann", state="DRAFT").update(state="PUBLISHED")
        assert slugs(sent, "page.published") == ["a", "b"]
        Page.objects.filter(state="PUBLISHED").distinct().update(state="DRAFT")
        assert slugs(sent, "page.changed") == ["a", "b"]
        counted = Page.objects.annotate(n=Count("writer__pages")).filter(n=0)
        counted.order_by("slug").update(hits=1)
        assert slugs(sent, "page.changed") == ["c"]

    def test_a_relationship_may_be_set_either_way(self, sent):
        writer = Writer.objects.create(name="Ann")
        pages(sent, "a")
        Page.objects.update(writer=writer)
        assert sent.names() == ["page.changed"]
        Page.objects.update(writer_id=None)
        assert sent.names() == ["page.changed"]

    def test_it_is_all_one_transaction(self, sent_anywhere):
        sent = sent_anywhere
        pages(sent, "a", "b")
        with pytest.raises(IntegrityError):
            Page.objects.update(slug="same")
        assert sent.names() == []
        with pytest.raises(KeyError), transaction.atomic(using=sent.alias):
            Page.objects.update(hits=1)
            raise KeyError
        assert sent.names() == []

    def test_many_rows_are_loaded_some_at_a_time(self, sent_anywhere):
        sent = sent_anywhere
        Page.objects.bulk_create([Page() for _ in range(1100)])
        sent.take()
        with sent.queries() as queries:
            Page.objects.update(hits=1)
        verbs = [verb for verb, _ in groupby(q.split()[0] for q in queries)]
        assert verbs == ["SELECT", "UPDATE", *["SELECT", "INSERT"] * 3]
        # Many messages in each.
        assert sum(query.startswith("INSERT") for query in queries) < 20
        assert len(sent.names()) == 1100

    def test_what_cant_be_updated_says_so_as_ever(self, sent):
        with pytest.raises(TypeError, match="slice"):
            Page.objects.all()[:3].update(hits=1)
        with pytest.raises(Exception, match="nothing"):
            Page.objects.update(nothing=1)

    def test_without_that_manager_nothing_is_sent(self, sent):
        Post.objects.create()
        sent.take()
        Post.objects.update(state="PUBLISHED")
        Post.objects.bulk_create([Post()])
        assert sent.names() == []

    def test_related_managers_and_set_null_use_the_base_manager(self, sent):
        writer = Writer.objects.create(name="Ann")
        (page,) = pages(sent, "a")
        writer.pages.add(page)
        assert sent.names() == ["page.changed"]
        writer.delete()
        assert sent.names() == ["page.changed"]
        assert Page.objects.get().writer is None


class TestBulkCreate:
    def test_each_object_is_told(self, sent_anywhere):
        sent = sent_anywhere
        made = Page.objects.bulk_create([Page(slug="a"), Page(slug="b", pk=77), Page(slug=None)])
        names = [payload["slug"] for name, payload in sent.take() if name == "page.created"]
        if connections[sent.alias].features.can_return_rows_from_bulk_insert:
            assert names == ["a", "b", None]
            assert all(page.pk for page in made)
        else:
            assert set(names) >= {"a", "b"}

    def test_what_is_created_is_known(self, sent):
        (page,) = Page.objects.bulk_create([Page(slug="a")])
        page.state = "PUBLISHED"
        sent.take()
        with sent.queries() as queries:
            page.save()
        assert [q.split()[0] for q in queries] == ["UPDATE", "INSERT"]
        assert sent.names() == ["page.changed", "page.published"]

    def test_an_expression_is_told_as_its_value(self, sent_anywhere):
        sent = sent_anywhere
        Page.objects.bulk_create([Page(slug=Concat(Value("a"), Value("b")), pk=-1), Page(slug="c")])
        assert slugs(sent, "page.created") == ["ab", "c"]

    def test_conflicts_ignored_arent_told(self, sent_anywhere):
        sent = sent_anywhere
        pages(sent, "a", site="x", number=1)
        Page.objects.bulk_create(
            [
                Page(slug="a"),
                Page(slug="b"),
                Page(slug="c", site="x", number=1),
                Page(slug="d", site="x", number=2),
            ],
            ignore_conflicts=True,
        )
        assert slugs(sent, "page.created") == ["b", "d"]

    def test_conflicts_updated_are_changes(self, sent_anywhere):
        sent = sent_anywhere
        pages(sent, "a", "b", "c")
        unique = (
            {"unique_fields": ["slug"]}
            if connections[sent.alias].features.supports_update_conflicts_with_target
            else {}
        )
        Page.objects.bulk_create(
            [
                Page(slug="a", state="PUBLISHED"),
                Page(slug="b", hits=5),
                Page(slug="c"),
                Page(slug="d"),
            ],
            update_conflicts=True,
            update_fields=["state", "hits"],
            **unique,
        )
        told = sent.take()
        assert sorted((name, payload["slug"]) for name, payload in told) == [
            ("page.changed", "a"),
            ("page.changed", "b"),
            ("page.created", "d"),
            ("page.published", "a"),
        ]

    def test_rows_that_cant_be_known_are_said_not_to_be_told(self, sent_anywhere, caplog):
        sent = sent_anywhere
        Page.objects.bulk_create([Page(), Page()], ignore_conflicts=True)
        assert sent.names() == []
        assert "no events for 2 rows of Page" in caplog.text

    def test_a_bulk_create_that_fails_sends_nothing(self, sent_anywhere):
        sent = sent_anywhere
        pages(sent, "a")
        with pytest.raises(IntegrityError):
            Page.objects.bulk_create([Page(slug="b"), Page(slug="a")])
        assert sent.names() == []

    def test_nothing_is_nothing(self, sent):
        assert Page.objects.bulk_create([]) == []


class TestBulkUpdate:
    def test_each_row_that_changes_is_told_once(self, sent_anywhere):
        sent = sent_anywhere
        a, b, c = pages(sent, "a", "b", "c")
        a.state, b.hits = "PUBLISHED", 3
        assert Page.objects.bulk_update([a, b, c], ["state", "hits"], batch_size=2) in (2, 3)
        told = sorted((name, payload["slug"]) for name, payload in sent.take())
        assert told == [("page.changed", "a"), ("page.changed", "b"), ("page.published", "a")]
        a.save()
        assert sent.names() == ["page.changed"]
