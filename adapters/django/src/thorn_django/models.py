"""The tables of the SQL store (`thorn_core.stores.sql.schema`) as models for reading.

The core writes the tables. A project may have its own model of subscriptions. There are no foreign
key constraints, because history outlives subscriptions, and static subscribers have no row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models

from thorn_core import ConfigurationError
from thorn_core.recipients import same_origin, without_credentials
from thorn_core.recipients.urls import without_secrets
from thorn_core.stores.sql.rows import CANCELLED, DELIVERED, FAILED, OPEN
from thorn_core.stores.sql.schema import (
    DIGEST,
    EVENT_LENGTH,
    ORIGIN_LENGTH,
    OWNER_LENGTH,
    SUBSCRIPTION_LENGTH,
    TOKEN_LENGTH,
)
from thorn_core.thorn_1 import SUBSCRIBER, refuse_overrides
from thorn_django.fields import (
    BytesKeyField,
    DeliveryIdField,
    FlagField,
    JsonTextField,
    KeyField,
    LongTextField,
    MessageIdField,
    MomentField,
)

if TYPE_CHECKING:
    Integer = models.IntegerField[Any, Any]
    BigInteger = models.BigIntegerField[Any, Any]
    SmallInteger = models.SmallIntegerField[Any, Any]
    M = TypeVar("M", bound=models.Model)
    Reference = models.ForeignKey[M, M]


class State(models.IntegerChoices):
    """A delivery's state; an open delivery is pending or in flight, depending on the queue."""

    OPEN = OPEN
    DELIVERED = DELIVERED
    FAILED = FAILED
    CANCELLED = CANCELLED


S = TypeVar("S", bound="AbstractSubscription")


class SubscriptionQuerySet(models.QuerySet[S]):
    """A QuerySet that can't change URLs: only `save()` removes credentials from a row.

    A model with its own manager must base it on this class, too.

    Example:
        >>> from thorn_django.models import Subscription
        >>> Subscription.objects.update(url="https://example.com/")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: update() can't change url, because headers ...
    """

    def update(self, **kwargs: Any) -> int:
        """Call `QuerySet.update` for any field except the URL.

        Raises:
            ConfigurationError: The call changes the URL. `bulk_update` calls this, too.
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
        """Call `QuerySet.bulk_create`.

        Raises:
            ConfigurationError: The call changes the URL of existing rows.
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
    """The base of subscription models: inherit from it, and set THORN_SUBSCRIBER_MODEL.

    Change subscriptions through the app (`app.subscribe`, `app.update_subscription` …), which
    checks them and maintains their patterns. Your own fields need a default or `null=True`.
    """

    id = KeyField(max_length=SUBSCRIPTION_LENGTH, primary_key=True, editable=False)
    version: Integer = models.IntegerField(default=1, editable=False)
    owner = KeyField(max_length=OWNER_LENGTH, null=True, blank=True)
    url = LongTextField()
    events = JsonTextField()
    secrets = JsonTextField(editable=False)
    secret_expiry = JsonTextField(null=True, editable=False)
    content_type = KeyField(max_length=255)
    hmac_digest = KeyField(max_length=16)
    headers = JsonTextField(null=True, blank=True)
    description = LongTextField(blank=True)
    rate_limit: models.FloatField[float | None, float | None] = models.FloatField(
        null=True, blank=True
    )
    enabled = FlagField()
    paused = FlagField(default=False)
    disabled_reason = LongTextField(null=True, blank=True)
    failing_since = MomentField(null=True, blank=True, editable=False)
    failures: Integer = models.IntegerField(default=0, editable=False)
    last_failure_at = MomentField(null=True, blank=True, editable=False)
    created_at = MomentField(editable=False)
    updated_at = MomentField(editable=False)
    extra = JsonTextField(null=True, editable=False)

    objects: ClassVar[models.Manager[Any]] = SubscriptionQuerySet.as_manager()

    class Meta:
        abstract = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_overrides(cls, SUBSCRIBER)

    def __str__(self) -> str:
        return f"{', '.join(self.events or ())} → {without_secrets(self.url)}"

    def save(self, *args: Any, **options: Any) -> None:
        """Save changes of a program or a form; remove credentials when the origin changes."""
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
        """The user with the id in `owner`; None without an owner or such a user."""
        users = get_user_model()._base_manager
        try:
            return None if self.owner is None else users.filter(pk=self.owner).first()
        except (TypeError, ValueError, ValidationError):
            return None


class Subscription(AbstractSubscription):
    """A recipient's subscription."""

    class Meta:
        db_table = "thorn_subscriptions"
        swappable = "THORN_SUBSCRIBER_MODEL"
        indexes = (models.Index(fields=["owner", "id"], name="thorn_subscriptions_owner_id"),)


class SubscriptionPattern(models.Model):
    """A pattern and owner of an enabled subscription."""

    pk = models.CompositePrimaryKey("pattern", "owner", "subscription_id")
    pattern = KeyField(max_length=EVENT_LENGTH)
    owner = KeyField(max_length=OWNER_LENGTH)
    subscription_id = KeyField(max_length=SUBSCRIPTION_LENGTH)

    class Meta:
        db_table = "thorn_patterns"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.pattern} → {self.subscription_id}"


class Owner(models.Model):
    """The queue's view of an owner."""

    id: BigInteger = models.BigIntegerField(primary_key=True)
    owner = KeyField(max_length=OWNER_LENGTH, unique=True)
    ready_at = MomentField(null=True)
    tat: BigInteger = models.BigIntegerField(null=True)

    class Meta:
        db_table = "thorn_owners"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.owner)


class Recipient(models.Model):
    """The queue's view of a subscription, stored or static."""

    id: BigInteger = models.BigIntegerField(primary_key=True)
    subscription_id = KeyField(max_length=SUBSCRIPTION_LENGTH, unique=True)
    owner = KeyField(max_length=OWNER_LENGTH, null=True)
    origin = KeyField(max_length=ORIGIN_LENGTH)
    ready_at = MomentField(null=True)
    paused = FlagField()
    blocked_until = MomentField()
    circuit: SmallInteger = models.SmallIntegerField()
    probe_until = MomentField(null=True)
    tat: BigInteger = models.BigIntegerField(null=True)

    class Meta:
        db_table = "thorn_recipients"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.subscription_id)


class Message(models.Model):
    """One occurrence of an event; `extra` holds rare attributes."""

    id = MessageIdField(primary_key=True)
    event = KeyField(max_length=EVENT_LENGTH)
    data: models.BinaryField[bytes, bytes] = models.BinaryField()
    at = MomentField()
    sender = KeyField(max_length=OWNER_LENGTH, null=True)
    ordering_key = KeyField(max_length=OWNER_LENGTH, null=True)
    expires_at = MomentField(null=True)
    extra = JsonTextField(null=True)

    class Meta:
        db_table = "thorn_messages"

    def __str__(self) -> str:
        return f"{self.event} {self.id}"


class IdempotencyKey(models.Model):
    """The first message of a sender, an event and an idempotency key."""

    digest = BytesKeyField(length=DIGEST, primary_key=True)
    message_id = MessageIdField()
    at = MomentField()

    class Meta:
        db_table = "thorn_idempotency"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.message_id)


class OutboxEntry(models.Model):
    """A message that is not routed yet."""

    message: Reference[Message] = models.OneToOneField(
        Message,
        models.DO_NOTHING,
        primary_key=True,
        db_constraint=False,
        related_name="waiting",
    )
    route_at = MomentField()
    tries: SmallInteger = models.SmallIntegerField()
    leased_until = MomentField(null=True)
    token = KeyField(max_length=TOKEN_LENGTH, null=True)
    after_recipient = KeyField(max_length=SUBSCRIPTION_LENGTH, null=True)
    cancelled = FlagField()

    class Meta:
        db_table = "thorn_outbox"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.pk)


class Delivery(models.Model):
    """One message for one subscription; `target` holds a subscription outside the store."""

    id = DeliveryIdField(primary_key=True)
    recipient: Reference[Recipient] = models.ForeignKey(
        Recipient,
        models.DO_NOTHING,
        db_column="recipient",
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    state: SmallInteger = models.SmallIntegerField(choices=State.choices)
    attempts: Integer = models.IntegerField()
    created_at = MomentField()
    finished_at = MomentField(null=True)
    reason = LongTextField(null=True)
    target = JsonTextField(null=True)

    class Meta:
        db_table = "thorn_deliveries"
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def message_id(self) -> str:
        """The message's id, which is part of the delivery's id."""
        return f"msg_{self.pk[4:36]}"


class QueueEntry(models.Model):
    """A delivery that is pending or in flight."""

    delivery: Reference[Delivery] = models.OneToOneField(
        Delivery,
        models.DO_NOTHING,
        primary_key=True,
        db_column="id",
        db_constraint=False,
        related_name="queued",
    )
    recipient: BigInteger = models.BigIntegerField()
    due_at = MomentField()
    tries: Integer = models.IntegerField()
    leased_until = MomentField(null=True)
    token = KeyField(max_length=TOKEN_LENGTH, null=True)
    key_hash: BigInteger = models.BigIntegerField(null=True)
    seq: BigInteger = models.BigIntegerField(null=True)

    class Meta:
        db_table = "thorn_queue"
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.pk)


class Attempt(models.Model):
    """One HTTP request for a delivery, with the response; `duration` is in microseconds."""

    pk = models.CompositePrimaryKey("delivery_id", "at")
    delivery_id = DeliveryIdField()
    at = MomentField()
    number: Integer = models.IntegerField()
    duration: BigInteger = models.BigIntegerField()
    status: SmallInteger = models.SmallIntegerField(null=True)
    timed_out = FlagField()
    error = LongTextField(null=True)
    headers = JsonTextField(null=True)
    body: models.BinaryField[bytes | None, bytes | None] = models.BinaryField(null=True)

    class Meta:
        db_table = "thorn_attempts"

    def __str__(self) -> str:
        return f"#{self.number}: {self.status or self.error}"


class OrderingKey(models.Model):
    """The number of deliveries to a subscription with an ordering key."""

    pk = models.CompositePrimaryKey("recipient", "key_hash")
    recipient: BigInteger = models.BigIntegerField()
    key_hash: BigInteger = models.BigIntegerField()
    last: BigInteger = models.BigIntegerField()

    class Meta:
        db_table = "thorn_ordering"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.recipient}/{self.key_hash}"
