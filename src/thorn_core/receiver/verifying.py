"""Verify webhooks and read their messages."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from thorn_core.codecs import DECODERS, Decoder, dump_json
from thorn_core.errors import (
    ConfigurationError,
    PayloadError,
    ReplayError,
    SignatureError,
    ThornError,
)
from thorn_core.patterns import MAX_LENGTH
from thorn_core.receiver.documents import Document, document_of
from thorn_core.receiver.headers import fields_of
from thorn_core.receiver.replays import ReplayGuard, Seen
from thorn_core.receiver.secrets import usable_secrets
from thorn_core.signatures import SCHEMES, SignatureScheme, StandardWebhooks, Verified
from thorn_core.values import Message

logger = logging.getLogger(__name__)

DEFAULT_SCHEME: SignatureScheme = StandardWebhooks()
BODY_LIMIT = 1024 * 1024
# Maximum length of an id, signed or not: the size of a database column. Event names have the same
# maximum as for senders.
ID_LENGTH = 255
# Maximum duration of tolerance and memory; a longer one has a wrong unit.
LONGEST = timedelta(days=36_525)
# Headers that fill in unsigned events and ids; a scheme's own headers come first.
OWN_HEADERS = {"github": ("x-github-event", "x-github-delivery")}
HEADERS = ("hook-event", "webhook-id")

# Control characters, which corrupt logs and terminals, and which databases refuse.
_CONTROL = re.compile("[\0-\x1f\x7f\ud800-\udfff]")

Headers = Mapping[str, Any] | Iterable[tuple[Any, Any]]


def verify(
    body: bytes,
    headers: Headers,
    secrets: str | Sequence[str],
    *,
    scheme: str | SignatureScheme = "standard-webhooks",
    tolerance: float | timedelta = 300.0,
    audience: str | None = None,
    decoders: Mapping[str, Decoder] | None = None,
    replay: ReplayGuard | None = None,
    limit: int = BODY_LIMIT,
    now: datetime | None = None,
) -> Message:
    """Verify a webhook and return its message; don't use its content before.

    The event name and the id are the signed ones if the scheme or the body's envelope has them.
    Headers that no signature covers (`Hook-Event`, `X-GitHub-Event`; `webhook-id` with a scheme
    that doesn't sign it) only fill in missing ones, because anyone on the way can change them.

    Args:
        body: The unchanged body, not decoded and encoded again.
        headers: The headers: a mapping or pairs, names in any case, strings or bytes.
        secrets: The secret, or several during a rotation; a public key for Ed25519.
        scheme: `standard-webhooks`, `standard-webhooks-ed25519`, `hook-hmac`, `github`, `stripe`,
            or a custom scheme.
        tolerance: Maximum difference of the signed time in seconds, either way.
        audience: Your URL, as the sender has it. Refuses webhooks signed for another URL; the
            sender's setting `sign_audience` adds it to the envelope.
        decoders: Decoders by content type, besides those for JSON and forms. `app.decoders` has
            those of an app's plugins.
        replay: Remembers webhooks, by the signed id if the scheme has one, otherwise by the body,
            because unsigned headers prove nothing.
        limit: Maximum size of the body in bytes.
        now: The time; None reads the clock.

    Returns:
        The message, with the event, id and payload that body and headers contain.

    Raises:
        SignatureError: No secret matches, the time is off, or the audience is another.
        ReplayError: The webhook is genuine, but a duplicate.
        SecretError: A secret is unusable; a SignatureError and a ConfigurationError.
        PayloadError: The body, the event name or the id is too long, or the body doesn't match its
            content type.
        ConfigurationError: The scheme is unknown, or a duration is invalid.

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
    verifier = Verifier(scheme=scheme, tolerance=tolerance, audience=audience, limit=limit)
    genuine = verifier.genuine(body, headers, secrets, decoders, now)
    if replay is not None:
        # A signed time is refused after the tolerance anyway; without one, remember for a day.
        span = 2 * verifier.tolerance if genuine.timed else timedelta(days=1)
        if replay.begin(genuine.key, now=now, until=now + span) is not Seen.NEW:
            raise ReplayError(f"the webhook {genuine.message.id} was already received")
        replay.finish(genuine.key, now=now, until=now + span)
    return genuine.message


@attrs.frozen
class Genuine:
    """A webhook with a valid signature.

    Attributes:
        message: Its message.
        key: The guard's key for it: the signed id, or a hash of the body.
        timed: Whether the scheme signs a time.
    """

    message: Message
    key: str
    timed: bool


def span_of(seconds: float | timedelta) -> timedelta:
    """Convert seconds to a timedelta.

    Raises:
        ConfigurationError: They are negative, not a number, or more than 100 years.
    """
    try:
        span = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
    except (TypeError, ValueError, OverflowError):
        span = None
    if span is None or not timedelta() <= span <= LONGEST:
        raise ConfigurationError(f"{seconds!r} is not a duration; use seconds, from 0 to 100 years")
    return span


def scheme_of(scheme: str | SignatureScheme) -> SignatureScheme:
    """Return the scheme with a name.

    Raises:
        ConfigurationError: It is unknown.
    """
    if not isinstance(scheme, str):
        return scheme
    if scheme not in SCHEMES:
        raise ConfigurationError(
            f"unknown signature scheme {scheme!r}; known schemes: {', '.join(sorted(SCHEMES))}"
        )
    return SCHEMES[scheme]


@attrs.frozen(kw_only=True)
class Verifier:
    """The arguments of `verify` that are the same for all requests."""

    scheme: SignatureScheme = attrs.field(default=DEFAULT_SCHEME, converter=scheme_of)
    tolerance: timedelta = attrs.field(default=timedelta(minutes=5), converter=span_of)
    audience: str | None = None
    limit: int = BODY_LIMIT

    def genuine(
        self,
        body: bytes,
        headers: Headers,
        secrets: str | Sequence[str],
        decoders: Mapping[str, Decoder] | None,
        now: datetime,
    ) -> Genuine:
        """Return a webhook if it is genuine; raises like `verify`."""
        if not isinstance(body, bytes | bytearray | memoryview):
            raise PayloadError(f"the body is a {type(body).__name__}; pass the raw bytes")
        if len(body) > self.limit:
            raise PayloadError(f"the body has {len(body)} bytes; at most {self.limit} are allowed")
        body = bytes(body)
        keys = usable_secrets(secrets, self.scheme)
        fields = fields_of(headers)
        verified = self._verified(fields, body, keys, now)
        digest = hashlib.sha256(body).hexdigest()
        known = DECODERS if decoders is None else {**DECODERS, **decoders}
        document = document_of(body, fields.get("content-type", ""), known)
        self._check_audience(document)
        return Genuine(
            message=_message(document, fields, verified, self.scheme.name, digest, now),
            key=f"{self.scheme.name}:{verified.id or digest}",
            timed=verified.at is not None,
        )

    def _verified(
        self, fields: Mapping[str, str], body: bytes, keys: Sequence[str], now: datetime
    ) -> Verified:
        try:
            return self.scheme.verify(fields, body, keys, now=now, tolerance=self.tolerance)
        except ThornError:
            raise
        except Exception as error:
            logger.exception("the signature scheme %r failed", self.scheme.name)
            raise SignatureError(
                f"the signature scheme {self.scheme.name} failed; see the log"
            ) from error

    def _check_audience(self, document: Document) -> None:
        if self.audience is None or document.audience == self.audience:
            return
        if document.audience is None:
            raise SignatureError(
                "the body has no audience; the sender's setting sign_audience adds it to every"
                " envelope except bare"
            )
        raise SignatureError(
            f"it is signed for {document.audience[:ID_LENGTH]!r}, not for {self.audience!r}"
        )


def _message(
    document: Document,
    fields: Mapping[str, str],
    verified: Verified,
    scheme: str,
    digest: str,
    now: datetime,
) -> Message:
    # Signed values first; headers fill in missing ones.
    event_header, id_header = OWN_HEADERS.get(scheme, HEADERS)
    event = (
        document.event
        or _fill(fields, event_header, MAX_LENGTH)
        or _fill(fields, "hook-event", MAX_LENGTH)
        or "unknown"
    )
    identity = (
        verified.id
        or document.id
        or _fill(fields, id_header, ID_LENGTH)
        or _fill(fields, "webhook-id", ID_LENGTH)
        or digest
    )
    for text, what, most in ((event, "event's name", MAX_LENGTH), (identity, "id", ID_LENGTH)):
        if len(text) > most:
            raise PayloadError(f"the {what} has {len(text)} characters; at most {most} are allowed")
    if any(
        _CONTROL.search(text or "") for text in (event, identity, document.sender, document.ref)
    ):
        raise PayloadError("the event, id, sender or ref in the body contains a control character")
    return Message(
        id=identity,
        event=event,
        data=dump_json(document.data),
        at=verified.at or now,
        sender=document.sender,
        ref=document.ref,
    )


def _fill(fields: Mapping[str, str], name: str, most: int) -> str | None:
    """Return the value of a header, if it is a valid name or id."""
    value = fields.get(name, "").strip()
    return value if value.isprintable() and len(value) <= most else None
