"""Verifying: whether a webhook is genuine, and what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import attrs

from thorn_core.codecs import dump_json
from thorn_core.errors import ConfigurationError, PayloadError, ReplayError
from thorn_core.receiver.replays import ReplayGuard, Seen
from thorn_core.signatures import SCHEMES, SignatureScheme, Verified
from thorn_core.values import Message

BODY_LIMIT = 1024 * 1024


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    scheme: str | SignatureScheme = "standard-webhooks",
    tolerance: float | timedelta = 300.0,
    replay: ReplayGuard | None = None,
    limit: int = BODY_LIMIT,
    now: datetime | None = None,
) -> Message:
    """Verify a webhook and give back its message. Read nothing of it before.

    Args:
        body: As it came, not decoded and encoded again.
        headers: As they came, whatever their case.
        secrets: The secret, or several during a rotation; a public key for Ed25519.
        scheme: `standard-webhooks`, `standard-webhooks-ed25519`, `hook-hmac`, `github`, `stripe`,
            or a scheme of one's own.
        tolerance: Seconds that the signed time may be off, either way.
        replay: Remembers what has been here. By the scheme's signed id where it has one, else by
            the body, as an unsigned header proves nothing.
        limit: Bytes of the body at most.
        now: The time; None reads the clock.

    Returns:
        The message: its event, id and payload as far as body and headers tell.

    Raises:
        SignatureError: No secret signed this, or not lately.
        ReplayError: It is genuine, and has been here before.
        PayloadError: The body is too large, or not what its content type says.
        ConfigurationError: There is no such scheme, or no secret.

    Example:
        >>> from thorn_core.signatures import SCHEMES, Signable, new_secret
        >>> secret, now = new_secret(), datetime(2026, 3, 1, tzinfo=UTC)
        >>> body = b'{"event":"article.created","data":{"n":1}}'
        >>> signable = Signable(id="msg_1", timestamp=int(now.timestamp()), body=body)
        >>> headers = {"webhook-id": "msg_1", "webhook-timestamp": str(signable.timestamp),
        ...     **SCHEMES["standard-webhooks"].sign(signable, [secret])}
        >>> message = verify(body, headers, secret, now=now)
        >>> message.event, message.id, message.payload
        ('article.created', 'msg_1', {'n': 1})
    """
    now = now or datetime.now(UTC)
    span = span_of(tolerance)
    genuine = genuine_of(body, headers, secrets, scheme, span, limit, now)
    if replay is not None:
        # A signed time is refused by itself after the tolerance; without one, a day is remembered.
        until = now + (2 * span if genuine.verified.at is not None else timedelta(days=1))
        if replay.begin(genuine.key, now=now, until=until) is not Seen.NEW:
            raise ReplayError(f"the webhook {genuine.id} has been here before")
        replay.finish(genuine.key, now=now, until=until)
    return genuine.message(now)


@attrs.frozen
class Genuine:
    """A webhook whose signature is good.

    Attributes:
        scheme: Name of the scheme.
        id: What it is recognised by: the signed id, or a hash of the body.
    """

    body: bytes
    headers: Mapping[str, str]
    verified: Verified
    scheme: str
    id: str

    @property
    def key(self) -> str:
        """By which a guard knows it."""
        return f"{self.scheme}:{self.id}"

    def message(self, now: datetime) -> Message:
        """What it says."""
        return _message(self.body, self.headers, self.verified, now)


def genuine_of(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    scheme: str | SignatureScheme,
    tolerance: timedelta,
    limit: int,
    now: datetime,
) -> Genuine:
    """A webhook, if it is genuine; as `verify`."""
    if len(body) > limit:
        raise PayloadError(f"the body has {len(body)} bytes; at most {limit} are allowed")
    chosen = _scheme(scheme)
    keys = [secrets] if isinstance(secrets, str) else list(secrets)
    if not any(keys):
        raise ConfigurationError("there is no secret to verify with")
    lowered = {name.lower(): value for name, value in headers.items()}
    verified = chosen.verify(lowered, body, keys, now=now, tolerance=tolerance)
    identity = verified.id or hashlib.sha256(body).hexdigest()
    return Genuine(body, lowered, verified, chosen.name, identity)


def span_of(seconds: float | timedelta) -> timedelta:
    """Seconds, as a span of time."""
    return seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)


def _scheme(scheme: str | SignatureScheme) -> SignatureScheme:
    if not isinstance(scheme, str):
        return scheme
    if scheme not in SCHEMES:
        raise ConfigurationError(
            f"there is no signature scheme {scheme!r}; known are {', '.join(sorted(SCHEMES))}"
        )
    return SCHEMES[scheme]


@attrs.frozen
class _Told:
    """What a body says."""

    event: str | None
    data: Any
    sender: str | None = None
    ref: str | None = None
    id: str | None = None


def _message(body: bytes, headers: Mapping[str, str], verified: Verified, now: datetime) -> Message:
    told = _told(_decoded(body, headers.get("content-type", "application/json")))
    event = headers.get("hook-event") or told.event or headers.get("x-github-event") or "unknown"
    identity = (
        verified.id
        or headers.get("webhook-id")
        or told.id
        or headers.get("x-github-delivery")
        or hashlib.sha256(body).hexdigest()
    )
    return Message(
        id=identity,
        event=event,
        data=dump_json(told.data),
        at=verified.at or now,
        sender=told.sender,
        ref=told.ref,
    )


def _decoded(body: bytes, content_type: str) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/x-www-form-urlencoded":
            pairs = parse_qsl(
                body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=10_000
            )
            return dict(pairs)
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the body isn't the {kind} that it says it is: {error}") from error


def _told(document: Any) -> _Told:
    """Recognise Thorn's envelopes, CloudEvents, Standard Webhooks; else take the whole."""
    if not isinstance(document, dict):
        return _Told(None, document)
    text = {k: v for k, v in document.items() if isinstance(v, str)}
    if "specversion" in document:
        return _Told(
            text.get("type"), document.get("data"), ref=text.get("subject"), id=text.get("id")
        )
    if "event" in text and "data" in document:
        return _Told(text["event"], document["data"], text.get("sender"), text.get("ref"))
    if "event" in text and any(key.startswith("data[") for key in document):
        data = {k: v for k, v in document.items() if k.startswith("data[")}
        return _Told(text["event"], data, text.get("sender"), text.get("ref"))
    if "type" in text and "timestamp" in document and "data" in document:
        return _Told(text["type"], document["data"])
    return _Told(text.get("type"), document, id=text.get("id"))
