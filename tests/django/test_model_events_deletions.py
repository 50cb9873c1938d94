"""Deletions: told once, with what was there, and only if it has gone."""

from __future__ import annotations

import pickle
from itertools import permutations

import pytest
from django.db import transaction
from django.db.models import ProtectedError
from django.db.models.signals import post_delete, pre_delete
from eventing.models import (
    Comment,
    Feature,
    Film,
    Page,
    Plain,
    Post,
    Sight,
    Sound,
    Teaser,
    Writer,
)
from eventing.sent import sending

from thorn_core import signals
from thorn_django.model_events.deletions import after_delete, before_delete


@pytest.fixture
def sent(default_alias):
    with sending(default_alias) as sent:
        yield sent


@pytest.fixture
def sent_anywhere(alias):
    with sending(alias) as sent:
        yield sent


def test_a_deletion_is_told_with_its_key_url_and_payload(sent_anywhere):
    sent = sent_anywhere
    post = Post.objects.create(title="Bye")
    pk = post.pk
    sent.take()
    post.delete()
    assert post.pk is None
    [message] = sent.messages()
    assert message.event == "post.deleted"
    assert message.payload == {"id": pk, "title": "Bye", "state": "DRAFT", "count": 0}
    assert message.ref == f"/posts/{pk}/"


def test_what_goes_with_something_else_is_told(sent_anywhere):
    sent = sent_anywhere
    writer = Writer.objects.create(name="Ann")
    posts = [Post.objects.create(writer=writer, title=str(n)) for n in range(3)]
    Comment.objects.create(post=posts[0], text="!")
    sent.take()
    writer.delete()
    told = sent.take()
    assert [name for name, _ in told] == ["post.deleted"] * 3
    assert {payload["title"] for _, payload in told} == {"0", "1", "2"}
    assert Comment.objects.count() == 0


def test_a_queryset_deletes_with_events(sent):
    for n in range(3):
        Post.objects.create(title=str(n))
    sent.take()
    assert Post.objects.filter(title__in=["0", "1"]).delete()[0] == 2
    assert {payload["title"] for _, payload in sent.take()} == {"0", "1"}


def test_what_isnt_asked_for_is_deleted_as_fast_as_ever(sent):
    plain = Plain.objects.create()
    with sent.queries() as queries:
        plain.delete()
    assert len(queries) == 1
    assert not pre_delete.has_listeners(Plain)


def test_a_deletion_that_fails_sends_nothing(sent_anywhere):
    sent = sent_anywhere
    post = Post.objects.create(title="kept")

    def refuse(**_):
        raise ProtectedError("not now", set())

    for signal in (pre_delete, post_delete):
        signal.connect(refuse, sender=Comment)
        Comment.objects.get_or_create(post=post, text="!")
        sent.take()
        try:
            with pytest.raises(ProtectedError):
                post.delete()
        finally:
            signal.disconnect(refuse, sender=Comment)
        assert Post.objects.count() == 1
        assert sent.names() == []
    post.title = "gone"
    post.delete()
    assert [payload["title"] for _, payload in sent.take()] == ["kept"]  # as the row had it


def test_a_deletion_rolled_back_sends_nothing(sent_anywhere):
    sent = sent_anywhere
    post = Post.objects.create()
    sent.take()
    with pytest.raises(KeyError), transaction.atomic(using=sent.alias):
        post.delete()
        raise KeyError
    assert sent.names() == []


def test_an_instance_whose_deletion_failed_can_be_pickled(sent):
    post = Post.objects.create()

    def refuse(**_):
        raise KeyError

    pre_delete.connect(refuse, sender=Post)
    try:
        with pytest.raises(KeyError):
            post.delete()
    finally:
        pre_delete.disconnect(refuse, sender=Post)
    twin = pickle.loads(pickle.dumps(post))
    sent.take()
    twin.delete()
    assert sent.names() == ["post.deleted"]


class TestChildren:
    """Django tells of the child's row and the parent's; it is one object."""

    @pytest.fixture(autouse=True)
    def _told(self):
        self.told = []

        def receive(model, instance, **_):
            self.told.append(model)

        with signals.model_deleted.connected_to(receive):
            yield

    def test_a_child_deleted_as_itself_is_told_once(self, sent_anywhere):
        sent = sent_anywhere
        feature = Feature.objects.create(title="f")
        sent.take()
        feature.delete()
        assert sorted(sent.names()) == ["feature.deleted", "post.deleted"]
        assert self.told == [Feature]

    def test_a_child_deleted_as_its_parent_is_told_once_and_as_the_child(self, sent_anywhere):
        sent = sent_anywhere
        Feature.objects.create(title="f")
        plain = Post.objects.create(title="p")
        sent.take()
        Post.objects.get(title="f").delete()
        assert sorted(sent.names()) == ["feature.deleted", "post.deleted"]
        plain.delete()
        assert sent.names() == ["post.deleted"]

    def test_children_and_others_that_go_together_are_told_once_each(self, sent_anywhere):
        sent = sent_anywhere
        writer = Writer.objects.create(name="Ann")
        for n in range(2):
            Feature.objects.create(writer=writer, title=f"f{n}")
            Post.objects.create(writer=writer, title=f"p{n}")
        sent.take()
        writer.delete()
        assert sorted(sent.names()) == ["feature.deleted"] * 2 + ["post.deleted"] * 4
        assert Post.objects.count() == 0

    @pytest.mark.parametrize("model", [Film, Sight, Sound])
    def test_a_child_of_two_is_told_once_whichever_way_it_goes(self, sent_anywhere, model):
        sent = sent_anywhere
        Sound.objects.create()  # so that their keys differ
        Film.objects.create()
        assert sorted(sent.names()) == ["sight.created", "sound.created", "sound.created"]
        model.objects.latest("pk").delete()
        assert sorted(sent.names()) == ["sight.deleted", "sound.deleted"]
        assert self.told == [Film]

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_it_is_of_no_matter_in_which_order_django_tells(self, sent, order):
        film = Film.objects.create()
        rows = [film, Sight.objects.get(), Sound.objects.get()]
        sent.take()
        with transaction.atomic():
            for n in order:
                before_delete(instance=rows[n], using=sent.alias)
            for row in rows:
                after_delete(instance=row, using=sent.alias)
        assert sorted(sent.names()) == ["sight.deleted", "sound.deleted"]

    def test_a_child_that_leaves_its_parent_isnt_told(self, sent):
        feature = Feature.objects.create(title="f")
        sent.take()
        feature.delete(keep_parents=True)
        assert sent.names() == []
        Post.objects.get().delete()
        assert sent.names() == ["post.deleted"]

    def test_a_failed_deletion_of_a_child_is_told_as_it_is_when_it_succeeds(self, sent):
        feature = Feature.objects.create(title="f")
        sent.take()

        def refuse(**_):
            raise KeyError

        post_delete.connect(refuse, sender=Feature)
        with pytest.raises(KeyError):
            feature.delete()
        post_delete.disconnect(refuse, sender=Feature)
        feature.title = "unsaved"  # it is still there, and of no matter any more
        Post.objects.get().delete()
        told = dict(sent.take())
        assert sorted(told) == ["feature.deleted", "post.deleted"]
        assert told["post.deleted"]["title"] == "f"

    def test_a_proxy_and_what_it_stands_for_are_one(self, sent):
        teaser = Teaser.objects.create()
        sent.take()
        teaser.delete()
        assert sent.names() == ["post.deleted"]
        assert self.told == [Teaser]


def test_a_queryset_that_asks_for_it_keeps_its_messages_together(sent):
    Page.objects.bulk_create([Page(slug=str(n)) for n in range(8)])
    sent.take()
    with sent.queries() as queries:
        Page.objects.all().delete()
    assert [q.split()[0] for q in queries] == ["SELECT", "DELETE", "INSERT"]
    assert sent.names() == ["page.deleted"] * 8
