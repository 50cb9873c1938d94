"""Values as stored: events tell what the row holds, whatever form the program assigned."""

from __future__ import annotations

import json
import uuid
import warnings
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connections, models
from django.test.utils import isolate_apps, override_settings
from eventing.models import Amount, Box, Crate, Entry, Label, Post
from eventing.sent import sending

from thorn_core import ConfigurationError, ModelEvent, Thorn, webhook_model
from thorn_django.model_events.adapter import ADAPTER

warnings.filterwarnings("ignore", message=".*received a naive datetime.*")

KEY = uuid.UUID(int=7)
# What a program assigns, and what the row holds.
FORMS = {
    "status": ("1", 1),
    "price": ("10.129", Decimal("10.13")),
    "at": ("2020-01-01T00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
    "day": ("2020-01-02", date(2020, 1, 2)),
    "lasted": (timedelta(hours=1), timedelta(hours=1)),
    "key": (KEY.hex, KEY),
    "done": ("True", True),
    "meta": ({1: ("a", "b")}, {"1": ["a", "b"]}),
    "data": (bytearray(b"x"), b"x"),
    "address": ("2001:DB8::1", "2001:db8::1"),
    "kind": (7, "7"),
    "post": (None, None),
}


@pytest.fixture
def sent(default_alias):
    with sending(default_alias) as sent:
        yield sent


@pytest.fixture
def sent_anywhere(alias):
    with sending(alias) as sent:
        yield sent


@pytest.fixture
def sent_on_postgresql(postgresql_alias):
    with sending(postgresql_alias) as sent:
        yield sent


def payload_of(event, messages):
    (found,) = [payload for name, payload in messages if name == event]
    return found


@pytest.mark.filterwarnings("ignore:.*received a naive datetime")
class TestForms:
    def test_a_payload_tells_what_the_row_holds(self, sent_anywhere):
        sent = sent_anywhere
        entry = Entry.objects.create(**{name: given for name, (given, _) in FORMS.items()})
        created = payload_of("entry.created", sent.take())
        held = Entry.objects.get()
        assert {name: getattr(held, name) for name in FORMS} == {
            n: v for n, (_, v) in FORMS.items()
        }
        held.save()
        assert payload_of("entry.changed", sent.take()) == created
        for name, (given, _) in FORMS.items():
            setattr(entry, name, given)
        entry.save()
        assert payload_of("entry.changed", sent.take()) == created
        entry.delete()
        assert payload_of("entry.deleted", sent.take()) == created

    @pytest.mark.parametrize(
        ("event", "values"),
        [
            ("entry.paid", {"status": "2"}),
            ("entry.large", {"price": "150.00"}),
            ("entry.large", {"price": 99.999}),
            ("entry.late", {"at": datetime(2026, 6, 1)}),
        ],
    )
    def test_a_filter_compares_in_the_columns_own_type(self, sent, event, values):
        Entry.objects.create(at=datetime(2020, 1, 1, tzinfo=UTC))
        entry = Entry.objects.get()
        sent.take()
        for name, value in values.items():
            setattr(entry, name, value)
        entry.save()
        assert sorted(sent.names()) == ["entry.changed", event]
        entry.save()
        assert sent.names() == ["entry.changed"]

    @override_settings(USE_TZ=False)
    def test_without_time_zones_a_datetime_stays_naive(self, sent):
        Entry.objects.create(at="2020-01-01 00:00")
        assert payload_of("entry.created", sent.take())["at"] == "2020-01-01T00:00:00"

    def test_what_update_fields_leaves_out_is_told_as_the_row_has_it(self, sent):
        entry = Entry.objects.create(kind="a")
        sent.take()
        entry.kind, entry.status = "b", 2
        entry.save(update_fields=["status"])
        messages = sent.take()
        assert payload_of("entry.paid", messages)["kind"] == "a"

    def test_what_isnt_saved_is_told_neither_of_a_deletion_nor_of_a_relation(self, sent):
        post, label = Post.objects.create(title="saved"), Label.objects.create(name="a")
        sent.take()
        post.title = "unsaved"
        post.labels.add(label)
        assert payload_of("post.labelled", sent.take())["title"] == "saved"
        post.delete()
        assert payload_of("post.deleted", sent.take())["title"] == "saved"

    def test_a_row_that_somebody_deleted_is_not_deleted_again(self, sent):
        post = Post.objects.create()
        Post.objects.get().delete()
        sent.take()
        post.delete()
        assert sent.names() == []

    def test_plain_values_cost_no_query(self, sent):
        with sent.queries() as queries:
            Entry.objects.create(status=1, price=Decimal("1.00"), kind="a", meta={"a": [1]})
        assert [sql.split()[0] for sql in queries] == ["INSERT", "INSERT"]


class TestFieldsOfOthers:
    def test_a_value_changed_in_place_is_a_change(self, sent):
        Crate.objects.create(box=Box(["a"]))
        assert sent.take() == [("crate.created", {"items": ["a"], "amount": 0})]
        crate = Crate.objects.get()
        crate.box.items.append("c")
        crate.save()
        assert "crate.filled" in sent.names()
        crate.save()
        assert sent.names() == []

    def test_an_attribute_made_of_two_columns_is_compared_as_it_is_seen(self, sent):
        crate = Crate.objects.create(box=Box([]), amount=Amount(7, "kg"), label="x")
        sent.take()
        crate.save()
        assert sent.names() == []
        crate = Crate.objects.get()
        crate.save()
        assert sent.names() == []
        crate.amount = Amount(7, "t")
        crate.save()
        assert sent.names() == ["crate.unit"]
        Crate.objects.update(amount=1)
        crate = Crate.objects.get()
        crate.amount = Amount(9, "t")
        crate.save()
        assert sent.names() == ["crate.heavy"]

    def test_what_init_sets_while_loading_isnt_what_the_row_held(self, sent):
        Crate.objects.create(box=Box([]), label="x")
        Crate.objects.update(label=None)
        sent.take()
        crate = Crate.objects.get()
        assert crate.label == "none"
        crate.save()
        assert sent.names() == ["crate.labelled"]

    def test_a_refresh_that_runs_init_is_no_memory(self, sent):
        crate = Crate.objects.create(box=Box([]), label="x")
        Crate.objects.update(label=None)
        sent.take()
        crate.refresh_from_db()
        crate.save()
        assert sent.names() == ["crate.labelled"]


class TestPostgresql:
    @isolate_apps("eventing")
    def test_no_column_type_loses_an_event(self, sent_on_postgresql):
        from django.contrib.postgres.fields import ArrayField, DateTimeRangeField, IntegerRangeField

        sent = sent_on_postgresql

        @webhook_model
        class Booking(models.Model):
            seats = IntegerRangeField()
            during = DateTimeRangeField(null=True)
            names = ArrayField(models.CharField(max_length=9), default=list)
            address = models.GenericIPAddressField(null=True)
            data = models.BinaryField()
            meta = models.JSONField()

            class Meta:
                app_label = "eventing"

            class webhooks:
                fields = ("seats", "during", "names", "address", "data", "meta")
                on_create = ModelEvent("booking.created")
                on_change = ModelEvent("booking.changed")
                on_delete = ModelEvent("booking.deleted")
                on_move = ModelEvent("booking.moved", seats__lower__now_eq=3).dispatches_on_change()

        with connections[sent.alias].schema_editor() as editor:
            editor.create_model(Booking)
        try:
            booking = Booking.objects.using(sent.alias).create(
                seats="[1,2]", names=("a", "b"), address="10.0.0.1", data=b"x", meta={"a": 1e2}
            )
            created = payload_of("booking.created", sent.take())
            assert created["seats"] == {"lower": 1, "upper": 3, "bounds": "[)"}
            assert created["names"] == ["a", "b"]
            booking.save()
            assert sent.take() == [("booking.changed", created)]
            booking.seats = (3, 5)
            booking.save()
            assert sorted(sent.names()) == ["booking.changed", "booking.moved"]
            booking.delete()
            assert json.dumps(payload_of("booking.deleted", sent.take())["seats"])
        finally:
            with connections[sent.alias].schema_editor() as editor:
                editor.delete_model(Booking)


class TestNames:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"titel__eq": "x"}, r"no 'titel'; did you mean 'title'\?"),
            ({"titel__now_eq": "x"}, r"no 'titel'; did you mean 'title'\?"),
            ({"writer__nmae__eq": "x"}, r"no 'nmae'; did you mean 'name'\?"),
            ({"count__eq": "many"}, "count.* can't hold"),
            ({"writer__eq": 1}, "compare writer_id"),
        ],
    )
    @isolate_apps("eventing")
    def test_a_filter_that_no_row_can_meet_is_refused(self, options, message):
        with pytest.raises(ConfigurationError, match=message):

            @webhook_model(on_change=ModelEvent("x.y", **options))
            class Story(Post):
                class Meta:
                    app_label = "eventing"
                    proxy = True

    @isolate_apps("eventing")
    def test_a_refused_declaration_leaves_the_class_as_it_was(self):
        class Plain(models.Model):
            title = models.CharField(max_length=9)

            class Meta:
                app_label = "eventing"

            class webhooks:
                fields = ("titel",)
                on_create = ModelEvent("x.y")

        declared = Plain.webhooks
        with pytest.raises(ConfigurationError, match="did you mean 'title'"):
            webhook_model(Plain)
        assert Plain.webhooks is declared
        Thorn().close()

    @isolate_apps("eventing")
    def test_a_refused_subclass_does_not_trouble_its_base(self):
        class Story(Post):
            class Meta:
                app_label = "eventing"
                proxy = True

        with pytest.raises(ConfigurationError, match="did you mean 'name'"):
            webhook_model(on_change=ModelEvent("x.z", writer__nmae__eq="x"))(Story)
        assert Story.webhooks is Post.webhooks
        Thorn().close()

    def test_an_inherited_event_that_does_not_fit_is_refused_once(self):
        @webhook_model(on_change=ModelEvent("x.y", titel__eq="x"))
        class Titled:
            pass

        # Django registers a model after its events were accepted.
        refusals = []
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="did you mean 'title'") as refusal:

                class Story(Titled, Post):
                    class Meta:
                        app_label = "eventing"
                        proxy = True

            refusals.append(refusal)
        # The classes live on in what was raised.
        assert len([cls for cls in Post.__subclasses__() if cls.__name__ == "Story"]) >= 2
        Thorn().close()

    def test_relations_of_both_sides_properties_and_keys_are_names(self):
        names = ADAPTER.names(Post)
        assert {"pk", "id", "writer", "writer_id", "labels", "comment_set"} <= set(names.leads_to)
        assert names.many_to_many == {"labels"}

    @isolate_apps("eventing")
    def test_a_column_of_passwords_isnt_chosen(self):
        with pytest.raises(ConfigurationError, match="'password' is secret"):

            @webhook_model(on_create=ModelEvent("x.y"))
            class Account(models.Model):
                password = models.CharField(max_length=9)

                class Meta:
                    app_label = "eventing"

                class webhooks:
                    fields = ("password",)

    def test_values_follow_relations_and_give_keys(self, sent):
        post, label = Post.objects.create(title="x"), Label.objects.create(name="a")
        post.labels.add(label)
        deferred = Post.objects.only("id").get()
        with sent.queries() as queries:
            values = ADAPTER.values(deferred, ["title", "writer.name", "labels", "file"])
        assert values == {"title": "x", "writer.name": None, "labels": [label.pk], "file": ""}
        assert len(queries) == 2
