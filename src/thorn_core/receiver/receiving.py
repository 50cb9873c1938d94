"""Receiving: handling of requests for the adapters of web frameworks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import attrs

from thorn_core.codecs import Decoder, dump_json
from thorn_core.errors import PayloadError, SecretError, SignatureError
from thorn_core.receiver.replays import ReplayGuard, Seen
from thorn_core.receiver.verifying import (
    BODY_LIMIT,
    DEFAULT_SCHEME,
    Headers,
    Verifier,
    scheme_of,
    span_of,
)
from thorn_core.signatures import SignatureScheme
from thorn_core.values import EMPTY, Message

logger = logging.getLogger(__name__)

# Senders time out after 15 to 30 s; after this time, a handler is considered dead.
LEASE = timedelta(minutes=5)


@attrs.frozen(kw_only=True)
class Answer:
    """The response to a webhook that should not be handled.

    Attributes:
        status: The status code.
        headers: By name.
        body: A problem (RFC 9457), or empty.
    """

    status: int
    headers: Mapping[str, str] = EMPTY
    body: bytes = b""


@attrs.frozen(kw_only=True)
class Arrival:
    """A webhook to handle and then `settle`.

    Attributes:
        message: Its message.
        key: The guard's key for it.
    """

    message: Message
    key: str


@attrs.frozen(kw_only=True)
class Receiver:
    """Receives webhooks: lets genuine ones be handled once, and answers all others.

    The reason for refusing a request is logged, but not part of the response.

    Attributes:
        guard: Remembers handled webhooks.
        scheme: The signature scheme; see `verify`.
        tolerance: Maximum difference of the signed time in seconds, either way.
        remember: Seconds that a handled webhook is remembered; duplicates and replays get 200
            meanwhile and aren't handled again. 0 remembers nothing.
        limit: Maximum size of the body in bytes.
        audience: Your URL, as the sender has it; see `verify`.

    Raises:
        ConfigurationError: The scheme is unknown, or a duration is invalid.

    Example:
        >>> from thorn_core.receiver import MemoryReplayGuard
        >>> receiver = Receiver(guard=MemoryReplayGuard())
        >>> receiver.take(b"{}", {}, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").status
        401
    """

    guard: ReplayGuard
    scheme: SignatureScheme = attrs.field(default=DEFAULT_SCHEME, converter=scheme_of)
    tolerance: timedelta = attrs.field(default=timedelta(minutes=5), converter=span_of)
    remember: timedelta = attrs.field(default=timedelta(days=1), converter=span_of)
    limit: int = BODY_LIMIT
    audience: str | None = None
    _verifier: Verifier = attrs.field(init=False, repr=False)

    @_verifier.default
    def _make_verifier(self) -> Verifier:
        return Verifier(
            scheme=self.scheme,
            tolerance=self.tolerance,
            audience=self.audience,
            limit=self.limit,
        )

    def take(
        self,
        body: bytes,
        headers: Headers,
        secrets: str | Sequence[str],
        *,
        endpoint: str = "",
        decoders: Mapping[str, Decoder] | None = None,
        now: datetime | None = None,
    ) -> Arrival | Answer:
        """Take a request; return a webhook to handle and `settle`, or the response to send.

        Args:
            body: The unchanged body; if longer than `limit`, at least one byte more than that.
            headers: The headers: a mapping or pairs, names in any case, strings or bytes.
            secrets: The secret, or several during a rotation.
            endpoint: The path of the request; a webhook is handled once at each endpoint.
            decoders: More decoders, by content type; see `verify`.
            now: The time; None reads the clock.

        Raises:
            SecretError: A secret can't be used.
        """
        now = now or datetime.now(UTC)
        if len(body) > self.limit:
            return refusal(413, endpoint, f"it has more than {self.limit} bytes")
        try:
            genuine = self._verifier.genuine(body, headers, secrets, decoders, now)
        except SecretError:
            raise  # our error; blaming the sender would hide it
        except SignatureError as error:
            return refusal(401, endpoint, str(error))
        except PayloadError as error:
            return refusal(400, endpoint, str(error))
        key = f"{endpoint}:{genuine.key}"
        seen = self.guard.begin(key, now=now, until=now + LEASE)
        if seen is Seen.HANDLED:
            return Answer(status=200)
        if seen is Seen.UNDER_WAY:
            return refusal(409, endpoint, f"{genuine.message.id} is being handled")
        return Arrival(message=genuine.message, key=key)

    def settle(self, arrival: Arrival, *, handled: bool, now: datetime | None = None) -> None:
        """Record whether a webhook was handled; if not, the next duplicate is accepted.

        Errors of the guard are logged: a handled webhook stays handled.

        Args:
            arrival: The webhook.
            handled: Whether it was.
            now: The time; None reads the clock.
        """
        now = now or datetime.now(UTC)
        try:
            if handled and self.remember:
                self.guard.finish(arrival.key, now=now, until=now + self.remember)
            else:
                self.guard.forget(arrival.key)
        except Exception:
            logger.exception(
                "the result of the webhook %r could not be recorded", arrival.message.id
            )


TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
}
# Seconds after which another process has usually finished.
RETRY_AFTER = "30"


def refusal(status: int, endpoint: str, reason: str) -> Answer:
    """Log why a request is refused, and return a response without the reason.

    Args:
        status: 400, 401, 405, 409 or 413.
        endpoint: The path of the request.
        reason: The reason.

    Example:
        >>> refusal(401, "/hook", "no secret signed it").body
        b'{"title":"Unauthorized","status":401}'
    """
    logger.warning("a webhook to %r is refused: %r", endpoint, reason)
    headers = {"Content-Type": "application/problem+json"}
    if status == 409:
        headers["Retry-After"] = RETRY_AFTER
    if status == 405:
        headers["Allow"] = "POST"
    body = dump_json({"title": TITLES[status], "status": status})
    return Answer(status=status, headers=headers, body=body)
