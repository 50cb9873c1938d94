"""What a delivery needs decided, purely: its request, its outcome, its next attempt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

import attrs

from thorn_core.codecs import Codec, dump_json, envelope_of, media_type
from thorn_core.errors import ConfigurationError, PayloadError
from thorn_core.recipients import parse_url, recipient_of
from thorn_core.recipients.urls import without_secrets
from thorn_core.retries import RetryPolicy
from thorn_core.settings import Settings
from thorn_core.signatures import Signable, SignatureScheme, sign_all
from thorn_core.values import (
    OPERATOR,
    Attempt,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Request,
    Response,
    Subscription,
    delivery_id,
    new_id,
)

# Thorn sets these itself; RFC 9110 section 7.6.1 names the hop-by-hop ones.
PROTECTED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "hook-delivery",
        "hook-event",
        "hook-hmac",
        "hook-subscription",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
HEADER_COUNT = 50
HEADER_LENGTH = 4096  # servers commonly refuse a line of more than 8 KiB
RETRY_AFTER_STATUSES = frozenset({429, 502, 503, 504})
# In place of host and port, where a URL has none.
UNKNOWN_RECIPIENT = "unknown"
REDIRECT_STATUSES = frozenset({301, 302, 307, 308})
REDIRECT_LIMIT = 5
# What goes on to another origin. `webhook-signature` does, since the recipient's new host could not
# tell the request from a forgery without it: it covers id, time and body, so it is good for this
# message alone and for minutes. Signatures of other schemes don't: some cover the body only, and a
# plugin's may be a token.
HEADERS_ACROSS_ORIGINS = frozenset(
    {
        "content-type",
        "hook-delivery",
        "hook-event",
        "hook-subscription",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)

# RFC 9110 section 5.6.2 (token) and 5.5 (field value, in ASCII).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check the extra headers of an event or a subscription.

    Args:
        headers: Names to values.

    Raises:
        ConfigurationError: They are no mapping, or too many; a header is one that Thorn sets or
            HTTP forbids, or isn't one by RFC 9110 section 5 (as with CR, LF or NUL in it).

    Example:
        >>> check_headers({"Authorization": "Bearer abc"})
        {'Authorization': 'Bearer abc'}
        >>> check_headers({"Host": "intranet"})
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: header 'Host' is set by Thorn or by HTTP; remove it
    """
    if not isinstance(headers, Mapping):
        raise ConfigurationError(
            f"headers is a {type(headers).__name__}; use a mapping of name to value"
        )
    if len(headers) > HEADER_COUNT:
        raise ConfigurationError(f"{len(headers)} headers; at most {HEADER_COUNT} are allowed")
    checked: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(
                f"header name {name!r} is not valid; use letters, digits and hyphens"
            )
        if name.lower() in PROTECTED_HEADERS:
            raise ConfigurationError(f"header {name!r} is set by Thorn or by HTTP; remove it")
        if name.lower() in seen:
            raise ConfigurationError(f"header {name!r} is given twice; give it once")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            # The value may be a credential, so it isn't shown.
            raise ConfigurationError(
                f"the value of header {name!r} contains characters other than printable ASCII (a"
                f" line break?); remove or encode them"
            )
        if len(value) > HEADER_LENGTH:
            raise ConfigurationError(
                f"the value of header {name!r} has {len(value)} characters;"
                f" at most {HEADER_LENGTH} are allowed"
            )
        seen.add(name.lower())
        checked[name] = value.strip(" \t")
    return checked


def merge_headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Merge headers; a later layer wins, and names are compared without case (RFC 9110 5.1).

    Everything that adds headers to a request goes through here, so that each goes out once.

    Args:
        *layers: Names to values: the event's, the send's, the subscription's, Thorn's own.

    Example:
        >>> merge_headers({"X-Tenant": "1", "X-Source": "blog"}, {"x-tenant": "2"})
        {'x-tenant': '2', 'X-Source': 'blog'}
    """
    merged: dict[str, tuple[str, str]] = {}
    for layer in layers:
        for name, value in layer.items():
            merged[name.lower()] = (name, value)
    return dict(merged.values())


def make_delivery(message: Message, subscription: Subscription, at: datetime) -> Delivery:
    """Make the delivery of a message to a stored subscription, due since the message was sent.

    Args:
        message: The message.
        subscription: Whom it goes to.
        at: The time of routing.
    """
    return Delivery(
        id=delivery_id(message.id, subscription.id),
        message_id=message.id,
        subscription_id=subscription.id,
        event=message.event,
        recipient=recipient_of(subscription.url),
        due_at=min(message.at, at),
        created_at=at,
    )


def make_unstored_delivery(message: Message, subscription: Subscription, at: datetime) -> Delivery:
    """Make the delivery to a subscription that isn't in the store; it carries it along."""
    return attrs.evolve(make_delivery(message, subscription, at), target=subscription)


def make_cancelled_delivery(
    message: Message, subscription: Subscription, reason: str, at: datetime, *, stored: bool
) -> Delivery:
    """Make the delivery to a recipient that no request can be made to; it is over already.

    Args:
        message: The message.
        subscription: What is known of the recipient.
        reason: Why, in words that the subscription's owner may read.
        at: The time of routing.
        stored: Whether the subscription is in the store; else the delivery carries it along.
    """
    return Delivery(
        id=delivery_id(message.id, subscription.id),
        message_id=message.id,
        subscription_id=subscription.id,
        event=message.event,
        recipient=UNKNOWN_RECIPIENT,
        state=DeliveryState.DISCARDED,
        due_at=min(message.at, at),
        created_at=at,
        settled_at=at,
        reason=reason,
        target=None if stored else subscription,
    )


def encode_body(
    message: Message,
    content_type: str,
    settings: Settings,
    codecs: Mapping[str, Codec],
    *,
    audience: str | None = None,
) -> bytes:
    """Wrap a message's payload in the envelope and encode it.

    Args:
        message: The message.
        content_type: Chooses the codec.
        settings: The app's.
        codecs: By content type.
        audience: The URL that goes into the envelope; None leaves it out.

    Raises:
        PayloadError: There is no codec for the content type, or it can't encode this.
    """
    codec = codecs.get(content_type)
    if codec is None:
        raise PayloadError(
            f"no codec for content type {content_type!r}; known are {', '.join(sorted(codecs))}"
        )
    source = settings.event_source
    return codec(envelope_of(message, settings.envelope, source=source, audience=audience))


def build_request(
    message: Message,
    delivery: Delivery,
    subscription: Subscription,
    *,
    body: bytes,
    settings: Settings,
    validators: Sequence[Any],
    keepalive: bool = True,
) -> Request:
    """Build the request of an attempt, complete but for the time and the signatures.

    Args:
        message: The message.
        delivery: The delivery.
        subscription: Whom it goes to.
        body: The encoded body.
        settings: The app's.
        validators: Recipient validators that the connection must pass.
        keepalive: False closes the connection afterwards.
    """
    own = {
        "Content-Type": media_type(subscription.content_type, settings.envelope),
        "User-Agent": settings.user_agent,
        "Hook-Event": message.event,
        "Hook-Delivery": delivery.id,
        "Hook-Subscription": subscription.id,
    }
    headers = merge_headers(message.headers, subscription.headers, own)
    return Request(
        url=subscription.url,
        headers=headers,
        body=body,
        connect_timeout=settings.connect_timeout,
        validators=tuple(validators),
        keepalive=keepalive,
        response_limit=settings.response_limit,
        owner=subscription.owner,
    )


def sign_request(
    request: Request,
    message: Message,
    subscription: Subscription,
    schemes: Sequence[SignatureScheme],
    at: datetime,
    *,
    required: bool = False,
) -> Request:
    """Add id, time and signatures (Standard Webhooks 1.0) to a request that is otherwise ready.

    Args:
        request: The request, after plugins had their say.
        message: Its id becomes `webhook-id`.
        subscription: Whose secrets sign.
        schemes: How to sign.
        at: The time of the attempt.
        required: A subscription without secrets is an error, too, if there are schemes.

    Raises:
        ConfigurationError: A scheme can't sign with any secret that is valid now. The request must
            not be sent.
    """
    timestamp = int(at.timestamp())
    signed = {"webhook-id": message.id, "webhook-timestamp": str(timestamp)}
    if subscription.secrets or required:
        secrets = subscription.signing_secrets(at)
        signable = Signable(
            id=message.id, timestamp=timestamp, body=request.body, digest=subscription.hmac_digest
        )
        signed |= sign_all(schemes, signable, secrets)
    # Spelled out, for attrs.evolve costs more than the rest of this function.
    return Request(
        url=request.url,
        headers=merge_headers(request.headers, signed),
        body=request.body,
        method=request.method,
        connect_timeout=request.connect_timeout,
        validators=request.validators,
        keepalive=request.keepalive,
        response_limit=request.response_limit,
        owner=request.owner,
    )


def follow_redirect(request: Request, response: Response) -> Request | None:
    """Build the request that a redirect asks for, with the method and body kept.

    At an origin's border only harmless headers go on (see `HEADERS_ACROSS_ORIGINS`); any other may
    be a credential, whatever its name. A 303 asks for a GET, which would lose the payload, so it
    isn't followed (RFC 9110 section 15.4.4).

    Args:
        request: The request that was made.
        response: What came back.

    Returns:
        The next request, whose URL isn't validated yet; None if there is none to make.
    """
    location = response.headers.get("location")
    if response.status not in REDIRECT_STATUSES or not location:
        return None
    try:
        here, url = parse_url(request.url), urljoin(request.url, location)
        there = parse_url(url)
    except ValueError:  # of urljoin, and SecurityError
        return None
    headers = request.headers
    if (here.scheme, here.recipient) != (there.scheme, there.recipient):
        headers = {
            name: value for name, value in headers.items() if name.lower() in HEADERS_ACROSS_ORIGINS
        }
    return attrs.evolve(request, url=url, headers=headers)


def judge(
    attempt: Attempt,
    delivery: Delivery,
    *,
    policy: RetryPolicy,
    settings: Settings,
    at: datetime,
    random: float,
) -> Outcome:
    """Decide what becomes of a delivery after an attempt. Never raises, whatever came back.

    Args:
        attempt: What was done and what came back.
        delivery: As it was before the attempt.
        policy: When to try again.
        settings: The app's.
        at: When the attempt ended.
        random: 0 to 1, for the jitter.

    Example:
        >>> now = datetime(2026, 1, 1, tzinfo=UTC)
        >>> attempt = Attempt(
        ...     id="att_1", delivery_id="dlv_1", number=1, at=now, duration=0.1, status=503,
        ...     headers={"retry-after": "60"})
        >>> delivery = Delivery(
        ...     id="dlv_1", message_id="msg_1", subscription_id="sub_1", event="a", due_at=now,
        ...     recipient="e.com:443", created_at=now)
        >>> outcome = judge(attempt, delivery, policy=RetryPolicy((5,)),
        ...     settings=Settings(), at=now, random=0.5)
        >>> str(outcome.state), (outcome.due_at - now).total_seconds()
        ('pending', 60.0)
    """
    if attempt.ok:
        return DELIVERED
    reason = attempt.error or f"status {attempt.status}"
    if attempt.status == 410:
        return Outcome(
            state=DeliveryState.DISCARDED,
            reason="status 410: the recipient is gone",
            disable="the recipient answered 410 Gone",
        )
    after = settings.disable_after
    disable_after = None if after is None else timedelta(seconds=after)
    pause_until = _pause(attempt, settings, at)
    failures = delivery.attempt_count + 1 - delivery.attempts_before
    delay = policy.delay(max(1, failures), random=random)
    if delay is None:
        return Outcome(
            state=DeliveryState.EXHAUSTED,
            reason=reason,
            pause_until=pause_until,
            disable_after=disable_after,
        )
    due_at = at + delay
    return Outcome(
        state=DeliveryState.PENDING,
        due_at=max(due_at, pause_until) if pause_until else due_at,
        reason=reason,
        pause_until=pause_until,
        disable_after=disable_after,
    )


DELIVERED = Outcome(state=DeliveryState.DELIVERED)


def _pause(attempt: Attempt, settings: Settings, at: datetime) -> datetime | None:
    if attempt.status not in RETRY_AFTER_STATUSES:
        return None
    wait = retry_after(attempt.headers.get("retry-after"), at)
    if not wait:
        return None
    return at + min(wait, timedelta(seconds=settings.retry_after_max))


def disabled_message(subscription: Subscription, at: datetime) -> Message:
    """The operational event that says that a subscription was disabled."""
    data = {"reason": subscription.disabled_reason}
    return _operational_message("thorn.subscription.disabled", subscription, data, at)


def failing_message(subscription: Subscription, disabled_at: datetime, at: datetime) -> Message:
    """The operational event that warns that a subscription will be disabled.

    Args:
        subscription: The failing one.
        disabled_at: When it will be disabled unless an attempt succeeds.
        at: The time.
    """
    data = {
        "failing_since": subscription.failing_since,
        "failures": subscription.failures,
        "disabled_at": disabled_at,
    }
    return _operational_message("thorn.subscription.failing", subscription, data, at)


def _operational_message(
    event: str, subscription: Subscription, data: Mapping[str, Any], at: datetime
) -> Message:
    """An event about a subscription, for its owner's other subscriptions that match it.

    That of an operator's subscription reaches operators' only.
    """
    # It goes to other URLs than this, which aren't to learn what is secret in it.
    url = without_secrets(subscription.url)
    about = {"id": subscription.id, "url": url, "events": subscription.events}
    return Message(
        id=new_id("msg", at),
        event=event,
        data=dump_json({**about, **data}),
        at=at,
        sender=OPERATOR if subscription.owner is None else subscription.owner,
    )


def retry_after(value: object, at: datetime) -> timedelta | None:
    """Read a `Retry-After` header: seconds or a date (RFC 9110 section 10.2.3).

    Args:
        value: The header, whatever the recipient sent; None if there was none.
        at: The time that a date is counted from.

    Returns:
        How long to wait, from 0 to 999,999,999 seconds; None for a text that is neither seconds
        nor a date.

    Example:
        >>> retry_after("120", datetime(2026, 1, 1, tzinfo=UTC))
        datetime.timedelta(seconds=120)
        >>> retry_after("Thu, 01 Jan 2026 00:01:00 GMT", datetime(2026, 1, 1, tzinfo=UTC))
        datetime.timedelta(seconds=60)
        >>> retry_after("soon", datetime(2026, 1, 1, tzinfo=UTC))
    """
    if not isinstance(value, str) or not value.isascii():
        return None
    value = value.strip(" \t")
    if value.isdigit():
        digits = value.lstrip("0") or "0"
        return timedelta(seconds=int(digits)) if len(digits) < 10 else _LONGEST_WAIT
    if len(value) > _LONGEST_DATE:
        return None
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return min(max(date - at, timedelta()), _LONGEST_WAIT)
    except Exception:
        # The parser raises ValueError, TypeError, OverflowError and more, by Python's version.
        return None


_LONGEST_WAIT = timedelta(seconds=999_999_999)
_LONGEST_DATE = 64  # RFC 850's is the longest form, with 33 characters
