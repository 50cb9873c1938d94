"""Encode, build and sign the request of an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from thorn_core.codecs import Codec, media_type
from thorn_core.delivery.envelopes import envelope_of
from thorn_core.delivery.headers import merge_headers
from thorn_core.errors import PayloadError
from thorn_core.settings import Settings
from thorn_core.signatures import Signable, SignatureScheme, sign_all
from thorn_core.values import Delivery, Message, Request, Subscription


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
        content_type: The subscription's content type, which chooses the codec.
        settings: The app's settings.
        codecs: Codecs by content type.
        audience: The recipient's URL, included in the envelope; None omits it.

    Raises:
        PayloadError: There is no codec for the content type, or it can't encode the payload.
    """
    codec = codecs.get(content_type)
    if codec is None:
        raise PayloadError(
            f"no codec for content type {content_type!r}; available: {', '.join(sorted(codecs))}"
        )
    kind, source = message.envelope or settings.envelope, settings.event_source
    return codec(envelope_of(message, kind, source=source, audience=audience))


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
    """Build the request of an attempt, without the time and the signatures.

    Args:
        message: The message.
        delivery: The delivery.
        subscription: The subscription.
        body: The encoded body.
        settings: The app's settings.
        validators: Recipient validators that the connection must pass.
        keepalive: False closes the connection afterwards.
    """
    own = {
        "Content-Type": media_type(
            subscription.content_type, message.envelope or settings.envelope
        ),
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
    """Add id, time and signatures (Standard Webhooks 1.0) to an otherwise complete request.

    Args:
        request: The request, after plugins have changed it.
        message: Its id becomes `webhook-id`.
        subscription: The subscription, whose secrets sign.
        schemes: The signature schemes.
        at: The time of the attempt.
        required: With schemes, a subscription without secrets is an error, too.

    Raises:
        ConfigurationError: A scheme can't sign with any valid secret; the request must not be
            sent.
    """
    timestamp = int(at.timestamp())
    signed = {"webhook-id": message.id, "webhook-timestamp": str(timestamp)}
    if subscription.secrets or required:
        secrets = subscription.signing_secrets(at)
        signable = Signable(
            id=message.id, timestamp=timestamp, body=request.body, digest=subscription.hmac_digest
        )
        signed |= sign_all(schemes, signable, secrets)
    # attrs.evolve would cost more than the rest of this function.
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
