"""One attempt of a delivery: request and outcome."""

from __future__ import annotations

import logging
import random
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from thorn_core.delivery import (
    REDIRECT_LIMIT,
    build_request,
    encode_body,
    follow_redirect,
    judge,
    leaves_https,
    sign_request,
)
from thorn_core.errors import SecurityError, TransportError, TransportTimeout, UncheckedError
from thorn_core.keys import attempt_id
from thorn_core.message_recipients import INTERNAL
from thorn_core.ports.transport import Transport
from thorn_core.recipients import check_url
from thorn_core.recipients.urls import shown
from thorn_core.recipients.validators import OWN_VALIDATORS
from thorn_core.retries import RetryPolicy
from thorn_core.values import (
    Attempt,
    Claim,
    Completion,
    DeliveryState,
    Message,
    Outcome,
    Request,
    Response,
    Subscription,
)
from thorn_core.worker.deadlines import Deadlines
from thorn_core.worker.load import Load
from thorn_core.worker.logs import DefectLog, UndeclaredLog, about
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)

# Cached encoded bodies, for other recipients of the same message.
BODY_CACHE = 128
# Cached URLs that passed validation.
ALLOWED_CACHE = 10_000
# Subscriptions whose rate limits are tracked.
SLOT_CACHE = 10_000
# Delay before the next claim of a delivery whose event's declaration is unknown here.
UNDECLARED_WAIT = timedelta(minutes=1)
# Retry policy after a defect of this program, in place of the event's own policy: possibly no
# request was made.
INTERNAL_POLICY = RetryPolicy()


class Attempts:
    """Attempts the deliveries of one worker.

    Args:
        wiring: The worker's wiring.
        transport: Performs the requests.
        load: Learns which recipients respond.
    """

    def __init__(self, wiring: Wiring, transport: Transport, load: Load) -> None:
        self._wiring = wiring
        self._settings = wiring.settings
        self._transport = transport
        self._load = load
        self._deadlines = Deadlines()
        self._bodies: dict[tuple[str, str, str | None], bytes] = {}
        self._next_slot: dict[str, datetime] = {}
        self._defects = DefectLog()
        self._undeclared = UndeclaredLog()
        # Keep the validators alive, so that their ids aren't reused.
        self._allowed: dict[tuple[str, int], tuple[Any, ...]] = {}

    async def deliver(self, claim: Claim) -> Completion:
        """Attempt a claimed delivery, and return its completion.

        It raises only CancelledError. It logs defects of this program (a plugin, a codec, the
        signing) and retries without counting them as the recipient's failures.
        """
        message, delivery, subscription = claim.message, claim.delivery, claim.subscription
        clock, settings = self._wiring.clock, self._settings
        at = clock()
        if subscription is None:
            return _cancelled(claim, "the subscription was removed", at)
        if not subscription.enabled:
            return _cancelled(
                claim, f"the subscription is disabled: {subscription.disabled_reason}", at
            )
        if not self._wiring.knows(message):
            self._undeclared.warn(message)
            waits = Outcome(
                state=DeliveryState.PENDING,
                due_at=at + UNDECLARED_WAIT,
                reason="waiting for a worker that knows its event",
            )
            return Completion(claim=claim, outcome=waits, attempt=None, at=at)
        if subscription.rate_limit:
            slot = self._slot(subscription, at)
            if slot > at:
                waits = Outcome(state=DeliveryState.PENDING, due_at=slot, reason="rate limit")
                return Completion(claim=claim, outcome=waits, attempt=None, at=at)
        request = self._prepare(claim, subscription, at)
        if isinstance(request, Completion):
            return request
        began = perf_counter()
        response, error, timed_out = None, None, False
        try:
            response = await self._deadlines.within(
                message.timeout or settings.event_timeout, self._send(request)
            )
        except (TimeoutError, TransportTimeout) as expiry:
            error, timed_out = str(expiry) or "no response in time", True
        except UncheckedError as failure:
            return self._failed_internally(claim, at, failure)
        except (TransportError, SecurityError) as failure:
            # The URL is allowed; only its name's addresses or a redirect were refused, and may
            # change.
            error = failure.reason if isinstance(failure, SecurityError) else str(failure)
        except Exception as failure:
            return self._failed_internally(claim, at, failure)
        self._load.heed(subscription.id, answered=response is not None)
        ended = clock()
        attempt = Attempt(
            id=attempt_id(delivery.id, at),
            delivery_id=delivery.id,
            number=delivery.attempt_count + 1,
            at=at,
            duration=perf_counter() - began,
            status=response.status if response else None,
            headers=response.headers if response else {},
            body=response.body if response else b"",
            error=error,
            timed_out=timed_out,
        )
        outcome = judge(
            attempt,
            delivery,
            policy=message.retry_policy or self._wiring.policy,
            settings=settings,
            at=ended,
            random=random.random(),  # noqa: S311 - jitter needs no secrecy
        )
        return Completion(claim=claim, outcome=outcome, attempt=attempt, at=ended)

    def _prepare(
        self, claim: Claim, subscription: Subscription, at: datetime
    ) -> Request | Completion:
        """Return a claim's checked and signed request, or the outcome if none is possible."""
        reason = f"the payload can't be encoded as {subscription.content_type}"
        try:
            body = self._body(claim.message, subscription)
            reason = INTERNAL
            request = self._request(claim, subscription, body)
            refusal = self._refusal(request)
            # Hide a URL that a plugin chose from the owner.
            if refusal is not None and request.url == subscription.url:
                return _cancelled(claim, refusal.reason, at)
            if refusal is not None:
                raise refusal
            return sign_request(
                request,
                claim.message,
                subscription,
                self._wiring.schemes,
                at,
                # Only static subscribers may have no secret, for unsigned requests.
                required=claim.delivery.target is None,
            )
        except Exception as failure:
            return self._failed_internally(claim, at, failure, reason)

    def _request(self, claim: Claim, subscription: Subscription, body: bytes) -> Request:
        options = self._wiring.options(claim.message)
        validators = options.validators
        if validators is None:
            validators = self._settings.validators
        request = build_request(
            claim.message,
            claim.delivery,
            subscription,
            body=body,
            settings=self._settings,
            validators=validators,
            keepalive=options.keepalive,
        )
        return self._wiring.plugins.prepare_request(request, claim.delivery)

    def _refusal(self, request: Request) -> SecurityError | None:
        """Return the reason why a validator or plugin refuses the URL of a request, or None.

        Raises:
            UncheckedError: A plugin failed.
        """
        try:
            self._check(request)
            self._wiring.plugins.validate_recipient(request.url)
        except UncheckedError:
            raise
        except SecurityError as refusal:
            return refusal
        return None

    def _failed_internally(
        self, claim: Claim, at: datetime, failure: Exception, reason: str = INTERNAL
    ) -> Completion:
        """Log a defect of this program; retry the attempt without blaming the recipient."""
        delivery = claim.delivery
        self._defects.log(
            failure,
            f"delivery {delivery.id} of {delivery.event} can't be sent",
            about(delivery, claim.subscription),
        )
        attempt = Attempt(
            id=attempt_id(delivery.id, at),
            delivery_id=delivery.id,
            number=delivery.attempt_count + 1,
            at=at,
            duration=0.0,
            error=reason,
        )
        failures = attempt.number - delivery.attempts_before
        delay = INTERNAL_POLICY.delay(failures, random=random.random())  # noqa: S311 - as above
        if delay is None:
            outcome = Outcome(state=DeliveryState.FAILED, reason=reason)
        else:
            outcome = Outcome(state=DeliveryState.PENDING, due_at=at + delay, reason=reason)
        return Completion(claim=claim, outcome=outcome, attempt=attempt, at=at, internal=True)

    def _check(self, request: Request) -> None:
        """Validate the URL, unless the result is cached."""
        key = (request.url, id(request.validators))
        if key in self._allowed:
            return
        check_url(request.url, request.validators)
        if all(isinstance(validator, OWN_VALIDATORS) for validator in request.validators):
            if len(self._allowed) >= ALLOWED_CACHE:
                del self._allowed[next(iter(self._allowed))]
            self._allowed[key] = request.validators

    def _body(self, message: Message, subscription: Subscription) -> bytes:
        content_type = subscription.content_type
        audience = subscription.url if self._settings.sign_audience else None
        key = (message.id, content_type, audience)
        body = self._bodies.get(key)
        if body is None:
            body = encode_body(
                message, content_type, self._settings, self._wiring.codecs, audience=audience
            )
            if len(self._bodies) >= BODY_CACHE:
                del self._bodies[next(iter(self._bodies))]
            self._bodies[key] = body
        return body

    async def _send(self, request: Request) -> Response:
        response = await self._transport.send(request)
        if not self._settings.allow_redirects:
            return response
        for _ in range(REDIRECT_LIMIT):
            hop = follow_redirect(request, response)
            if hop is None:
                break
            if leaves_https(request, hop):
                raise TransportError(
                    f"status {response.status}: the redirect to {shown(hop.url)} goes from https to"
                    f" http, which doesn't protect the payload; redirect to an https URL"
                )
            refusal = self._refusal(hop)
            if refusal is not None:
                raise TransportError(f"status {response.status}: {refusal.reason}")
            request, response = hop, await self._transport.send(hop)
        return response

    def _slot(self, subscription: Subscription, at: datetime) -> datetime:
        """Return the next time that the rate limit permits; take the slot if that is now."""
        assert subscription.rate_limit
        slot = max(self._next_slot.pop(subscription.id, at), at)
        gap = timedelta(seconds=1 / subscription.rate_limit)
        self._next_slot[subscription.id] = slot + gap if slot <= at else slot
        if len(self._next_slot) > SLOT_CACHE:
            del self._next_slot[next(iter(self._next_slot))]
        return slot


def _cancelled(claim: Claim, reason: str, at: datetime) -> Completion:
    outcome = Outcome(state=DeliveryState.CANCELLED, reason=reason)
    return Completion(claim=claim, outcome=outcome, attempt=None, at=at)
