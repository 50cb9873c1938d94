"""Owners: the subscriptions of a deleted user go with the user."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.test.utils import isolate_apps, override_settings
from eventing.models import Member
from eventing.sent import sending
from magazine.models import Hook

from thorn_core import Thorn

URL = "https://example.com/hook"


class Boom(Exception):
    pass


@pytest.fixture
def app(alias):
    with sending(alias) as sent:
        yield sent.app


@pytest.fixture
def two(app):
    """Two users, each with a subscription; and one of the operator's."""
    ada, bob = (User.objects.create_user(name) for name in ("ada", "bob"))
    for owner in (ada, bob, None):
        app.subscribe("article.*", URL, owner=owner)
    return ada, bob


def owners(app):
    return sorted(str(s.owner) for s in app.subscriptions())


WAYS = {
    "an instance": lambda user: user.delete(),
    "a queryset": lambda user: User.objects.filter(pk=user.pk).delete(),
    "a proxy": lambda user: Member.objects.get(pk=user.pk).delete(),
}


@pytest.mark.parametrize("delete", WAYS.values(), ids=WAYS)
def test_the_subscriptions_of_a_deleted_user_go_and_no_others(app, two, delete):
    ada, bob = two
    key = str(bob.pk)
    delete(ada)
    assert owners(app) == sorted([key, "None"])
    assert {s.owner for s in app.subscribers("article.created", sender=key)} == {None, key}


def test_they_stay_with_a_user_whose_deletion_is_rolled_back(app, two, alias):
    with pytest.raises(Boom), transaction.atomic(using=alias):
        two[0].delete()
        raise Boom
    assert len(owners(app)) == 3


def test_a_user_can_be_deleted_before_the_tables_are_there(default_alias):
    user = User.objects.create_user("ada")
    with sending(default_alias), connections[default_alias].cursor() as cursor:
        cursor.execute("ALTER TABLE thorn_subscriptions RENAME TO elsewhere")
        try:
            with transaction.atomic():
                user.delete()
            assert not User.objects.exists()
        finally:
            cursor.execute("ALTER TABLE elsewhere RENAME TO thorn_subscriptions")


def test_they_go_from_a_store_elsewhere_once_the_deletion_has_committed(default_alias):
    user = User.objects.create_user("ada")
    with Thorn(dispatcher="outbox").make_default() as app:
        app.subscribe("*", URL, owner=user)
        with transaction.atomic():
            user.delete()
            assert len(list(app.subscriptions())) == 1
        assert list(app.subscriptions()) == []


def test_a_cascade_from_a_user_leaves_no_pattern_behind(default_alias):
    with override_settings(THORN_SUBSCRIBER_MODEL="magazine.Hook"), sending(default_alias) as sent:
        user = User.objects.create_user("ada")
        subscription = sent.app.subscribe("article.*", URL)
        Hook.objects.filter(pk=subscription.id).update(user=user)
        user.delete()
        assert not Hook.objects.exists()
        assert pattern_count() == 0


def pattern_count():
    from thorn_django.models import SubscriptionPattern

    return SubscriptionPattern.objects.count()


@isolate_apps("magazine")
def test_a_child_that_keeps_its_user_takes_nothing_along(default_alias):
    class Customer(User):
        class Meta:
            app_label = "magazine"

    with sending(default_alias) as sent, connections[default_alias].schema_editor() as editor:
        editor.create_model(Customer)
        customer = Customer.objects.create(username="ada")
        sent.app.subscribe("*", URL, owner=customer)
        customer.delete(keep_parents=True)
        assert len(list(sent.app.subscriptions())) == 1
        editor.delete_model(Customer)
