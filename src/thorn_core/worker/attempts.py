"""One attempt of a delivery: requested, judged."""

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
    sign_request,
)
from thorn_core.errors import SecurityError, TransportError, TransportTimeout
from thorn_core.recipients import check_url
from thorn_core.recipients.validators import (
    AllowNetworks,
    BlockInternalIPs,
    BlockNetworks,
    EnsurePort,
    EnsureProtocol,
)
from thorn_core.transports.base import Transport
from thorn_core.values import (
    Attempt,
    Claim,
    Delivery,
    DeliveryState,
    Message,
    Outcome,
    Request,
    Response,
    Settlement,
    Subscription,
    new_id,
)
from thorn_core.worker.deadlines import Deadlines
from thorn_core.worker.load import Load
from thorn_core.worker.wiring import Wiring

logger = logging.getLogger(__name__)

# Bodies kept encoded for the other recipients of the same message.
BODY_CACHE = 128
# URLs known to be allowed.
ALLOWED_CACHE = 10_000
# Validators whose verdict on a URL never changes; others are asked every time.
CONSTANT = (AllowNetworks, BlockInternalIPs, BlockNetworks, EnsurePort, EnsureProtocol)
# Subscriptions whose rate limit is remembered.
SLOT_CACHE = 10_000


class Attempts:
    """Makes the attempts of one worker.

    Args:
        wiring: The worker's.
        transport: Performs the requests.
        load: Is told which recipients answer.
    """

    def __init__(self, wiring: Wiring, transport: Transport, load: Load) -> None:
        self._wiring = wiring
        self._settings = wiring.settings
        self._transport = transport
        self._load = load
        self._deadlines = Deadlines()
        self._bodies: dict[tuple[str, str], bytes] = {}
        self._next_slot: dict[str, datetime] = {}
        # The validators are kept, so that their identity stays theirs.
        self._allowed: dict[tuple[str, int], tuple[Any, ...]] = {}

    async def deliver(self, claim: Claim) -> Settlement:
        """Attempt a claimed delivery, and decide what becomes of it.

        Raises nothing but CancelledError: what goes wrong is an attempt that failed.
        """
        message, delivery, subscription = claim.message, claim.delivery, claim.subscription
        clock, settings = self._wiring.clock, self._settings
        at = clock()
        if subscription is None:
            return _discarded(claim, "the subscription was removed", at)
        if not subscription.enabled:
            return _discarded(
                claim, f"the subscription is disabled: {subscription.disabled_reason}", at
            )
        if subscription.rate_limit:
            slot = self._slot(subscription, at)
            if slot > at:
                waits = Outcome(state=DeliveryState.PENDING, due_at=slot, reason="rate limit")
                return Settlement(claim=claim, outcome=waits, attempt=None, at=at)
        began = perf_counter()
        response, error, timed_out = None, None, False
        try:
            request = self._request(message, delivery, subscription, at)
            response = await self._deadlines.within(
                message.timeout or settings.event_timeout, self._send(request)
            )
        except SecurityError as refusal:
            return _discarded(claim, refusal.reason, at)
        except (TimeoutError, TransportTimeout) as expiry:
            error, timed_out = str(expiry) or "no response in time", True
        except TransportError as failure:
            error = str(failure)
        except Exception as failure:
            logger.exception("delivery %s can't be requested", delivery.id)
            error = f"{type(failure).__name__}: {failure}"
        self._load.heed(delivery.recipient, answered=response is not None)
        ended = clock()
        attempt = Attempt(
            id=new_id("att", at),
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
            subscription,
            policy=message.retry_policy or self._wiring.policy,
            settings=settings,
            at=ended,
            random=random.random(),  # noqa: S311 - jitter needs no secrecy
        )
        return Settlement(claim=claim, outcome=outcome, attempt=attempt, at=ended)

    def _request(
        self, message: Message, delivery: Delivery, subscription: Subscription, at: datetime
    ) -> Request:
        wiring = self._wiring
        options = wiring.options(message)
        validators = options.validators
        if validators is None:
            validators = self._settings.validators
        request = build_request(
            message,
            delivery,
            subscription,
            body=self._body(message, subscription.content_type),
            settings=self._settings,
            validators=validators,
            keepalive=options.keepalive,
        )
        request = wiring.plugins.prepare_request(request, delivery)
        self._check(request)
        wiring.plugins.validate_recipient(request.url)
        return sign_request(request, message, subscription, wiring.schemes, at)

    def _check(self, request: Request) -> None:
        """Ask the validators about the URL; not again what they can't answer differently."""
        key = (request.url, id(request.validators))
        if key in self._allowed:
            return
        check_url(request.url, request.validators)
        if all(isinstance(validator, CONSTANT) for validator in request.validators):
            if len(self._allowed) >= ALLOWED_CACHE:
                del self._allowed[next(iter(self._allowed))]
            self._allowed[key] = request.validators

    def _body(self, message: Message, content_type: str) -> bytes:
        key = (message.id, content_type)
        body = self._bodies.get(key)
        if body is None:
            body = encode_body(message, content_type, self._settings, self._wiring.codecs)
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
            self._check(hop)
            self._wiring.plugins.validate_recipient(hop.url)
            request, response = hop, await self._transport.send(hop)
        return response

    def _slot(self, subscription: Subscription, at: datetime) -> datetime:
        """When the rate limit next lets a request through; takes the slot if that's now."""
        assert subscription.rate_limit
        slot = max(self._next_slot.pop(subscription.id, at), at)
        gap = timedelta(seconds=1 / subscription.rate_limit)
        self._next_slot[subscription.id] = slot + gap if slot <= at else slot
        if len(self._next_slot) > SLOT_CACHE:
            del self._next_slot[next(iter(self._next_slot))]
        return slot


def _discarded(claim: Claim, reason: str, at: datetime) -> Settlement:
    outcome = Outcome(state=DeliveryState.DISCARDED, reason=reason)
    return Settlement(claim=claim, outcome=outcome, attempt=None, at=at)
