"""Former values: what filters such as `state__now_eq` go by, and what is remembered for them."""

from __future__ import annotations

import copy
import pickle

import pytest
from django.db import transaction
from django.db.models.signals import post_save, pre_save
from eventing.models import Feature, Memo, Plain, Post, Ticket, Token, Writer
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


@pytest.fixture
def previous(sent):
    """The former values that signals told."""
    told = []

    def receive(model, instance, previous, **_):
        told.append(dict(previous))

    with signals.model_changed.connected_to(receive):
        yield told


def published(sent):
    return sent.names().count("post.published")


class TestWhatIsRemembered:
    def test_a_change_is_told_once_until_it_is_undone(self, sent_anywhere):
        sent = sent_anywhere
        post = Post.objects.create()
        for state, count in (("PUBLISHED", 1), ("PUBLISHED", 0), ("DRAFT", 0), ("PUBLISHED", 1)):
            post.state = state
            post.save()
            assert published(sent) == count

    def test_previous_holds_what_has_changed_of_what_is_asked_for(self, sent, previous):
        ann, bob = Writer.objects.create(name="Ann"), Writer.objects.create(name="Bob")
        Post.objects.create(writer=ann, title="a")
        post = Post.objects.get()
        post.state, post.writer = "PUBLISHED", bob
        post.save()
        [values] = previous
        assert values["state"] == "DRAFT"
        assert (values["writer_id"], values["writer"]) == (ann.pk, ann)
        assert "count" not in values

    def test_a_field_set_to_what_it_was_hasnt_changed(self, sent, previous):
        Post.objects.create(count=5)
        post = Post.objects.get()
        post.count = "5"
        post.save()
        assert previous == [{}]

    def test_only_columns_that_filters_name_are_kept(self, sent):
        Feature.objects.create()
        assert "thorn_known" not in Plain.objects.create()._state.__dict__
        kept = Post.objects.get()._state.__dict__["thorn_known"]
        assert kept.keys() == {"id", "state", "count", "meta", "file", "writer_id"}
        kept = Feature.objects.get()._state.__dict__["thorn_known"]
        own = {"stars", "post_ptr_id"}
        assert kept.keys() == {"state", "count", "meta", "file", "writer_id", *own}

    def test_fields_not_written_havent_changed(self, sent):
        post = Post.objects.create()
        post.state, post.title = "PUBLISHED", "x"
        post.save(update_fields=["title"])
        assert published(sent) == 0
        post.save(update_fields=["state"])
        assert published(sent) == 1
        post.save()
        assert published(sent) == 0

    def test_update_fields_may_name_a_relationship_either_way(self, sent):
        ann, bob = Writer.objects.create(name="Ann"), Writer.objects.create(name="Bob")
        for name in ("writer", "writer_id"):
            post = Post.objects.create(writer=ann)
            post.writer = bob
            sent.take()
            post.save(update_fields=[name])
            assert sent.names() == ["post.changed", "post.handed"]

    def test_a_document_changed_in_place_is_a_change(self, sent):
        Post.objects.create(meta={"flag": 0})
        post = Post.objects.get()
        post.meta["flag"] = 1
        sent.take()
        post.save()
        assert sent.names() == ["post.changed", "post.flagged"]
        post.meta["other"] = [1]
        post.save()
        assert sent.names() == ["post.changed"]

    def test_a_file_is_compared_by_its_name(self, sent):
        Post.objects.create()
        post = Post.objects.get()
        post.file = "a.txt"
        sent.take()
        post.save()
        assert sorted(sent.names()) == ["post.attached", "post.changed"]
        post.save()
        post.file.name = ""
        post.save()
        assert sent.names() == ["post.changed", "post.changed"]
        post.file.name = "b.txt"
        post.save()
        assert sorted(sent.names()) == ["post.attached", "post.changed"]

    def test_a_property_is_asked_of_the_instance_as_it_was(self, sent):
        memo = Memo.objects.create(name="quiet")
        memo.name = "LOUD"
        sent.take()
        memo.save()
        assert sent.names() == ["stamped.shouted"]
        memo.name = "LOUDER"
        memo.save()
        assert sent.names() == []

    def test_a_property_that_fails_of_an_instance_as_it_was_hasnt_changed(self, sent):
        memo = Memo.objects.create(name="quiet")
        memo.name = "LOUD"
        Memo.objects.filter(pk=memo.pk).update(size=3)
        known = memo._state.__dict__["thorn_known"]
        memo._state.__dict__["thorn_known"] = {**known, "name": None}
        sent.take()
        memo.save()
        assert sent.names() == []

    def test_what_has_changed_can_be_looked_at_whole(self, sent):
        told = []

        def receive(model, instance, previous, **_):
            told.append((len(previous), repr(previous), previous.get("size"), bool(previous)))

        memo = Memo.objects.create(name="quiet")
        memo.name = "LOUD"
        with signals.model_changed.connected_to(receive):
            memo.save()
            memo.save()
        assert told == [(2, "{'name': 'quiet', 'loud': False}", None, True), (0, "{}", None, False)]

    def test_the_former_object_of_a_relationship_is_loaded_only_if_a_filter_gets_to_it(self, sent):
        ann, bob = Writer.objects.create(name="Ann"), Writer.objects.create(name="Bob")
        post = Post.objects.create(writer=ann)
        sent.take()
        post.writer = Writer.objects.create(name="Cid")
        with sent.queries() as queries:
            post.save()
        assert len(queries) == 2
        post.writer = bob
        with sent.queries() as queries:
            post.save()
        assert len(queries) == 3
        assert sent.names() == ["post.changed", "post.changed", "post.handed"]

    def test_a_former_object_that_is_gone_was_none(self, sent):
        ann, bob = Writer.objects.create(name="Ann"), Writer.objects.create(name="Bob")
        post = Post.objects.create(writer=ann)
        Post.objects.filter(pk=post.pk).update(writer=None)
        ann.delete()
        sent.take()
        post.writer = bob
        post.save()
        assert sent.names() == ["post.changed", "post.handed"]


class TestWhatIsUnknown:
    def test_an_instance_made_by_hand_costs_one_narrow_query(self, sent_anywhere):
        sent = sent_anywhere
        pk = Post.objects.create().pk
        sent.take()
        with sent.queries() as queries:
            Post(pk=pk, state="PUBLISHED").save()
        assert [q.split()[0] for q in queries] == ["SELECT", "UPDATE", "INSERT"]
        assert published(sent) == 1
        Post(pk=pk, state="PUBLISHED").save()
        assert published(sent) == 0

    def test_an_unknown_row_is_created(self, sent):
        Ticket(code="a", state="CLOSED").save()
        Ticket(code="a", state="CLOSED").save()
        Ticket(code="b").save()
        Ticket(code="b", state="CLOSED").save()
        assert sent.names() == ["ticket.created", "ticket.created", "ticket.closed"]

    def test_a_primary_key_with_a_default_means_a_new_row(self, sent):
        with sent.queries() as queries:
            token = Token.objects.create()
        assert len(queries) == 2
        token.state = "USED"
        token.save()
        assert sent.names() == ["token.created", "token.used"]

    def test_filters_without_former_values_read_nothing(self, sent):
        pk = Plain.objects.create(name="a").pk
        with sent.queries() as queries:
            Plain(pk=pk, name="b", size=20).save()
        assert [q.split()[0] for q in queries] == ["UPDATE", "INSERT"]

    def test_deferred_fields_arent_loaded_and_havent_changed(self, sent):
        Token.objects.create()
        token = Token.objects.only("note").get()
        token.note = "b"
        with sent.queries() as queries:
            token.save()
        assert [q.split()[0] for q in queries] == ["UPDATE"]
        assert token.get_deferred_fields() == {"state"}

    def test_a_deferred_field_that_is_set_is_read_before(self, sent):
        Post.objects.create()
        sent.take()
        post = Post.objects.defer("state").get()
        post.state = "PUBLISHED"
        with sent.queries() as queries:
            post.save()
        assert [q.split()[0] for q in queries] == ["SELECT", "UPDATE", "INSERT"]
        assert published(sent) == 1

    def test_a_deferred_field_loaded_when_it_is_looked_at_is_known(self, sent):
        Post.objects.create()
        post = Post.objects.defer("state").get()
        assert post.state == "DRAFT"
        post.state = "PUBLISHED"
        with sent.queries() as queries:
            post.save()
        assert [q.split()[0] for q in queries] == ["UPDATE", "INSERT"]
        assert published(sent) == 1

    def test_another_primary_key_is_another_row(self, sent):
        Post.objects.create(state="PUBLISHED")
        draft = Post.objects.create()
        post = Post.objects.get(state="PUBLISHED")
        post.pk = draft.pk
        sent.take()
        post.save()
        assert published(sent) == 1

    def test_a_copy_is_created(self, sent):
        post = Post.objects.create(title="a")
        sent.take()
        post.pk = None
        post._state.adding = True
        post.state = "PUBLISHED"
        post.save()
        assert sent.names() == ["post.created"]
        post.save()
        assert sent.names() == ["post.changed"]

    def test_another_database_is_another_row(self, sent, other_alias):
        post = Post.objects.create()
        Post.objects.using(other_alias).create(pk=post.pk, state="PUBLISHED")
        with sending(other_alias) as elsewhere:
            post.state = "PUBLISHED"
            post.save(using=other_alias)
            assert published(elsewhere) == 0
            post.save(using=sent.alias)


class TestRefreshing:
    def test_what_somebody_else_changed_isnt_this_instances_change(self, sent):
        post = Post.objects.create()
        other = Post.objects.get()
        other.state = "PUBLISHED"
        other.save()
        assert published(sent) == 1
        post.refresh_from_db()
        post.save()
        assert published(sent) == 0

    def test_refreshing_some_fields_renews_those(self, sent):
        post = Post.objects.create()
        Post.objects.update(state="PUBLISHED", title="LOUD")
        post.refresh_from_db(fields=iter(["state"]))
        sent.take()
        post.save()
        assert sent.names() == ["post.changed"]
        post.refresh_from_db(None, ["title"])
        assert post.title == ""

    def test_a_pickle_remembers(self, sent):
        post = pickle.loads(pickle.dumps(Post.objects.create()))
        post.state = "PUBLISHED"
        with sent.queries() as queries:
            post.save()
        assert len(queries) == 2
        assert published(sent) == 1

    def test_a_pickle_made_in_a_transaction_remembers(self, sent):
        with transaction.atomic():
            post = pickle.loads(pickle.dumps(Post.objects.create()))
        post.state = "PUBLISHED"
        with sent.queries() as queries:
            post.save()
        assert len(queries) == 2
        assert published(sent) == 1

    def test_a_copy_of_an_instance_is_apart(self, sent):
        post = Post.objects.create()
        twin = copy.copy(post)
        post.state = twin.state = "PUBLISHED"
        post.save()
        assert published(sent) == 1
        twin.save()
        assert published(sent) == 1  # as far as it knows


class TestRollbacks:
    def test_a_save_tried_again_after_a_rollback_is_told(self, sent_anywhere):
        sent = sent_anywhere
        post = Post.objects.create()
        for failing in (True, True, False):
            try:
                with transaction.atomic(using=sent.alias):
                    post.state = "PUBLISHED"
                    post.save()
                    if failing:
                        raise KeyError
            except KeyError:
                pass
        assert published(sent) == 1
        post.save()
        assert published(sent) == 0

    def test_a_savepoint_rolled_back_is_forgotten_and_what_was_before_isnt(self, sent_anywhere):
        sent = sent_anywhere
        post = Post.objects.create()
        with transaction.atomic(using=sent.alias):
            post.state = "PUBLISHED"
            post.save()
            with pytest.raises(KeyError), transaction.atomic(using=sent.alias):
                post.state = "DRAFT"
                post.save()
                raise KeyError
            post.state = "PUBLISHED"
            post.save()  # it still is
        assert published(sent) == 1
        post.state = "DRAFT"
        post.save()
        post.state = "PUBLISHED"
        post.save()
        assert published(sent) == 1

    def test_within_a_transaction_its_own_writes_are_known(self, sent):
        with transaction.atomic():
            post = Post.objects.create()
            post.state = "PUBLISHED"
            with sent.queries() as queries:
                post.save()
                post.save()
            assert [q.split()[0] for q in queries] == ["UPDATE", "INSERT"] * 2
        assert published(sent) == 1

    def test_a_creation_rolled_back_is_a_creation_again(self, sent):
        post = Post(title="a")
        with pytest.raises(KeyError), transaction.atomic():
            post.save()
            raise KeyError
        post.state = "PUBLISHED"
        post.save()
        assert sent.names() == ["post.created"]

    def test_a_save_that_fails_changes_nothing_that_is_remembered(self, sent):
        post = Post.objects.create()
        post.state, post.title = "PUBLISHED", None
        with pytest.raises(Exception, match="NOT NULL"):
            post.save()
        post.title = ""
        sent.take()
        post.save()
        assert published(sent) == 1


class TestNestedSaves:
    def test_a_receiver_that_saves_once_more_tells_its_own_change(self, sent):
        def receive(instance, created, **_):
            if instance.count < 101:
                instance.count = 101
                instance.save()

        post_save.connect(receive, sender=Post)
        try:
            post = Post.objects.create()
            assert sent.names() == ["post.created", "post.changed", "post.popular"]
            post.count, post.state = 1, "PUBLISHED"
            post.save()
            assert sent.names() == [
                "post.changed",
                "post.published",
                "post.changed",
                "post.popular",
            ]
        finally:
            post_save.disconnect(receive, sender=Post)

    def test_what_a_receiver_of_pre_save_sets_is_told(self, sent):
        def receive(instance, **_):
            instance.state = "PUBLISHED"

        post = Post.objects.create()
        sent.take()
        pre_save.connect(receive, sender=Post)
        try:
            post.save()
        finally:
            pre_save.disconnect(receive, sender=Post)
        assert sent.names() == ["post.changed", "post.published"]
