"""The other end: verify a webhook that arrives, by any signature scheme, and handle it once."""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Protocol
from urllib.parse import parse_qsl

import attrs

from thorn_core.codecs import dump_json
from thorn_core.errors import ConfigurationError, PayloadError, ReplayError, SignatureError
from thorn_core.signatures import SCHEMES, SignatureScheme, Verified
from thorn_core.values import EMPTY, Message

logger = logging.getLogger(__name__)

BODY_LIMIT = 1024 * 1024
# Senders give up after 15 to 30 s; who takes this long has died, and a retry may begin anew.
LEASE = timedelta(minutes=5)


class Seen(Enum):
    """Whether a webhook has been here."""

    NEW = "new"
    UNDER_WAY = "under way"
    HANDLED = "handled"


class ReplayGuard(Protocol):
    """Remembers which webhooks have been here; what several processes share makes them one.

    A webhook is begun, and then either finished, or forgotten so that a retry may begin it again.
    """

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Note that a webhook is under way, if it is new; say whether it was.

        Of several that begin the same at once, one is told that it is new.

        Args:
            key: Identifies a webhook.
            now: The time.
            until: When it may be begun again, if it is neither finished nor forgotten.
        """
        ...

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Note that a webhook has been handled.

        Args:
            key: Identifies a webhook.
            now: The time.
            until: When that may be forgotten.
        """
        ...

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        ...


class MemoryReplayGuard:
    """A ReplayGuard for one process.

    Args:
        limit: Keys to remember; of more, those that may be forgotten soonest are.
    """

    def __init__(self, *, limit: int = 100_000) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._known: dict[str, tuple[datetime, Seen]] = {}
        self._by_time: list[tuple[datetime, str]] = []

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Note that a webhook is under way, if it is new; say whether it was."""
        with self._lock:
            while self._by_time and self._by_time[0][0] <= now:
                self._drop_first()
            if key in self._known:
                return self._known[key][1]
            self._note(key, until, Seen.UNDER_WAY)
            return Seen.NEW

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Note that a webhook has been handled."""
        with self._lock:
            self._note(key, until, Seen.HANDLED)

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        with self._lock:
            self._known.pop(key, None)

    def _note(self, key: str, until: datetime, seen: Seen) -> None:
        self._known[key] = until, seen
        heapq.heappush(self._by_time, (until, key))
        # Counting too what has been noted anew or forgotten since.
        while len(self._by_time) > self._limit:
            self._drop_first()

    def _drop_first(self) -> None:
        until, key = heapq.heappop(self._by_time)
        if key in self._known and self._known[key][0] == until:
            del self._known[key]


class Cache(Protocol):
    """What a CacheReplayGuard needs of a cache: those of Django and of Flask-Caching have it."""

    def add(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for some seconds unless there is one; truthy if it was kept."""
        ...

    def get(self, key: str) -> Any:
        """The value that is kept, or None."""
        ...

    def set(self, key: str, value: str, timeout: int) -> Any:
        """Keep a value for some seconds."""
        ...

    def delete(self, key: str) -> Any:
        """Keep it no longer."""
        ...


class CacheReplayGuard:
    """A ReplayGuard in a cache, for all processes that share it.

    Its `add` lets one of several in that begin the same at once. A cache that drops entries forgets
    early.

    Args:
        cache: The cache.
        prefix: What its keys begin with.
    """

    def __init__(self, cache: Cache, *, prefix: str = "thorn.webhook.") -> None:
        self._cache = cache
        self._prefix = prefix

    def begin(self, key: str, *, now: datetime, until: datetime) -> Seen:
        """Note that a webhook is under way, if it is new; say whether it was."""
        name = self._name(key)
        if self._cache.add(name, Seen.UNDER_WAY.value, timeout=_whole_seconds(now, until)):
            return Seen.NEW
        # What has gone meanwhile may be begun when it comes again.
        handled = self._cache.get(name) == Seen.HANDLED.value
        return Seen.HANDLED if handled else Seen.UNDER_WAY

    def finish(self, key: str, *, now: datetime, until: datetime) -> None:
        """Note that a webhook has been handled."""
        seconds = _whole_seconds(now, until)
        self._cache.set(self._name(key), Seen.HANDLED.value, timeout=seconds)

    def forget(self, key: str) -> None:
        """Forget a webhook that could not be handled."""
        self._cache.delete(self._name(key))

    def _name(self, key: str) -> str:
        """A name that every cache takes, whatever is in an id."""
        return self._prefix + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _whole_seconds(now: datetime, until: datetime) -> int:
    return math.ceil((until - now).total_seconds())


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
    span = _span(tolerance)
    genuine = _genuine(body, headers, secrets, scheme, span, limit, now)
    if replay is not None:
        # A signed time is refused by itself after the tolerance; without one, a day is remembered.
        until = now + (2 * span if genuine.verified.at is not None else timedelta(days=1))
        if replay.begin(genuine.key, now=now, until=until) is not Seen.NEW:
            raise ReplayError(f"the webhook {genuine.id} has been here before")
        replay.finish(genuine.key, now=now, until=until)
    return genuine.message(now)


@attrs.frozen
class _Genuine:
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
        return f"{self.scheme}:{self.id}"

    def message(self, now: datetime) -> Message:
        return _message(self.body, self.headers, self.verified, now)


def _genuine(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    scheme: str | SignatureScheme,
    tolerance: timedelta,
    limit: int,
    now: datetime,
) -> _Genuine:
    if len(body) > limit:
        raise PayloadError(f"the body has {len(body)} bytes; at most {limit} are allowed")
    chosen = _scheme(scheme)
    keys = [secrets] if isinstance(secrets, str) else list(secrets)
    if not any(keys):
        raise ConfigurationError("there is no secret to verify with")
    lowered = {name.lower(): value for name, value in headers.items()}
    verified = chosen.verify(lowered, body, keys, now=now, tolerance=tolerance)
    identity = verified.id or hashlib.sha256(body).hexdigest()
    return _Genuine(body, lowered, verified, chosen.name, identity)


def _span(seconds: float | timedelta) -> timedelta:
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


# -- what a web framework's adapter does with a request


@attrs.frozen(kw_only=True)
class Answer:
    """What to answer a webhook that isn't to be handled.

    Attributes:
        status: The status code.
        headers: By name.
        body: A problem by RFC 9457, or nothing.
    """

    status: int
    headers: Mapping[str, str] = EMPTY
    body: bytes = b""


@attrs.frozen(kw_only=True)
class Arrival:
    """A webhook to handle, and then to settle.

    Attributes:
        message: What it says.
        key: By which the guard knows it.
    """

    message: Message
    key: str


@attrs.frozen(kw_only=True)
class Receiver:
    """One way to receive webhooks: what is genuine is handled once, and all else answered.

    Why something is refused is logged, and not answered.

    Attributes:
        guard: Remembers what has been here.
        scheme: By which it is signed; see `verify`.
        tolerance: Seconds that the signed time may be off, either way.
        remember: Seconds that what was handled is remembered: repetitions and replays within them
            are answered 200 and not handled again. 0 remembers nothing.
        limit: Bytes of the body at most.

    Example:
        >>> receiver = Receiver(guard=MemoryReplayGuard())
        >>> receiver.take(b"{}", {}, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").status
        401
    """

    guard: ReplayGuard
    scheme: str | SignatureScheme = "standard-webhooks"
    tolerance: timedelta = attrs.field(default=timedelta(minutes=5), converter=_span)
    remember: timedelta = attrs.field(default=timedelta(days=1), converter=_span)
    limit: int = BODY_LIMIT

    def take(
        self,
        body: bytes,
        headers: Mapping[str, str],
        secrets: str | Sequence[str],
        *,
        endpoint: str = "",
        now: datetime | None = None,
    ) -> Arrival | Answer:
        """Take a request: a webhook to handle and then to `settle`, or what to answer.

        Args:
            body: As it came; give at least one byte more than `limit` of one that is longer.
            headers: As they came, whatever their case.
            secrets: The secret, or several during a rotation.
            endpoint: Where it came to. The same webhook is handled once at each.
            now: The time; None reads the clock.

        Raises:
            ConfigurationError: There is no such scheme, or no secret.
        """
        now = now or datetime.now(UTC)
        if len(body) > self.limit:
            return refusal(413, endpoint, f"it has more than {self.limit} bytes")
        try:
            genuine = _genuine(body, headers, secrets, self.scheme, self.tolerance, self.limit, now)
            message = genuine.message(now)
        except SignatureError as error:
            return refusal(401, endpoint, str(error))
        except PayloadError as error:
            return refusal(400, endpoint, str(error))
        key = f"{endpoint}:{genuine.key}"
        seen = self.guard.begin(key, now=now, until=now + LEASE)
        if seen is Seen.HANDLED:
            return Answer(status=200)
        if seen is Seen.UNDER_WAY:
            return refusal(409, endpoint, f"{genuine.id} is being handled")
        return Arrival(message=message, key=key)

    def settle(self, arrival: Arrival, *, handled: bool, now: datetime | None = None) -> None:
        """Say whether a webhook has been handled; if not, its next repetition is taken again.

        What goes wrong with the guard is logged: what was handled stays handled.

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
            logger.exception("the webhook %r could not be settled", arrival.message.id)


TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
}
# Seconds after which somebody else's handling has ended, mostly.
RETRY_AFTER = "30"


def refusal(status: int, endpoint: str, reason: str) -> Answer:
    """Log why a request is refused, and make an answer that doesn't say it.

    Args:
        status: 400, 401, 405, 409 or 413.
        endpoint: Where it came to.
        reason: Why.

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
