"""Subscriptions, and which of them an event reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet

from thorn_core import ConfigurationError, Message, NotFoundError, Settlement, Subscription
from thorn_core.patterns import candidates
from thorn_core.stores.rules import HEALTH, Health, judge_subscriptions
from thorn_django.models import AbstractSubscription, SubscriptionPattern
from thorn_django.store.rows import (
    SUBSCRIPTION,
    clean,
    subscription_of,
    subscription_values,
)
from thorn_django.store.statements import chunks, first_ids, insert_new

# The owner of those without one, in the table of patterns.
NOBODY = ""
# Patterns asked for in one statement.
TERMS = 64
DEFAULT_MODEL = "thorn_django.Subscription"


def subscription_model() -> type[AbstractSubscription]:
    """The model of subscriptions: ours, or that of the setting THORN_SUBSCRIBER_MODEL.

    Raises:
        ConfigurationError: There is no such model, or it isn't one of subscriptions.
    """
    name = getattr(settings, "THORN_SUBSCRIBER_MODEL", None) or DEFAULT_MODEL
    try:
        model = apps.get_model(name, require_ready=False)
    except (LookupError, ValueError, ImproperlyConfigured) as error:
        raise ConfigurationError(
            f"THORN_SUBSCRIBER_MODEL is {name!r}: {error}; write 'app_label.Model' of an installed"
            " app"
        ) from error
    if not issubclass(model, AbstractSubscription):
        raise ConfigurationError(
            f"THORN_SUBSCRIBER_MODEL is {name!r}, which is not a subscription model; inherit from"
            f" thorn_django.models.AbstractSubscription"
        )
    return model


def rows(connection: BaseDatabaseWrapper) -> QuerySet[Any]:
    """The rows of a database."""
    return subscription_model()._base_manager.using(connection.alias)


def _patterns(connection: BaseDatabaseWrapper) -> QuerySet[SubscriptionPattern]:
    return SubscriptionPattern._base_manager.using(connection.alias)


def add(connection: BaseDatabaseWrapper, subscription: Subscription) -> None:
    """Insert one.

    Raises:
        ConfigurationError: The id is taken.
    """
    if rows(connection).filter(pk=subscription.id).exists():
        raise ConfigurationError(f"the subscription {subscription.id!r} already exists")
    add_many(connection, [subscription])


def add_many(connection: BaseDatabaseWrapper, subscriptions: Sequence[Subscription]) -> None:
    """Insert several that aren't there."""
    model = subscription_model()
    rows(connection).bulk_create(model(**subscription_values(s)) for s in subscriptions)
    patterns = [row for s in subscriptions for row in _pattern_rows(s)]
    insert_new(connection, SubscriptionPattern, patterns)


def save(connection: BaseDatabaseWrapper, subscription: Subscription) -> None:
    """Replace one.

    Raises:
        NotFoundError: There is none.
    """
    values = subscription_values(subscription)
    key = values.pop("id")
    if not rows(connection).filter(pk=key).update(**values):
        raise NotFoundError(f"there is no subscription {subscription.id!r}")
    forget_patterns(connection, key)
    insert_new(connection, SubscriptionPattern, _pattern_rows(subscription))


def remove(connection: BaseDatabaseWrapper, subscription_id: str) -> bool:
    """Remove one; False if there is none."""
    forget_patterns(connection, subscription_id)
    found = rows(connection).filter(pk=subscription_id)
    # By Django's way: a model of the project's may be referred to by others.
    return bool(found.delete()[0])


def forget_patterns(connection: BaseDatabaseWrapper, key: str) -> None:
    """Let the subscription of this id match nothing any more."""
    _patterns(connection).filter(subscription_id=key)._raw_delete(connection.alias)


def get(connection: BaseDatabaseWrapper, subscription_id: str) -> Subscription | None:
    """The one of that id."""
    return get_many(connection, [subscription_id]).get(subscription_id)


def get_many(connection: BaseDatabaseWrapper, ids: Sequence[str]) -> dict[str, Subscription]:
    """Those of these ids, by id."""
    return {
        row["id"]: subscription_of(row)
        for some in chunks(ids)
        for row in rows(connection).filter(pk__in=some).values(*SUBSCRIPTION)
    }


def page(
    connection: BaseDatabaseWrapper, owner: str | None, after: str | None, limit: int
) -> list[Subscription]:
    """A page of all, or of one owner's."""
    found = rows(connection).filter(pk__gt=after or "")
    if owner is not None:
        found = found.filter(owner=owner)
    return [subscription_of(row) for row in found.order_by("pk").values(*SUBSCRIPTION)[:limit]]


def judge(connection: BaseDatabaseWrapper, settlements: Sequence[Settlement]) -> list[Subscription]:
    """Write what settlements change of subscriptions.

    Args:
        connection: In the transaction that settles.
        settlements: Those whose lease is still held.

    Returns:
        Subscriptions disabled by this call (not ones already disabled by another), and those whose
        owners are to be warned.
    """
    keys = {s.claim.delivery.subscription_id for s in settlements if s.attempt is not None}
    health = {
        row.pop("id"): Health(**row)
        for some in chunks(sorted(keys))
        for row in rows(connection).filter(pk__in=some).values("id", *HEALTH)
    }
    changes = judge_subscriptions(health, settlements)
    for key, after in sorted(changes.health.items()):
        rows(connection).filter(pk=key).update(
            failing_since=after.failing_since,
            failures=after.failures,
            last_failure_at=after.last_failure_at,
        )
    notable = set(changes.warned)
    for key, at in sorted(changes.disabled.items()):
        reason = clean(changes.health[key].disabled_reason)
        enabled = rows(connection).filter(pk=key, enabled=True)
        if enabled.update(enabled=False, disabled_reason=reason, updated_at=at):
            forget_patterns(connection, key)
            notable.add(key)
    found = get_many(connection, sorted(notable))
    return [found[key] for key in sorted(found)]


# -- matching


def matching(
    connection: BaseDatabaseWrapper, event: str, sender: str | None, after: str | None, limit: int
) -> list[Subscription]:
    """A page of what an event reaches, in the order of ids.

    Each candidate pattern is asked for its own first ids, so that a page costs as much as it
    holds, however many subscriptions match.
    """
    found: set[str] = set()
    owners = [None] if sender is None else [sender, NOBODY]
    asked = [(pattern, owner) for pattern in candidates(event) for owner in owners]
    for some in chunks(asked, TERMS):
        found.update(first_ids(connection, some, after or "", limit))
    ids = sorted(found)[:limit]
    by_id = get_many(connection, ids)
    return [by_id[key] for key in ids if key in by_id]


def matching_each(
    connection: BaseDatabaseWrapper, messages: Sequence[Message], limit: int
) -> list[list[Subscription]]:
    """First pages of `matching` for messages: for all at once if they aren't too many."""
    wanted: dict[str, tuple[str, ...]] = {m.event: candidates(m.event) for m in messages}
    patterns = list(dict.fromkeys(p for some in wanted.values() for p in some))
    senders = {message.sender for message in messages}
    if len(patterns) <= 1000 and len(senders) <= 1000:
        asked = _patterns(connection).filter(pattern__in=patterns)
        if None not in senders:
            asked = asked.filter(owner__in=[*senders, NOBODY])
        pairs = list(asked.values_list("pattern", "owner", "subscription_id")[: limit + 1])
        if len(pairs) <= limit:
            return _shared_out(connection, messages, wanted, pairs)
    first = messages[0]
    return [matching(connection, first.event, first.sender, None, limit)]


def _shared_out(
    connection: BaseDatabaseWrapper,
    messages: Sequence[Message],
    wanted: dict[str, tuple[str, ...]],
    pairs: Sequence[tuple[str, str, str]],
) -> list[list[Subscription]]:
    by_pattern: dict[str, list[tuple[str, str]]] = {}
    for pattern, owner, subscription_id in pairs:
        by_pattern.setdefault(pattern, []).append((owner, subscription_id))
    known = get_many(connection, list({key for _, _, key in pairs}))
    pages = []
    for message in messages:
        owners = (message.sender, NOBODY)
        ids = {
            key
            for pattern in wanted[message.event]
            for owner, key in by_pattern.get(pattern, ())
            if message.sender is None or owner in owners
        }
        pages.append([known[key] for key in sorted(ids) if key in known])
    return pages


def _pattern_rows(subscription: Subscription) -> list[dict[str, str]]:
    if not subscription.enabled:
        return []
    owner = NOBODY if subscription.owner is None else subscription.owner
    return [
        {"pattern": pattern, "owner": owner, "subscription_id": subscription.id}
        for pattern in dict.fromkeys(subscription.events)
    ]
