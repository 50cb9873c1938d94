"""The values that travel through Thorn: frozen, without side effects."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from json import loads
from typing import Any

import attrs

from thorn_core.recipients.urls import shown
from thorn_core.retries import RetryPolicy
from thorn_core.signatures import StandardWebhooksEd25519, is_private

EMPTY: Mapping[str, Any] = {}


class Operator(str):
    """The type of `OPERATOR`, which differs from all ids of users and tenants, even empty ones."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "OPERATOR"


# The sender of a message that reaches only subscriptions without an owner. No user or tenant can
# have this id (`thorn_core.subscriptions.identify`).
OPERATOR = Operator()


def _sender(sender: str | None) -> str | None:
    return OPERATOR if sender == "" else sender  # as databases store it


def _shown(url: str | None) -> str:
    """Return a URL for a repr, without credentials and query, because reprs are logged."""
    return repr(None) if url is None else shown(url)


class DeliveryState(enum.StrEnum):
    """The state of a delivery.

    `pending`: it waits until it is due. `in_flight`: it is leased to a worker. The other three are
    final.
    """

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether the state is final; only a replay changes it."""
        return self in _FINISHED


_FINISHED = frozenset({DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.CANCELLED})


@attrs.frozen(kw_only=True)
class Message:
    """One occurrence of an event; its id is the `webhook-id` of every request made for it.

    Attributes:
        id: `msg_` and 32 hexadecimal digits, ordered by time.
        event: The event's full name, `article.published`.
        data: The payload at the time of sending, as JSON text in UTF-8.
        at: The time of sending (aware, UTC).
        sender: Id of the user or tenant that it is about. A message with None reaches subscriptions
            of every owner; one with `OPERATOR`, only those without an owner.
        sender_name: The sender's name, for the envelope.
        ref: URL of the object that it is about.
        headers: Extra headers for every request of this message.
        context: Values that travel with the message but not to recipients.
        timeout: Seconds for a whole request, instead of the setting.
        retry_policy, envelope: Used instead of the settings.
        declared: Name of its event's declaration, which contains subscribers, validators and so on.
        only: Id of its only subscription; None for all that match.
        idempotency: Digest of its sender, event and idempotency key
            (`thorn_core.keys.idempotency_digest`); None without a key. Stores need not return it.
        claims: How often workers had claimed it for routing before; 0 outside a worker.
    """

    id: str
    event: str
    data: bytes = attrs.field(repr=False)
    at: datetime
    sender: str | None = attrs.field(default=None, converter=_sender)
    sender_name: str | None = None
    ref: str | None = attrs.field(default=None, repr=_shown)
    headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    context: Mapping[str, Any] = attrs.field(default=EMPTY, repr=False)
    timeout: float | None = None
    retry_policy: RetryPolicy | None = None
    envelope: str | None = None
    declared: str | None = None
    only: str | None = None
    idempotency: bytes | None = attrs.field(default=None, eq=False, repr=False)
    claims: int = attrs.field(default=0, eq=False, repr=False)

    @property
    def keyed(self) -> bool:
        """Whether it was sent with an idempotency key."""
        return self.idempotency is not None

    @cached_property
    def payload(self) -> Any:
        """The payload, decoded from `data`; treat it as read-only."""
        return loads(self.data)


@attrs.frozen(kw_only=True)
class Subscription:
    """A recipient's subscription to events: event patterns and a URL.

    Attributes:
        id: `sub_` and 32 hexadecimal digits.
        events: Patterns of event names, such as `article.*`.
        url: The recipient's URL.
        owner: Id of the user or tenant that owns it; None for an operator's subscription.
        secrets: Keys that sign, newest first; each signs while it is valid.
        secret_expiry: Times when rotated secrets stop signing, by secret; others don't expire.
        content_type: Encoding of request bodies.
        hmac_digest: Digest of the `Hook-HMAC` header: `sha256`, `sha512` or `sha1`.
        headers: Extra headers for its requests.
        description: A note for users.
        rate_limit: Maximum requests per second; None for no limit.
        enabled: False stops deliveries.
        paused: True holds deliveries: they are created, and wait until it is resumed.
        disabled_reason: The reason why Thorn or an operator disabled it.
        failing_since: Time of the first failure of the current streak; a success, a new URL, or two
            days without a failure end a streak.
        failures: Failed attempts in the streak.
        last_failure_at: Time of the last failure.
        created_at: Time of its creation.
        updated_at: Time of its last change.
    """

    id: str
    events: tuple[str, ...]
    url: str = attrs.field(repr=_shown)
    owner: str | None = None
    secrets: tuple[str, ...] = attrs.field(default=(), repr=False)
    secret_expiry: Mapping[str, datetime] = attrs.field(default=EMPTY, repr=False)
    content_type: str = "application/json"
    hmac_digest: str = "sha256"
    headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    description: str = ""
    rate_limit: float | None = None
    enabled: bool = True
    paused: bool = False
    disabled_reason: str | None = None
    failing_since: datetime | None = None
    failures: int = 0
    last_failure_at: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def secret(self) -> str | None:
        """The newest secret; None if it has none, and its requests aren't signed."""
        return self.secrets[0] if self.secrets else None

    @property
    def public_key(self) -> str | None:
        """The public key for verifying its Ed25519 signatures (`whpk_…`); None if there is none.

        Raises:
            ConfigurationError: The extra `ed25519` isn't installed.
        """
        private = next(filter(is_private, self.secrets), None)
        return None if private is None else StandardWebhooksEd25519().public_key(private)

    def signing_secrets(self, at: datetime) -> tuple[str, ...]:
        """Return the secrets that sign at a time, newest first."""
        if not self.secret_expiry:
            return self.secrets
        expiry = self.secret_expiry
        return tuple(s for s in self.secrets if s not in expiry or at < expiry[s])


@attrs.frozen(kw_only=True)
class Delivery:
    """One message for one subscription.

    Attributes:
        id: `dlv_` and 48 hexadecimal digits, derived from the message's and the subscription's ids,
            so that each pair has one delivery; ordered by the message's time.
        message_id: The message.
        subscription_id: The subscription.
        event: The message's event name.
        state: Its state.
        attempt_count: Number of recorded attempts.
        attempts_before: Number of these attempts before its latest replay.
        due_at: Earliest time of the next attempt.
        created_at: Time of routing.
        finished_at: Time when it reached a final state.
        reason: The reason for its state: a status, an error, a refusal.
        target: The subscription itself, if it isn't in the store (static, from an event or from a
            plugin).
        held: Whether it is pending and its subscription is paused.
    """

    id: str
    message_id: str
    subscription_id: str
    event: str
    state: DeliveryState = DeliveryState.PENDING
    attempt_count: int = 0
    attempts_before: int = 0
    due_at: datetime
    created_at: datetime
    finished_at: datetime | None = None
    reason: str | None = None
    target: Subscription | None = None
    held: bool = False

    @property
    def shown_state(self) -> str:
        """The state for users: `held` instead of `pending` while its subscription is paused."""
        return "held" if self.held else str(self.state)


@attrs.frozen(kw_only=True)
class Attempt:
    """One HTTP request for a delivery, with its response or error.

    Attributes:
        id: `att_` and 64 hexadecimal digits, derived from the delivery's id and the time.
        delivery_id: The delivery.
        number: 1 for the first attempt of the delivery.
        at: Start of the request.
        duration: Seconds until the response was read or the request failed.
        status: The response's status; None if there was none.
        headers: The response's headers, names in lower case.
        body: The first 8 KiB of the response's body.
        error: The error if there was no response; None otherwise.
        timed_out: True if `error` is a timeout.
    """

    id: str
    delivery_id: str
    number: int
    at: datetime
    duration: float
    status: int | None = None
    headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    error: str | None = None
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether the recipient responded with 2xx."""
        return self.status is not None and 200 <= self.status < 300


@attrs.frozen(kw_only=True)
class Outcome:
    """A decision on a delivery, after an attempt or instead of one.

    Attributes:
        state: The delivery's next state; `pending` retries it at `due_at`.
        due_at: Time of the next attempt.
        reason: The reason, in a few words.
        pause_until: Make no request to this subscription before this time.
        disable: Disable the subscription, for this reason.
        disable_after: Disable the subscription if all its attempts have failed for this long.
    """

    state: DeliveryState
    due_at: datetime | None = None
    reason: str | None = None
    pause_until: datetime | None = None
    disable: str | None = None
    disable_after: timedelta | None = None


@attrs.frozen(kw_only=True)
class Routing:
    """A message with deliveries to store: all of them, or a chunk.

    Attributes:
        message: The message.
        deliveries: The deliveries to store.
        complete: True if there are no more: the message is routed.
    """

    message: Message
    deliveries: Sequence[Delivery]
    complete: bool = True


@attrs.frozen(kw_only=True)
class Claim:
    """A delivery leased to a worker, with all data for the request.

    Attributes:
        delivery: The delivery, `in_flight`.
        message: Its message.
        subscription: Its subscription; None if it has been deleted.
        token: Identifies the lease.
        direct: Whether the store doesn't have the delivery yet: its worker attempts it under the
            lease of its message.
    """

    delivery: Delivery
    message: Message
    subscription: Subscription | None
    token: str
    direct: bool = False


@attrs.frozen(kw_only=True)
class Completion:
    """The result of a claim, which a store records in one transaction.

    Attributes:
        claim: The claim.
        outcome: The delivery's outcome.
        attempt: The attempt; None if there was none.
        at: The end of the attempt.
        internal: Whether a defect of this program made the attempt fail, for which the recipient
            isn't responsible.
    """

    claim: Claim
    outcome: Outcome
    attempt: Attempt | None
    at: datetime
    internal: bool = False


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request, ready for a transport.

    Attributes:
        url: The URL.
        headers: By name, in the order of sending.
        body: The body.
        method: `POST`, unless a plugin has changed it.
        connect_timeout: Maximum seconds to open the connection, including TLS.
        validators: Recipient validators, which check every address before a connection.
        keepalive: False closes the connection after the response.
        response_limit: Bytes of the response's body to keep; the rest isn't read.
        owner: Owner of the subscription, whose share of name look-ups it uses; None: an operator.
    """

    url: str = attrs.field(repr=_shown)
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    method: str = "POST"
    connect_timeout: float = 5.0
    validators: tuple[Any, ...] = ()
    keepalive: bool = True
    response_limit: int = 8192
    owner: str | None = None


@attrs.frozen(kw_only=True)
class Response:
    """The response to a request.

    Attributes:
        status: The status code.
        headers: By name in lower case; repeated ones joined by `, `.
        body: The body's first bytes.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class Stats:
    """Counts of a store, and statistics of recent attempts.

    Attributes:
        subscriptions: Number of subscriptions.
        messages: Number of messages.
        unrouted: Number of messages that wait to be routed.
        deliveries: Number of deliveries by state.
        due_since: Time when the oldest due message or delivery became due; None if nothing is due.
        attempts: Number of attempts in `window`.
        failed_attempts: Number of these attempts without a 2xx response.
        window: The period of the statistics of attempts.
        latency: Seconds by percentile (50, 95, 99) of the attempts that got a response.
        recipients: The same latency by subscription id, the busiest first, at most 20.
        unsent: Number of events by name that this process could not send because a filter or
            payload failed; the log contains the errors.
    """

    subscriptions: int
    messages: int
    unrouted: int
    deliveries: Mapping[DeliveryState, int]
    due_since: datetime | None
    attempts: int
    failed_attempts: int
    window: timedelta
    latency: Mapping[int, float]
    recipients: Mapping[str, Mapping[int, float]]
    unsent: Mapping[str, int] = EMPTY


@attrs.frozen(kw_only=True)
class Period:
    """Statistics of deliveries to a subscription in a period of time.

    Attributes:
        at: Start of the period.
        deliveries: Number of counted deliveries created in it, by their current state.
        latency: Seconds by percentile (50, 95, 99) of its attempts that got a response, among the
            counted deliveries.
    """

    at: datetime
    deliveries: Mapping[DeliveryState, int]
    latency: Mapping[int, float]
