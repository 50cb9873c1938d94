"""Instances created and changed: which events are sent, in which transaction, at what cost."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core import serializers
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.models import F
from django.db.models.signals import post_save
from django.db.transaction import TransactionManagementError
from django.test.utils import isolate_apps
from eventing.models import (
    Eager,
    Feature,
    Fragile,
    Memo,
    Note,
    Page,
    Parcel,
    Plain,
    Post,
    Room,
    Teaser,
    Temperature,
    Thing,
    Writer,
)
from eventing.sent import of_messages, sending

from thorn_core import ConfigurationError, ModelEvent, StoreError, Thorn, signals, webhook_model


@pytest.fixture
def sent(default_alias):
    with sending(default_alias) as sent:
        yield sent


@pytest.fixture
def sent_anywhere(alias):
    with sending(alias) as sent:
        yield sent


class TestSaves:
    def test_creating_and_changing_are_told_with_the_payload_of_that_moment(self, sent_anywhere):
        sent = sent_anywhere
        post = Post.objects.create(title="Hello")
        [(event, payload)] = sent.take()
        assert event == "post.created"
        assert payload == {"id": post.pk, "title": "Hello", "state": "DRAFT", "count": 0}
        post.title = "Bye"
        post.save()
        [(event, payload)] = sent.take()
        assert (event, payload["title"]) == ("post.changed", "Bye")

    def test_every_save_that_writes_something_is_a_change(self, sent):
        post = Post.objects.create()
        sent.take()
        post.save()
        post.save(update_fields=["title"])
        post.save(update_fields=[])
        assert sent.names() == ["post.changed", "post.changed"]

    def test_an_instance_knows_where_it_is_when_its_payload_is_made(self, sent, other_alias):
        seen = []

        def look(model, instance, within, **_):
            seen.append((instance._state.db, instance._state.adding, within))

        with signals.model_created.connected_to(look, sender=Post):
            Post.objects.using(other_alias).create()
        assert seen == [(other_alias, False, other_alias)]

    def test_what_isnt_decorated_sends_nothing_and_costs_nothing(self, sent):
        with sent.queries() as queries:
            Writer.objects.create(name="Ann").save()
        assert len(queries) == 2
        assert sent.names() == []

    def test_fixtures_are_loaded_silently(self, sent):
        post = Post(pk=7, title="of a fixture", updated_at=datetime.now(UTC))
        [loaded] = serializers.deserialize("json", serializers.serialize("json", [post]))
        loaded.save()
        assert Post.objects.get().title == "of a fixture"
        assert sent.names() == []

    def test_fields_choose_the_columns_of_the_payload(self, sent):
        memo = Memo.objects.create(name="Hi")
        assert sent.take() == [("stamped.created", {"id": memo.pk, "name": "Hi", "size": 1})]

    def test_columns_of_every_kind_can_be_in_a_payload(self, sent_anywhere):
        sent = sent_anywhere
        Parcel.objects.create(
            data=b"\0\1",
            file="a.txt",
            time=timedelta(hours=1),
            meta={"a": [1]},
            warmth=Temperature(300.0),
        )
        values = {
            "data": "AAE=",
            "file": "a.txt",
            "time": "P0DT3600S",
            "meta": {"a": [1]},
            "warmth": "300.0 K",
            "post_id": None,
        }
        [(_, payload)] = sent.take()
        assert payload == {"id": payload["id"], **values}
        with sent.queries() as queries:
            Parcel.objects.only("time").get().save()
        [(_, payload)] = sent.take()
        assert payload == {"id": payload["id"], **values}
        assert [q.split()[0] for q in queries] == ["SELECT", "UPDATE", "SELECT", "INSERT"]

    def test_get_or_create_and_update_or_create_send_what_happened_once(self, sent):
        Post.objects.get_or_create(title="a")
        Post.objects.get_or_create(title="a")
        assert sent.names() == ["post.created"]
        Post.objects.update_or_create(title="a", defaults={"state": "PUBLISHED"})
        assert sent.names() == ["post.changed", "post.published"]
        Page.objects.update_or_create(slug="p", defaults={"state": "DRAFT"})
        Page.objects.update_or_create(slug="p", defaults={"state": "PUBLISHED"})
        assert sent.names() == ["page.created", "page.changed", "page.published"]

    def test_an_expression_is_told_as_the_value_that_it_came_to(self, sent_anywhere):
        sent = sent_anywhere
        post = Post.objects.create(count=100)
        post.count = F("count") + 1
        post.save()
        _, changed, popular = sent.take()
        assert (changed[0], popular[0]) == ("post.changed", "post.popular")
        assert changed[1]["count"] == popular[1]["count"] == 101

    def test_an_expression_stays_as_it_is_in_the_programs_instance(self, sent):
        post = Post.objects.create()
        former = post.__class__.objects.get()
        former.count = F("count") + 1
        untouched = former.__dict__["count"]
        former.save()
        if former.__dict__.get("count") is untouched:  # Django 5.2 leaves it there
            assert hasattr(former.count, "resolve_expression")

    def test_columns_of_the_databases_making_are_told_as_they_are(self, sent_anywhere):
        sent = sent_anywhere
        room = Room.objects.create(width=5, height=5)
        [(event, payload)] = sent.take()
        assert (event, payload["name"], payload["area"]) == ("room.created", "room", 25)
        room = Room.objects.get()
        room.width = 30
        room.save()
        changed, large = sent.take()
        assert (changed[0], changed[1]["area"]) == ("room.changed", 150)
        assert large[0] == "room.large"
        room.save()
        assert sent.names() == ["room.changed"]
        room = Room.objects.create()
        room.height = 101
        sent.take()
        room.save(update_fields=["height"])
        assert sent.names() == ["room.changed", "room.large"]


class TestInheritance:
    def test_a_proxy_sends_the_events_of_what_it_stands_for_once(self, sent):
        teaser = Teaser.objects.create(title="t")
        teaser.state = "PUBLISHED"
        teaser.save()
        teaser.delete()
        assert sent.names() == ["post.created", "post.changed", "post.published", "post.deleted"]

    def test_a_child_sends_its_parents_events_and_its_own_once(self, sent_anywhere):
        sent = sent_anywhere
        feature = Feature.objects.create(title="f", stars=1)
        assert sorted(sent.names()) == ["feature.created", "post.created"]
        feature = Feature.objects.get()
        feature.state, feature.stars = "PUBLISHED", 5
        feature.save()
        assert sorted(sent.names()) == ["feature.starred", "post.changed", "post.published"]

    def test_a_childs_parent_saved_as_such_sends_only_the_parents(self, sent):
        Feature.objects.create(stars=1)
        sent.take()
        post = Post.objects.get()
        post.state = "PUBLISHED"
        post.save()
        assert sent.names() == ["post.changed", "post.published"]

    def test_an_abstract_class_is_decorated_for_its_children(self, sent):
        Memo.objects.create(name="memo")
        note = Note.objects.create(name="note")
        note.name = "New note"
        note.save()
        assert sent.names() == ["stamped.created", "stamped.created", "stamped.renamed"]

    def test_a_class_made_later_sends_what_it_inherits(self, sent):
        class LateTeaser(Post):
            class Meta:
                app_label = "eventing"
                proxy = True

        LateTeaser.objects.create()
        assert sent.names() == ["post.created"]

    def test_a_class_that_saves_its_table_in_its_own_way_sends_once(self, sent):
        class OwnTeaser(Post):
            class Meta:
                app_label = "eventing"
                proxy = True

            def _save_table(self, *args, **kwargs):
                self.title = "own"
                return super()._save_table(*args, **kwargs)

        OwnTeaser.objects.create().save()
        told = sent.take()
        assert [name for name, _ in told] == ["post.created", "post.changed"]
        assert told[0][1]["title"] == "own"

    def test_a_class_decorated_later_sends_once_however_many_apps_there_are(self, sent):
        class Late(Writer):
            class Meta:
                app_label = "eventing"
                proxy = True

        with Thorn(dispatcher="outbox"), Thorn(dispatcher="outbox"):
            webhook_model(on_create=ModelEvent("late.created"))(Late)
            Late.objects.create(name="x")
        Late.objects.create(name="y")
        assert sent.names() == ["late.created", "late.created"]


class TestTransactions:
    def test_what_is_rolled_back_has_never_been_sent(self, sent_anywhere):
        sent = sent_anywhere
        with transaction.atomic(using=sent.alias):
            Post.objects.create(title="kept")
            with pytest.raises(KeyError), transaction.atomic(using=sent.alias):
                Post.objects.create(title="lost")
                raise KeyError
        assert [payload["title"] for _, payload in sent.take()] == ["kept"]
        with pytest.raises(KeyError), transaction.atomic(using=sent.alias):
            Post.objects.create(title="lost")
            raise KeyError
        assert sent.names() == []

    def test_without_a_transaction_a_row_and_its_message_are_written_in_one(self, sent):
        from django.test.utils import CaptureQueriesContext

        with CaptureQueriesContext(connection) as captured:
            Post.objects.create()
        found = of_messages(query["sql"] for query in captured.captured_queries)
        assert [sql.split()[0] for sql in found] == ["BEGIN", "INSERT", "INSERT", "COMMIT"]

    def test_in_a_transaction_nothing_is_added_but_the_message(self, sent):
        from django.test.utils import CaptureQueriesContext

        with transaction.atomic(), CaptureQueriesContext(connection) as captured:
            Post.objects.create()
        found = of_messages(query["sql"] for query in captured.captured_queries)
        assert [sql.split()[0] for sql in found] == ["INSERT"] * 2

    def test_receivers_of_post_save_run_after_the_commit_as_they_do_without_events(self, sent):
        committed = []

        def receive(**_):
            committed.append(not connections[sent.alias].in_atomic_block)
            raise RuntimeError("a receiver of the program's")

        post_save.connect(receive, sender=Post)
        try:
            with pytest.raises(RuntimeError):
                Post.objects.create()
        finally:
            post_save.disconnect(receive, sender=Post)
        assert committed == [True]
        assert Post.objects.count() == 1
        assert sent.names() == ["post.created"]  # it has been created

    def test_a_save_whose_message_cant_be_kept_fails_and_leaves_nothing(self, sent_anywhere):
        sent = sent_anywhere
        post = Post(title="x")
        with without_messages(sent.alias):
            with pytest.raises(StoreError):
                post.save()
            assert Post.objects.count() == 0
            assert (post._state.adding, post._state.db) == (True, None)
        post.save()
        assert sent.names() == ["post.created"]

    @pytest.mark.parametrize(
        "save",
        [
            lambda thing: copied(thing).save(),
            lambda thing: Thing(pk=thing.pk + 1, name="another").save(),
            lambda thing: Thing(pk=thing.pk).save(force_insert=True),
            lambda thing: Thing.objects.update_or_create(name="new"),
            lambda thing: revived(thing).save(),
            lambda thing: revived(thing).save(update_fields=None),
        ],
    )
    def test_no_row_is_kept_without_its_message_however_it_is_made(self, sent, save):
        thing = Thing.objects.create(name="original")
        with without_messages(sent.alias), pytest.raises((StoreError, IntegrityError)):
            save(thing)
        assert set(Thing.objects.values_list("name", flat=True)) <= {"original"}

    def test_with_autocommit_off_what_lost_its_message_is_rolled_back(self, sent):
        thing = Thing.objects.create(name="original")
        with without_messages(sent.alias):
            transaction.set_autocommit(False)
            try:
                with suppress(StoreError):
                    copied(thing).save()
                transaction.commit()
            finally:
                transaction.set_autocommit(True)
        assert Thing.objects.count() == 1

    def test_a_save_that_fails_at_its_commit_leaves_the_instance_unsaved(self, sent):
        parcel = Parcel(post_id=77)  # SQLite checks foreign keys at the commit
        with pytest.raises(IntegrityError):
            parcel.save()
        assert (parcel._state.adding, parcel._state.db) == (True, None)
        assert sent.names() == []

    def test_events_that_dont_wait_are_sent_at_once(self, sent, other_alias):
        with sending(other_alias) as elsewhere:
            with transaction.atomic():
                Eager.objects.create(name="a")
                assert elsewhere.names() == ["eager.created"]
            with pytest.raises(KeyError), transaction.atomic():
                Eager.objects.create(name="b")
                raise KeyError
            assert elsewhere.names() == ["eager.created"]
            eager = Eager.objects.get()
            with pytest.raises(KeyError), transaction.atomic():
                eager.save()
                raise KeyError
            assert elsewhere.names() == ["eager.changed"]

    def test_no_transaction_is_begun_for_events_that_dont_wait(self, sent, other_alias):
        from django.test.utils import CaptureQueriesContext

        with sending(other_alias), CaptureQueriesContext(connection) as captured:
            Eager.objects.create(name="a")
        assert [query["sql"].split()[0] for query in captured.captured_queries] == ["INSERT"]

    def test_autocommit_turned_off_is_the_programs_own_transaction(self, sent):
        transaction.set_autocommit(False)
        try:
            Post.objects.create(title="lost")
            transaction.rollback()
            Post.objects.create(title="kept")
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert [payload["title"] for _, payload in sent.take()] == ["kept"]


def copied(thing):
    """A copy, by Django's recipe."""
    copy = Thing.objects.get(pk=thing.pk)
    copy.pk = None
    copy.name = "copy"
    return copy


def revived(thing):
    """An instance whose row somebody has deleted: the UPDATE finds none."""
    found = Thing.objects.get(pk=thing.pk)
    Thing.objects.filter(pk=thing.pk)._raw_delete(found._state.db)
    found.name = "revived"
    return found


class TestFailures:
    def test_a_failing_payload_method_is_logged_and_the_row_saved(self, sent, caplog):
        Fragile.objects.create(name="value")
        assert Fragile.objects.count() == 1
        assert sent.names() == []
        assert "could not be sent" in caplog.text

    def test_a_payload_method_that_breaks_the_transaction_isnt_passed_over(
        self, sent_anywhere, caplog
    ):
        caplog.set_level(logging.CRITICAL)
        with pytest.raises(TransactionManagementError, match="payload method"):
            Fragile.objects.create(name="database")
        assert Fragile.objects.count() == 0
        assert sent_anywhere.names() == []

    def test_without_an_app_a_save_is_a_save(self, default_alias, caplog):
        from thorn_core import make_default_app_by

        make_default_app_by(None)
        Post.objects.create()
        assert Post.objects.count() == 1
        assert "there is no app" in caplog.text


class TestCost:
    def test_an_event_costs_one_statement_and_no_event_none(self, sent_anywhere):
        sent = sent_anywhere
        with sent.queries() as queries:
            post = Post.objects.create()
        assert len(queries) == 2
        post = Post.objects.get()
        with sent.queries() as queries:
            post.save()
        assert len(queries) == 2
        post.state = "PUBLISHED"
        with sent.queries() as queries:  # two events, one INSERT
            post.save()
        assert len(queries) == 2
        plain = Plain.objects.create(size=5)
        with sent.queries() as queries:
            plain.save()
        assert len(queries) == 1

    def test_saving_a_new_instance_reads_nothing(self, sent):
        with sent.queries() as queries:
            Post(title="by hand").save()
        assert len(queries) == 2


class TestAsync:
    def test_asynchronous_methods_send_what_synchronous_ones_do(self, sent_anywhere):
        sent = sent_anywhere

        async def work():
            post = await Post.objects.acreate(title="a")
            post.state = "PUBLISHED"
            await post.asave()
            await post.adelete()
            await Page.objects.abulk_create([Page(slug="a")])
            await Page.objects.aupdate(state="PUBLISHED")

        run_async(work())
        assert sent.names() == [
            "post.created",
            "post.changed",
            "post.published",
            "post.deleted",
            "page.created",
            "page.changed",
            "page.published",
        ]


class TestDeclarations:
    @pytest.fixture(autouse=True)
    def _forgotten(self):
        with isolate_apps("eventing"):
            yield

    def test_a_field_that_isnt_there_is_named_with_those_that_are(self, sent):
        class Poster(models.Model):
            words = models.ManyToManyField("self")

            class Meta:
                app_label = "eventing"

        with pytest.raises(ConfigurationError, match=r"Poster has no 'wrods'; did you mean 'words"):
            webhook_model(on_word=ModelEvent("a.b").dispatches_on_m2m_add("wrods"))(Poster)

    def test_bulk_without_its_manager_says_what_is_missing(self, sent):
        class Unmanaged(models.Model):
            class Meta:
                app_label = "eventing"

        with pytest.raises(ConfigurationError, match="WebhookQuerySet"):
            webhook_model(on_create=ModelEvent("a.b"), bulk=True)(Unmanaged)

    def test_an_app_made_while_models_are_loaded_waits_for_them(self, tmp_path):
        (tmp_path / "early").mkdir()
        (tmp_path / "early" / "__init__.py").touch()
        (tmp_path / "early" / "models.py").write_text(EARLY)
        done = subprocess.run(
            [sys.executable, "-c", EARLY_PROGRAM],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == ["card.created", "card.tagged"], done.stderr


EARLY = """
from django.db import models
from thorn_core import ModelEvent, Thorn, webhook_model
app = Thorn(dispatcher="outbox")
@webhook_model
class Card(models.Model):
    tags = models.ManyToManyField("Tag", through="Tagged")
    class webhooks:
        on_create = ModelEvent("card.created")
        on_tag = ModelEvent("card.tagged").dispatches_on_m2m_add("tags")
        def payload(self, card):
            return {}
class Tag(models.Model):
    pass
class Tagged(models.Model):
    card = models.ForeignKey(Card, models.CASCADE)
    tag = models.ForeignKey(Tag, models.CASCADE)
"""
EARLY_PROGRAM = """
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["early", "thorn_django"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
from django.core.management import call_command
from early.models import Card, Tag, app
call_command("migrate", run_syncdb=True, verbosity=0)
Card.objects.create().tags.add(Tag.objects.create())
print(*(message.event for message in app.messages_to_route()))
app.close()
"""


@contextmanager
def without_messages(alias):
    """A database whose table of messages is gone."""
    with connections[alias].cursor() as cursor:
        cursor.execute("ALTER TABLE thorn_messages RENAME TO thorn_messages_gone")
    try:
        yield
    finally:
        with connections[alias].cursor() as cursor:
            cursor.execute("ALTER TABLE thorn_messages_gone RENAME TO thorn_messages")


def run_async(coroutine):
    """In a thread of its own; its connections and those of asgiref's thread are new, and closed."""
    failures = []

    async def alone():
        close = sync_to_async(connections.close_all)
        await close()
        try:
            await coroutine
        finally:
            await close()

    def run():
        try:
            asyncio.run(alone())
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures, failures
