"""The values that travel through Thorn: frozen, without behaviour that acts."""

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
    """The type of `OPERATOR`: no user's or tenant's id is one, not even an empty one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "OPERATOR"


# Sender of a message for operators: it reaches subscriptions without an owner and no others. No
# user or tenant can have this id (`thorn_core.subscriptions.identify`).
OPERATOR = Operator()


def _sender(sender: str | None) -> str | None:
    return OPERATOR if sender == "" else sender  # as databases keep it


def _shown(url: str | None) -> str:
    """A URL in a repr, which is logged: credentials and queries are secrets."""
    return repr(None) if url is None else shown(url)


class DeliveryState(enum.StrEnum):
    """Where a delivery stands.

    `pending` waits until it is due, `in_flight` is leased to a worker; the other three are final.
    """

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True for the states that a delivery leaves only by a replay."""
        return self in _FINISHED


_FINISHED = frozenset({DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.CANCELLED})


@attrs.frozen(kw_only=True)
class Message:
    """One occurrence of an event; its id is the `webhook-id` of every request made for it.

    Attributes:
        id: `msg_` and 32 hexadecimal digits, ordered by time.
        event: The event's full name, `article.published`.
        data: The payload as JSON text in UTF-8, as it was when the event was sent.
        at: When it was sent (aware, UTC).
        sender: Id of the user or tenant it is about; None reaches subscriptions of every owner,
            `OPERATOR` only those without an owner.
        sender_name: The sender's name, for the envelope.
        ref: URL of the thing that it is about.
        headers: Extra headers for every request of this message.
        context: Values that travel with the message but not to recipients.
        timeout: Seconds for a whole request, in place of the setting.
        retry_policy, envelope: In place of the settings.
        declared: Name of its event's declaration, for the subscribers, validators and so on in it.
        only: Id of the one subscription that it is for; None reaches all that match.
        idempotency: Stands for its sender, event and idempotency key
            (`thorn_core.keys.idempotency_digest`); None if it was sent without a key. A store looks
            at it and need not give it back.
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

    @property
    def keyed(self) -> bool:
        """True if it was sent with an idempotency key."""
        return self.idempotency is not None

    @cached_property
    def payload(self) -> Any:
        """The payload, decoded from `data`; treat it as read-only."""
        return loads(self.data)


@attrs.frozen(kw_only=True)
class Subscription:
    """A recipient's wish: event patterns and a URL.

    Attributes:
        id: `sub_` and 32 hexadecimal digits.
        events: Patterns of event names, such as `article.*`.
        url: Where requests go.
        owner: Id of the user or tenant it belongs to; None is an operator's.
        secrets: Keys that sign, the newest first; each signs while it is valid.
        secret_expiry: When a rotated secret stops signing, by secret; absent: never.
        content_type: Encoding of request bodies.
        hmac_digest: Digest of the `Hook-HMAC` header: `sha256`, `sha512` or `sha1`.
        headers: Extra headers for its requests.
        description: For people.
        rate_limit: Requests a second at most; None is unlimited.
        enabled: False stops deliveries.
        paused: True holds deliveries: they are made, and wait until it is resumed.
        disabled_reason: Why it was disabled, when Thorn or an operator did it.
        failing_since: Time of the first failure of the current streak; a success, a new URL, or two
            days without a failure end a streak.
        failures: Failed attempts in the streak.
        last_failure_at: Time of the last one.
        created_at: When it was made.
        updated_at: When it last changed.
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
        """The newest secret, or None if it has none and its requests go unsigned."""
        return self.secrets[0] if self.secrets else None

    @property
    def public_key(self) -> str | None:
        """The public key that recipients verify Ed25519 signatures with (`whpk_…`), or None.

        Raises:
            ConfigurationError: The extra `ed25519` isn't installed.
        """
        private = next(filter(is_private, self.secrets), None)
        return None if private is None else StandardWebhooksEd25519().public_key(private)

    def signing_secrets(self, at: datetime) -> tuple[str, ...]:
        """The secrets that sign at a time, the newest first."""
        if not self.secret_expiry:
            return self.secrets
        expiry = self.secret_expiry
        return tuple(s for s in self.secrets if s not in expiry or at < expiry[s])


@attrs.frozen(kw_only=True)
class Delivery:
    """One message for one subscription.

    Attributes:
        id: `dlv_` and 48 hexadecimal digits, made of the message's and the subscription's ids, so
            the same pair is one delivery; ordered by the message's time.
        message_id: The message.
        subscription_id: The subscription.
        event: The message's event name.
        state: Where it stands.
        attempt_count: Attempts recorded since it was made.
        attempts_before: Of those, how many belong to before its latest replay.
        due_at: When the next attempt may be made.
        created_at: When it was routed.
        finished_at: When it reached a final state.
        reason: Why it stands where it stands: a status, an error, a refusal.
        target: The subscription itself, where it isn't in the store (static, an event's, a
            plugin's).
        held: It is pending, and its subscription is paused.
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
        """The state as it is shown: `held` in place of `pending` while it is held."""
        return "held" if self.held else str(self.state)


@attrs.frozen(kw_only=True)
class Attempt:
    """One HTTP request made for a delivery, with what came back.

    Attributes:
        id: `att_` and 64 hexadecimal digits, made of the delivery's id and the time.
        delivery_id: The delivery.
        number: 1 for the first attempt of the delivery.
        at: When the request began.
        duration: Seconds until the response was read or the request failed.
        status: The response's status; None if there was none.
        headers: The response's headers, names in lower case.
        body: The first 8 KiB of the response's body.
        error: What went wrong where there was no response; None otherwise.
        timed_out: True if `error` is that the time was up.
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
        """True if the recipient answered 2xx."""
        return self.status is not None and 200 <= self.status < 300


@attrs.frozen(kw_only=True)
class Outcome:
    """What is to become of a delivery after an attempt, or instead of one: a decision.

    Attributes:
        state: The delivery's next state; `pending` means it is tried again at `due_at`.
        due_at: When to try again.
        reason: Why, in a few words.
        pause_until: Make no request to this subscription before then.
        disable: Disable the subscription, for this reason.
        disable_after: Disable it if all its attempts have failed for so long.
    """

    state: DeliveryState
    due_at: datetime | None = None
    reason: str | None = None
    pause_until: datetime | None = None
    disable: str | None = None
    disable_after: timedelta | None = None


@attrs.frozen(kw_only=True)
class Routing:
    """A message with deliveries of it that are to be kept: all, or a chunk of them.

    Attributes:
        message: The message.
        deliveries: Those to keep.
        complete: True if there are no more: the message is routed.
    """

    message: Message
    deliveries: Sequence[Delivery]
    complete: bool = True


@attrs.frozen(kw_only=True)
class Claim:
    """A delivery leased to a worker, with all that it needs to make the request.

    Attributes:
        delivery: The delivery, `in_flight`.
        message: Its message.
        subscription: Its subscription, or None if that has been removed.
        token: Identifies the lease.
    """

    delivery: Delivery
    message: Message
    subscription: Subscription | None
    token: str


@attrs.frozen(kw_only=True)
class Completion:
    """How a claim ended: what a store writes in one go.

    Attributes:
        claim: The claim.
        outcome: What becomes of the delivery.
        attempt: The attempt that was made, or None if none was.
        at: When it ended.
        internal: The attempt failed for a defect of this program, which says nothing about the
            recipient.
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
        url: Where it goes.
        headers: By name, in the order they are sent.
        body: What is sent.
        method: Always `POST`, unless a plugin changed it.
        connect_timeout: Seconds to open the connection, TLS included.
        validators: Recipient validators that every address connected to must pass.
        keepalive: False closes the connection after the response.
        response_limit: Bytes of the response's body to keep; the rest isn't read.
        owner: Owner of the subscription, in whose share of the look-ups its name is resolved; None
            is the operator.
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
    """What came back of a request.

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
    """What a store holds and has done.

    Attributes:
        subscriptions: How many there are.
        messages: How many there are.
        unrouted: Of those, how many wait to be routed.
        deliveries: How many, by state.
        due_since: When that became due, of all that waits for a worker, which waits the longest;
            None if nothing is due.
        attempts: Attempts counted in `window`.
        failed_attempts: Of those, how many got no 2xx.
        window: What the figures of attempts speak of.
        latency: Seconds by percentile (50, 95, 99) of those attempts that got a response.
        recipients: The same latency by subscription id, the busiest first, at most 20.
        unsent: Events that could not be sent, since a filter or payload failed: how many, by event
            name, in this process since it started. The log says why.
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
    """How deliveries to a subscription went in a stretch of time.

    Attributes:
        at: When it begins.
        deliveries: How many were made in it, by the state that they are in now; none is left out.
        latency: Seconds by percentile (50, 95, 99) of the attempts made in it that got a response;
            of those deliveries that were looked at.
    """

    at: datetime
    deliveries: Mapping[DeliveryState, int]
    latency: Mapping[int, float]
