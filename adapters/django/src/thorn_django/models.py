"""The tables: what a row holds, and by which index it is found.

They are those of thorn-sqlalchemy, names included, so that its programs can work on the same
data. No row refers to another by a foreign key: history outlives subscriptions, and static
subscribers have no row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, ClassVar, TypeVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models

from thorn_core import ConfigurationError, DeliveryState
from thorn_core.recipients import same_origin, without_credentials
from thorn_core.recipients.urls import without_secrets
from thorn_core.thorn_1 import SUBSCRIBER, refuse_overrides
from thorn_django.fields import JsonTextField, KeyField, LongTextField, MomentField, PartialIndex

# Characters; what is longer is refused before it gets here.
ID_LENGTH = 64
NAME_LENGTH = 200
OWNER_LENGTH = 255
SUBSCRIPTION_LENGTH = 120
DELIVERY_LENGTH = 160
RECIPIENT_LENGTH = 260


class State(models.TextChoices):
    """Where a delivery stands: `thorn_core.DeliveryState`, for forms."""

    PENDING = DeliveryState.PENDING.value
    IN_FLIGHT = DeliveryState.IN_FLIGHT.value
    DELIVERED = DeliveryState.DELIVERED.value
    EXHAUSTED = DeliveryState.EXHAUSTED.value
    DISCARDED = DeliveryState.DISCARDED.value


S = TypeVar("S", bound="AbstractSubscription")


class SubscriptionQuerySet(models.QuerySet[S]):
    """A QuerySet that changes no URL: only `save()` sees which credentials a row would take along.

    A model with a manager of its own makes that one of this class, too.

    Example:
        >>> from thorn_django.models import Subscription
        >>> Subscription.objects.update(url="https://example.com/")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: update() can't change url, because headers ...
    """

    def update(self, **kwargs: Any) -> int:
        """As `QuerySet.update`, of anything but the URL.

        Raises:
            ConfigurationError: It would change the URL. `bulk_update` calls this, too.
        """
        _check_url_stays("update()", kwargs)
        return super().update(**kwargs)

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[S],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        update_conflicts: bool = False,  # noqa: FBT001, FBT002
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[S]:
        """As `QuerySet.bulk_create`.

        Raises:
            ConfigurationError: It would change the URL of rows that are there.
        """
        _check_url_stays("bulk_create(update_fields=...)", update_fields or ())
        return super().bulk_create(
            objs,
            batch_size=batch_size,
            ignore_conflicts=ignore_conflicts,
            update_conflicts=update_conflicts,
            update_fields=update_fields,
            unique_fields=unique_fields,
        )

    bulk_create.alters_data = True  # type: ignore[attr-defined]


def _check_url_stays(call: str, names: Iterable[str]) -> None:
    if "url" in names:
        raise ConfigurationError(
            f"{call} can't change url, because headers that may be credentials would follow to"
            f" another origin; call app.update_subscription(id, url=...), or save() of each"
        )


class AbstractSubscription(models.Model):
    """What a subscription model has: inherit from it, and name yours in THORN_SUBSCRIBER_MODEL.

    Change subscriptions through the app (`app.subscribe`, `app.update_subscription` …), which
    checks them and keeps their patterns. Fields of your own need a default or `null=True`.
    """

    id = KeyField(max_length=SUBSCRIPTION_LENGTH, primary_key=True, editable=False)
    owner = KeyField(max_length=OWNER_LENGTH, null=True, blank=True)
    url = LongTextField()
    events = JsonTextField()
    secrets = JsonTextField(editable=False)
    secret_expiry = JsonTextField(null=True, editable=False)
    content_type: models.CharField[str, str] = models.CharField(max_length=255)
    hmac_digest: models.CharField[str, str] = models.CharField(max_length=16)
    headers = JsonTextField(null=True, blank=True)
    description = LongTextField(blank=True)
    rate_limit: models.FloatField[float | None, float | None] = models.FloatField(
        null=True, blank=True
    )
    enabled: models.BooleanField[bool, bool] = models.BooleanField()
    disabled_reason = LongTextField(null=True, blank=True)
    failing_since = MomentField(null=True, blank=True, editable=False)
    failures: models.IntegerField[int, int] = models.IntegerField(default=0, editable=False)
    last_failure_at = MomentField(null=True, blank=True, editable=False)
    created_at = MomentField(editable=False)
    updated_at = MomentField(editable=False)

    objects: ClassVar[models.Manager[Any]] = SubscriptionQuerySet.as_manager()

    class Meta:
        abstract = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_overrides(cls, SUBSCRIBER)

    def __str__(self) -> str:
        return f"{', '.join(self.events or ())} → {without_secrets(self.url)}"

    def save(self, *args: Any, **options: Any) -> None:
        """Save what a program or a form changed; credentials don't follow to another origin."""
        if not self._state.adding:
            self._drop_credentials(options)
        super().save(*args, **options)

    def _drop_credentials(self, options: dict[str, Any]) -> None:
        names = options.get("update_fields")
        if names is not None and "url" not in names:
            return
        rows = type(self)._base_manager.using(options.get("using") or self._state.db)
        stored = rows.filter(pk=self.pk).values("url", "headers").first()
        if stored is None or same_origin(stored["url"], self.url):
            return
        former = stored["headers"] or {}
        harmless = without_credentials(former)
        kept = {
            name: value
            for name, value in (self.headers or {}).items()
            if name in harmless or former.get(name) != value
        }
        self.headers = kept or None
        if names is not None:
            options["update_fields"] = {*names, "headers"}

    @property
    def owner_user(self) -> Any:
        """The user whose id `owner` is; None if it has no owner, or that is no user."""
        users = get_user_model()._base_manager
        try:
            return None if self.owner is None else users.filter(pk=self.owner).first()
        except (TypeError, ValueError, ValidationError):
            return None


class Subscription(AbstractSubscription):
    """A recipient's wish."""

    class Meta:
        db_table = "thorn_subscriptions"
        swappable = "THORN_SUBSCRIBER_MODEL"
        indexes = (models.Index(fields=["owner", "id"], name="thorn_subscriptions_owner"),)


class SubscriptionPattern(models.Model):
    """By which pattern and owner an enabled subscription is matched."""

    pk = models.CompositePrimaryKey("pattern", "owner", "subscription_id")
    pattern = KeyField(max_length=NAME_LENGTH)
    # Empty for an operator's: no owner has an empty id.
    owner = KeyField(max_length=OWNER_LENGTH)
    subscription_id = KeyField(max_length=SUBSCRIPTION_LENGTH)

    class Meta:
        db_table = "thorn_subscription_patterns"
        indexes = (
            models.Index(fields=["pattern", "subscription_id"], name="thorn_patterns_any_owner"),
            models.Index(fields=["subscription_id"], name="thorn_patterns_subscription"),
        )

    def __str__(self) -> str:
        return f"{self.pattern} → {self.subscription_id}"


class Message(models.Model):
    """One occurrence of an event.

    `route_at` is 1970 until it is leased for routing, None once it is routed. `extra` is what few
    messages have.
    """

    id = KeyField(max_length=ID_LENGTH, primary_key=True)
    event = KeyField(max_length=NAME_LENGTH)
    data: models.BinaryField[bytes, bytes] = models.BinaryField()
    at = MomentField()
    sender = KeyField(max_length=OWNER_LENGTH, null=True)
    extra = JsonTextField(null=True)
    route_at = MomentField(null=True)

    class Meta:
        db_table = "thorn_messages"
        indexes = (models.Index(fields=["route_at", "at", "id"], name="thorn_messages_route"),)

    def __str__(self) -> str:
        return f"{self.event} {self.id}"


class Delivery(models.Model):
    """One message for one subscription.

    `ready_at` is its `due_at` while it is pending, and `leased_until` is set while it is in flight.
    `target` is the subscription, where it isn't in the table.
    """

    id = KeyField(max_length=DELIVERY_LENGTH, primary_key=True)
    message_id = KeyField(max_length=ID_LENGTH)
    subscription_id = KeyField(max_length=SUBSCRIPTION_LENGTH)
    event = KeyField(max_length=NAME_LENGTH)
    recipient = KeyField(max_length=RECIPIENT_LENGTH)
    state = KeyField(max_length=10, choices=State.choices)
    attempt_count: models.IntegerField[int, int] = models.IntegerField()
    attempts_before: models.IntegerField[int, int] = models.IntegerField()
    due_at = MomentField()
    created_at = MomentField()
    settled_at = MomentField(null=True)
    reason = LongTextField(null=True)
    target = JsonTextField(null=True)
    ready_at = MomentField(null=True)
    token = KeyField(max_length=ID_LENGTH, null=True)
    leased_until = MomentField(null=True)

    class Meta:
        db_table = "thorn_deliveries"
        verbose_name_plural = "deliveries"
        indexes = (
            # Of the few that are pending or in flight, among the many that are history.
            PartialIndex(
                fields=["recipient", "ready_at", "id"],
                name="thorn_deliveries_ready",
                present="ready_at",
            ),
            PartialIndex(
                fields=["leased_until", "id"],
                name="thorn_deliveries_lease",
                present="leased_until",
            ),
            models.Index(
                fields=["subscription_id", "created_at", "id"],
                name="thorn_deliveries_subscription",
            ),
            models.Index(fields=["created_at", "id"], name="thorn_deliveries_created"),
        )

    def __str__(self) -> str:
        return f"{self.event} → {self.recipient} ({self.state})"


class Attempt(models.Model):
    """One HTTP request made for a delivery, with what came back."""

    id = KeyField(max_length=ID_LENGTH, primary_key=True)
    delivery_id = KeyField(max_length=DELIVERY_LENGTH)
    recipient = KeyField(max_length=RECIPIENT_LENGTH)
    number: models.IntegerField[int, int] = models.IntegerField()
    at = MomentField()
    duration: models.FloatField[float, float] = models.FloatField()
    status: models.SmallIntegerField[int | None, int | None] = models.SmallIntegerField(null=True)
    headers = JsonTextField(null=True)
    body: models.BinaryField[bytes | None, bytes | None] = models.BinaryField(null=True)
    error = LongTextField(null=True)
    timed_out: models.BooleanField[bool, bool] = models.BooleanField()

    class Meta:
        db_table = "thorn_attempts"
        indexes = (
            models.Index(fields=["delivery_id", "id"], name="thorn_attempts_delivery"),
            models.Index(fields=["at"], name="thorn_attempts_at"),
        )

    def __str__(self) -> str:
        return f"{self.recipient} #{self.number}: {self.status or self.error}"


class Recipient(models.Model):
    """Whose turn it is to be delivered to.

    There may be something to claim for it from `ready_at` on, never earlier than that says.
    """

    recipient = KeyField(max_length=RECIPIENT_LENGTH, primary_key=True)
    ready_at = MomentField(null=True)
    paused_until = MomentField()

    class Meta:
        db_table = "thorn_recipients"
        indexes = (models.Index(fields=["ready_at", "recipient"], name="thorn_recipients_ready"),)

    def __str__(self) -> str:
        return str(self.recipient)
