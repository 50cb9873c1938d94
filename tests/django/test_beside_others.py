"""Beside others: migrations, fixtures, others' fields, test runs that drop their databases."""

from __future__ import annotations

import io
import time
import unittest

import pytest
from django.apps import apps
from django.core import serializers
from django.core.management import call_command
from django.db import connections, models, transaction
from django.db.migrations.state import ModelState, ProjectState
from django.test import TestCase, TransactionTestCase
from django.test.utils import isolate_apps, override_settings
from eventing.models import Hooked, Item, Label, Org, Post, Stamped, Thing
from eventing.sent import sending

from thorn_core import ConfigurationError, ModelEvent, webhook_model
from thorn_django.checks import check_settings
from thorn_django.model_events.many_to_many import watch_fields


@pytest.fixture
def sent(default_alias):
    with sending(default_alias) as sent:
        yield sent


def historical(name, *bases):
    """A model as migrations see it."""
    fields = [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField())]
    if Stamped in bases:
        fields = fields[:1]
    state = ProjectState()
    state.add_model(ModelState("eventing", name, fields=fields, bases=(*bases, models.Model)))
    return state.apps.get_model("eventing", name)


class TestMigrations:
    @pytest.mark.parametrize(("name", "base"), [("Thing", Hooked), ("Memo", Stamped)])
    def test_a_historical_model_sends_nothing_whatever_it_inherits(self, sent, name, base):
        model = historical(name, base)
        row = model.objects.create(name="of a data migration")
        row.name = "New"
        row.save()
        assert sent.names() == []

    def test_the_real_model_sends_what_a_class_that_is_no_model_declares(self, sent):
        Thing.objects.create(name="real")
        assert sent.names() == ["hooked.created"]


class TestFixtures:
    def test_many_to_many_fields_of_fixtures_are_set_silently(self, sent, tmp_path):
        label, post = Label.objects.create(name="a"), Post.objects.create(title="x")
        post.labels.add(label)
        fixture = tmp_path / "posts.json"
        fixture.write_text(serializers.serialize("json", [label, post]))
        post.labels.clear()
        sent.take()
        call_command("loaddata", str(fixture), verbosity=0)
        assert post.labels.count() == 1
        assert sent.names() == []

    def test_what_the_program_does_with_a_deserialized_instance_sends(self, sent):
        label, post = Label.objects.create(name="a"), Post.objects.create(title="x")
        text = serializers.serialize("json", [post])
        sent.take()
        (loaded,) = serializers.deserialize("json", text)
        loaded.save()
        loaded.object.labels.add(label)
        assert sorted(sent.names()) == ["label.used", "post.labelled"]


class TestFieldsOfOthers:
    def test_a_field_that_only_looks_like_a_many_to_many_field_is_left_alone(self, sent):
        item = Item.objects.create()
        item.labels.add(Label.objects.create(name="a"))
        assert sent.names() == ["item.created", "item.labelled"]

    def test_an_event_of_such_a_field_is_refused_with_those_that_can_be_followed(self):
        with pytest.raises(ConfigurationError, match=r"'tags'.*it has labels$"):
            watch_fields(Item, ["tags"])


class TestInstallation:
    @isolate_apps("eventing")
    def test_a_decorated_model_without_the_app_is_refused_with_the_setting(self):
        with (
            override_settings(INSTALLED_APPS=["django.contrib.contenttypes"]),
            pytest.raises(ConfigurationError, match=r"'thorn_django' is not in INSTALLED_APPS"),
        ):

            @webhook_model
            class Lost(models.Model):
                class Meta:
                    app_label = "eventing"

                class webhooks:
                    on_create = ModelEvent("lost.created")

    def test_a_foreign_key_may_be_called_webhooks_from_the_other_side(self, sent):
        org = Org.objects.create()
        assert sent.names() == ["org.created"]
        assert org.webhooks.count() == 0

    @pytest.mark.parametrize("named", ["json.dumps", "json.nothing", "not a path"])
    def test_a_permission_class_that_cant_be_used_is_an_error(self, named):
        with override_settings(THORN_DRF_PERMISSION_CLASSES=[named]):
            assert [message.id for message in check_settings()] == ["thorn.E006"]


class TestTestRuns:
    def test_callbacks_that_are_captured_are_the_programs_own(self, sent):
        class Case(TestCase):
            def test_it(self):
                with self.captureOnCommitCallbacks() as callbacks:
                    post = Post.objects.create(title="Hello")
                    post.state = "PUBLISHED"
                    post.save()
                    sent.app.send("invoice.paid", {"number": 1})
                assert callbacks == []

        run(Case)

    def test_a_database_of_tests_can_be_dropped(self, postgresql_alias):
        class Case(TransactionTestCase):
            databases = frozenset({postgresql_alias})
            # Flushes with CASCADE: other tests leave tables of apps that are not installed here.
            available_apps = tuple(config.name for config in apps.get_app_configs())

            def test_it(self):
                with transaction.atomic(using=postgresql_alias):
                    app.send("invoice.paid", {"number": 1}, within=postgresql_alias)

        connection = connections[postgresql_alias]
        with sending(postgresql_alias) as sent:
            app = sent.app
            # A database whose test run ends, without the time that it takes to make one.
            run(Case)
            assert app.store.executor.own._idle or app.store._notifications._notifier
            destroy(connection)
            assert not app.store.executor.own._idle
            # The server takes a moment to let a closed connection go.
            deadline = time.monotonic() + 30
            while others_connected(connection) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert others_connected(connection) == 0


def run(case):
    """Run a test case; fail with what it reports."""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TextTestRunner(io.StringIO()).run(tests)
    assert result.testsRun
    for _, text in (*result.failures, *result.errors):
        pytest.fail(text, pytrace=False)


def destroy(connection):
    """End a test run, as Django does; keep the database."""
    name = connection.settings_dict["NAME"]
    connection.creation.destroy_test_db(name, verbosity=0, keepdb=True)
    connection.settings_dict["NAME"] = name


def others_connected(connection):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]
