"""The calls on deliveries: their outcomes, retries and recovery."""

from __future__ import annotations

from collections import deque

from thorn_core.api.bodies import read_options
from thorn_core.api.calls import Call, is_id
from thorn_core.api.exchange import HOOKS, ApiResponse, respond
from thorn_core.api.hooks import check_enabled, who
from thorn_core.api.paging import make_cursor, page_response, where_to_begin
from thorn_core.api.parameters import TIME_HINT, Parameters, parse_time
from thorn_core.api.problems import Fault, Problem, faulty, not_found
from thorn_core.api.representations import delivery_detail, delivery_document
from thorn_core.errors import InvalidNameError
from thorn_core.keys import MESSAGE_KEY, message_id
from thorn_core.patterns import check_pattern
from thorn_core.queries import DeliveryQuery
from thorn_core.replaying import UNDELIVERED, Missing, Tell
from thorn_core.values import Delivery, Subscription

FILTERS = ("state", "event", "since", "until", "order")
# The latest attempts of a delivery; the default policy makes ten.
ATTEMPTS_SHOWN = 100
# Messages or deliveries per call: they fit into one transaction of the store.
RECOVERED_AT_ONCE = 500
# Sorts before every message id.
BEFORE_MESSAGES = message_id(bytes(MESSAGE_KEY))
# Not the id of any subscription.
NOBODY = "sub_nobody"


def list_deliveries(call: Call) -> ApiResponse:
    """`GET /hooks/{id}/deliveries/`."""
    request = call.request
    subscription = call.own_subscription()
    parameters = Parameters(request, (*FILTERS, "cursor", "limit"))
    limit, cursor = parameters.limit(), parameters.text("cursor")
    newest_first = parameters.newest_first()
    query = DeliveryQuery(
        subscription_id=subscription.id,
        states=parameters.states(),
        event=parameters.pattern("event"),
        since=parameters.time("since"),
        until=parameters.time("until"),
    )
    parameters.check()
    scope = ("deliveries", query, newest_first)
    after = where_to_begin(cursor, scope)
    found = call.app.store.deliveries(
        query, after=after, limit=limit + 1, newest_first=newest_first
    )
    page = found[:limit]
    further = make_cursor(page[-1].id, scope) if len(found) > limit else None
    items = [delivery_document(request, delivery, subscription) for delivery in page]
    return page_response(request, (HOOKS, subscription.id, "deliveries"), items, further)


def show_delivery(call: Call) -> ApiResponse:
    """`GET /deliveries/{id}/`."""
    subscription, delivery = _own_delivery(call)
    message = call.app.message(delivery.message_id)
    attempts = deque(call.app.attempts(delivery.id), maxlen=ATTEMPTS_SHOWN)
    detail = delivery_detail(call.request, delivery, subscription, message, list(attempts))
    return respond(200, detail)


def retry_delivery(call: Call) -> ApiResponse:
    """`POST /deliveries/{id}/retry/`."""
    subscription, delivery = _own_delivery(call)
    read_options(call.request, ())
    if subscription is not None:
        check_enabled(subscription)
    elif delivery.target is None:
        raise Problem(
            "conflict", "The subscription has been deleted, so the delivery has no recipient."
        )
    call.take(call.sends)
    if not call.app.replay(delivery.id):
        raise Problem("conflict", "The delivery is not finished yet; retry it once it is.")
    delivery = call.app.delivery(delivery.id) or delivery
    return respond(202, delivery_document(call.request, delivery, subscription))


def cancel_delivery(call: Call) -> ApiResponse:
    """`POST /deliveries/{id}/cancel/`."""
    subscription, delivery = _own_delivery(call)
    read_options(call.request, ())
    call.take(call.sends)
    if not call.app.cancel(delivery.id, reason=f"cancelled by {who(call, subscription)}"):
        raise Problem(
            "conflict", "The delivery is not pending; one that is in flight or finished stays."
        )
    delivery = call.app.delivery(delivery.id) or delivery
    return respond(200, delivery_document(call.request, delivery, subscription))


def _own_delivery(call: Call) -> tuple[Subscription | None, Delivery]:
    """Return the delivery with the path's id, if it is for a subscription of this owner.

    Raises:
        Problem: It doesn't exist, or is for someone else; the response is the same.
    """
    delivery = call.app.delivery(call.key) if is_id(call.key) else None
    # Looked up in both cases, so that the response time reveals nothing.
    key = NOBODY if delivery is None else delivery.subscription_id
    subscription = call.app.subscription(key)
    owner = None if subscription is None else subscription.owner
    if delivery is None or not call.may_touch(owner):
        raise not_found()
    return subscription, delivery


def recover(call: Call) -> ApiResponse:
    """`POST /hooks/{id}/recover/`."""
    subscription = call.own_subscription()
    query, cursor, missing = _what_to_recover(call, subscription)
    check_enabled(subscription)
    scope = ("recover", query, missing)
    after = where_to_begin(cursor, scope)
    call.take(call.sends)
    if after is None or after.startswith("dlv_"):
        count, further = _recover_failed(call, query, after)
        if further is None and missing:
            further = BEFORE_MESSAGES
    else:
        count, further = _recover_missing(call, subscription, query, after)
    cursor = None if further is None else make_cursor(further, scope)
    return respond(202, {"recovered": count, "cursor": cursor})


def _recover_failed(call: Call, query: DeliveryQuery, after: str | None) -> tuple[int, str | None]:
    page = call.app.store.deliveries(query, after=after, limit=RECOVERED_AT_ONCE)
    ids = [delivery.id for delivery in page]
    count = call.app.replay(ids, state=UNDELIVERED) if ids else 0
    return count, ids[-1] if len(page) == RECOVERED_AT_ONCE else None


def _recover_missing(
    call: Call, subscription: Subscription, query: DeliveryQuery, after: str
) -> tuple[int, str | None]:
    app = call.app
    missing = Missing(
        store=app.store,
        subscription=subscription,
        query=query,
        accepts=app.plugins.accepts,
        now=app.clock(),
        size=RECOVERED_AT_ONCE,
        tell=Tell(app.store, app.dispatcher(), app.settings.inline_timeout),
    )
    return missing.deliver(after)


def _what_to_recover(
    call: Call, subscription: Subscription
) -> tuple[DeliveryQuery, str | None, bool]:
    body = read_options(call.request, ("since", "until", "event", "missing", "cursor"))
    faults: list[Fault] = []
    if body.get("since") is None:
        faults.append(Fault("since", "is missing; send a start time, such as 2026-03-01T12:00:00Z"))
    times = {}
    for name in ("since", "until"):
        value = body.get(name)
        try:
            times[name] = None if value is None else parse_time(str(value))
        except ValueError:
            faults.append(Fault(name, TIME_HINT, value=value))
    event = body.get("event")
    try:
        event = None if event is None else check_pattern(event)
    except InvalidNameError as error:
        faults.append(Fault("event", str(error), value=event))
    missing = body.get("missing", False)
    if not isinstance(missing, bool):
        faults.append(Fault("missing", "is not a boolean; use true or false", value=missing))
    cursor = body.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        faults.append(Fault("cursor", "is not a string", value=cursor))
    if faults:
        raise faulty("invalid", faults)
    query = DeliveryQuery(
        subscription_id=subscription.id,
        states=UNDELIVERED,
        event=event,
        since=times["since"],
        until=times["until"],
    )
    return query, cursor, missing
