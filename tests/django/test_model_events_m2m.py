"""Many-to-many fields: told of the instance whose field it is, from whichever side."""

from __future__ import annotations

import pytest
from django.db import transaction
from eventing.models import Feature, Label, Membership, Person, Player, Post, Team, Teaser
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
def labels(alias_of_the_test):
    return [Label.objects.create(name=name) for name in "abc"]


@pytest.fixture
def alias_of_the_test(request):
    name = "alias" if "sent_anywhere" in request.fixturenames else "default_alias"
    return request.getfixturevalue(name)


def contexts(sent):
    """The events, and the names of what came and went."""
    names = {str(label.pk): label.name for label in Label.objects.all()}
    return [
        (m.event, [names[pk] for pk in m.context["related"]])
        for m in sent.messages()
        if m.event != "label.used"
    ]


class TestItsOwnSide:
    def test_what_is_added_is_told_unless_it_was_there(self, sent_anywhere, labels):
        sent, (a, b, c) = sent_anywhere, labels
        post = Post.objects.create()
        sent.take()
        post.labels.add(a, b.pk)
        assert contexts(sent) == [("post.labelled", ["a", "b"])]
        post.labels.add(a, c)
        assert contexts(sent) == [("post.labelled", ["c"])]
        post.labels.add(a)
        assert sent.names() == []

    def test_what_is_removed_is_told_if_it_was_there(self, sent_anywhere, labels):
        sent, (a, b, c) = sent_anywhere, labels
        post = Post.objects.create()
        post.labels.add(a, b)
        sent.take()
        post.labels.remove(a, c)
        assert contexts(sent) == [("post.unlabelled", ["a"])]
        post.labels.remove(a, c)
        assert sent.names() == []

    def test_set_tells_what_came_and_what_went(self, sent, labels):
        a, b, c = labels
        post = Post.objects.create()
        post.labels.set([a, b])
        sent.take()
        post.labels.set([b, c])
        assert contexts(sent) == [("post.unlabelled", ["a"]), ("post.labelled", ["c"])]

    def test_clearing_tells_what_went_and_that_the_field_is_empty(self, sent_anywhere, labels):
        sent, (a, b, _) = sent_anywhere, labels
        post = Post.objects.create()
        post.labels.add(a, b)
        sent.take()
        post.labels.clear()
        assert contexts(sent) == [("post.unlabelled", ["a", "b"]), ("post.stripped", [])]
        post.labels.clear()
        assert sent.names() == []

    def test_removing_the_last_isnt_clearing(self, sent, labels):
        post = Post.objects.create()
        post.labels.add(labels[0])
        sent.take()
        post.labels.remove(labels[0])
        assert sent.names() == ["post.unlabelled"]

    def test_the_payload_is_of_after_the_change(self, sent, labels):
        seen = []

        def look(model, instance, field, related, **_):
            seen.append((field, list(related), instance.labels.count()))

        post = Post.objects.create()
        with signals.model_m2m_added.connected_to(look, sender=Post):
            post.labels.add(*labels)
        assert seen == [("labels", labels, 3)]

    def test_proxies_and_children_have_the_field_too(self, sent, labels):
        teaser, feature = Teaser.objects.create(), Feature.objects.create()
        sent.take()
        teaser.labels.add(labels[0])
        assert sorted(sent.names()) == ["label.used", "post.labelled"]
        feature.labels.add(labels[0])
        assert sorted(sent.names()) == ["feature.labelled", "label.used", "post.labelled"]

    def test_a_change_rolled_back_sends_nothing(self, sent_anywhere, labels):
        sent = sent_anywhere
        post = Post.objects.create()
        sent.take()
        with pytest.raises(KeyError), transaction.atomic(using=sent.alias):
            post.labels.add(*labels)
            raise KeyError
        assert sent.names() == []


class TestTheOtherSide:
    def test_each_instance_whose_field_changes_is_told(self, sent_anywhere, labels):
        sent, label = sent_anywhere, labels[0]
        one, two = Post.objects.create(title="1"), Post.objects.create(title="2")
        sent.take()
        label.posts.add(one, two)
        told = sent.take()
        assert [name for name, _ in told].count("post.labelled") == 2
        assert {p["title"] for name, p in told if name == "post.labelled"} == {"1", "2"}
        assert [p for name, p in told if name == "label.used"] == [{"name": "a"}]

    def test_a_child_is_told_as_the_child(self, sent_anywhere, labels):
        sent, label = sent_anywhere, labels[0]
        feature, post = Feature.objects.create(), Post.objects.create()
        sent.take()
        label.posts.add(feature.pk, post)
        names = sent.names()
        assert names.count("post.labelled") == 2
        assert names.count("feature.labelled") == 1

    def test_removing_and_clearing_tell_what_each_has_lost(self, sent_anywhere, labels):
        sent, (a, b, _) = sent_anywhere, labels
        one, two = Post.objects.create(), Post.objects.create()
        a.posts.set([one, two])
        b.posts.set([one])
        sent.take()
        b.posts.remove(one, two)
        assert contexts(sent) == [("post.unlabelled", ["b"])]
        a.posts.clear()  # no post's field has been cleared: each has lost one
        assert contexts(sent) == [("post.unlabelled", ["a"])] * 2

    def test_many_are_read_some_at_a_time(self, sent, labels):
        Post.objects.bulk_create([Post() for _ in range(1200)])
        with sent.queries() as queries:
            labels[0].posts.add(*Post.objects.all())
        assert sent.names().count("post.labelled") == 1200
        reads = [q for q in queries if q.startswith("SELECT") and "eventing_post" in q]
        assert len(reads) < 15


class TestOtherRelationships:
    def test_one_that_goes_both_ways_is_told_of_both(self, sent_anywhere):
        sent = sent_anywhere
        ann, bob = Person.objects.create(name="Ann"), Person.objects.create(name="Bob")
        ann.friends.add(bob)
        told = sent.take()
        assert sorted(p["name"] for _, p in told) == ["Ann", "Bob"]
        assert {name for name, _ in told} == {"person.befriended"}
        bob.friends.clear()
        told = sent.take()
        assert {name for name, _ in told} == {"person.parted"}
        assert sorted(p["name"] for _, p in told) == ["Ann", "Bob"]

    def test_one_with_itself_that_goes_one_way_has_two_names(self, sent_anywhere):
        sent = sent_anywhere
        ann, bob = Person.objects.create(name="Ann"), Person.objects.create(name="Bob")
        for add in (lambda: ann.idols.add(bob), lambda: bob.fans.add(ann)):
            add()
            assert sorted((name, p["name"]) for name, p in sent.take()) == [
                ("person.admired", "Ann"),
                ("person.famed", "Bob"),
            ]
            ann.idols.clear()

    def test_an_explicit_table_in_between_by_another_key(self, sent_anywhere):
        sent = sent_anywhere
        player, team = Player.objects.create(name="Ann"), Team.objects.create(code="x")
        Team.objects.create(code="y")
        player.teams.add(team, "y", through_defaults={"since": 1})
        [message] = sent.messages()
        assert message.event == "player.joined"
        assert set(message.context["related"]) == {str(t.pk) for t in Team.objects.all()}
        team.players.remove(player)
        assert sent.take() == [("player.left", {"name": "Ann"})]
        Membership.objects.create(player=player, team=team)
        assert sent.names() == []
