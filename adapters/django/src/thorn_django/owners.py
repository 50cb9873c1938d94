"""Owners: deleting a user also removes the user's subscriptions."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import post_delete

from thorn_core import ConfigurationError, StoreSetupError, get_app
from thorn_django.store import DjangoStore
from thorn_django.subscription_model import subscription_model
from thorn_django.unit_of_work import DjangoUnitOfWork

UID = "thorn_django.owners"


def follow_deletions() -> None:
    """Watch deletions of users, and of subscriptions outside the app; calling it twice is safe.

    Watch only these models, because receivers slow Django's deletions down.
    """
    for model in _user_models():
        post_delete.connect(user_deleted, sender=model, dispatch_uid=UID)
    # The system check reports a wrong setting.
    with contextlib.suppress(ConfigurationError):
        post_delete.connect(subscription_deleted, sender=subscription_model(), dispatch_uid=UID)


def _user_models() -> list[type[Model]]:
    """Return the user model and its proxies; none in a project without one."""
    try:
        user = get_user_model()
    except ImproperlyConfigured:
        return []
    of_user = user._meta.concrete_model
    return [model for model in apps.get_models() if model._meta.concrete_model is of_user]


def user_deleted(*, instance: Model, using: str, **_: Any) -> None:
    """Remove a deleted user's subscriptions.

    The removal is part of the user's own transaction if the store is in the same database;
    otherwise it follows the commit.
    """
    store, remove = get_app().store, partial(_remove, str(instance.pk))
    if not (isinstance(store, DjangoStore) and store.alias == using):
        DjangoUnitOfWork(using).on_commit(remove)
        return
    # Without its tables the store has no subscriptions; don't break the transaction.
    with contextlib.suppress(StoreSetupError), transaction.atomic(using=using):
        remove()


def _remove(owner: str) -> None:
    app = get_app()
    for subscription in list(app.subscriptions(owner=owner)):
        app.unsubscribe(subscription.id)


def subscription_deleted(*, instance: Model, using: str, **_: Any) -> None:
    """Clean up after the ORM has deleted a subscription's row, such as by a cascade from a user."""
    app = get_app()
    if isinstance(app.store, DjangoStore) and app.store.alias == using:
        app.store.forget_subscription(instance.pk, now=app.clock())
