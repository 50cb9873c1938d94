"""The calls on subscriptions: `/hooks/` and the paths below."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs

from thorn_core.api.bodies import read_object, read_options
from thorn_core.api.calls import Call
from thorn_core.api.exchange import HOOKS, ApiResponse, encode, etag_of, respond
from thorn_core.api.paging import make_cursor, page_response, where_to_begin
from thorn_core.api.parameters import Parameters
from thorn_core.api.preconditions import check_unchanged
from thorn_core.api.problems import Problem, faulty, not_found
from thorn_core.api.representations import shown_secret, subscription_document
from thorn_core.api.validation import (
    Checked,
    check_body,
    check_new_overlap,
    check_new_secret,
    differing,
)
from thorn_core.codecs import format_datetime
from thorn_core.errors import ConfigurationError, StoreError
from thorn_core.keys import delivery_id, derived_id
from thorn_core.subscriptions import apply_changes, make_subscription
from thorn_core.values import Subscription

REQUIRED = ("event", "url")
# How often a change is checked again if the subscription has changed in the meantime.
TRIES = 5
# Defaults for fields that a replacement omits.
DEFAULTS: Mapping[str, Any] = {
    "content_type": "application/json",
    "hmac_digest": "sha256",
    "headers": {},
    "description": "",
    "rate_limit": None,
    "enabled": True,
}
# Fields that distinguish a repeated request from a different one.
COMPARED = (
    "events",
    "url",
    "content_type",
    "hmac_digest",
    "headers",
    "description",
    "rate_limit",
)
# Printable ASCII, not only spaces and quotes.
KEY_PATTERN = "[ -~]*[!#-~][ -~]*"
LONGEST_KEY = 255


def list_hooks(call: Call) -> ApiResponse:
    """`GET /hooks/`."""
    request = call.request
    known = ("cursor", "limit", "owner") if request.operator else ("cursor", "limit")
    parameters = Parameters(request, known)
    limit, cursor = parameters.limit(), parameters.text("cursor")
    owner = parameters.owner() if request.operator else request.owner
    parameters.check()
    scope = ("hooks", request.operator, owner)
    after = where_to_begin(cursor, scope)
    found = call.app.store.subscriptions(owner=owner, after=after, limit=limit + 1)
    page = found[:limit]
    further = make_cursor(page[-1].id, scope) if len(found) > limit else None
    items = [subscription_document(request, subscription) for subscription in page]
    return page_response(request, (HOOKS,), items, further)


def subscribe(call: Call) -> ApiResponse:
    """`POST /hooks/`."""
    checked = Checked(call.app.rules, operator=call.request.operator)
    values = check_body(checked, read_object(call.request), required=REQUIRED)
    made = make_subscription(
        call.app.rules, at=call.app.clock(), owner=call.request.owner, **values
    )
    if not made.enabled:
        made = attrs.evolve(made, disabled_reason=f"{who(call, made)} created it disabled")
    key = _idempotency_key(call)
    if key is None:
        call.take(call.creations)
        call.app.store.add_subscription(made)
        return _created(call, made)
    owner = made.owner
    wanted = attrs.evolve(
        made, id=derived_id("idempotency-key", "" if owner is None else f"={owner}", key)
    )
    there = call.app.subscription(wanted.id)
    if there is None:
        call.take(call.creations)
        try:
            call.app.store.add_subscription(wanted)
        except (ConfigurationError, StoreError):
            # The same request may arrive twice concurrently.
            there = call.app.subscription(wanted.id)
            if there is None:
                raise
        else:
            return _created(call, wanted)
    return _repeated(call, there, wanted, given_secret=values.get("secret"))


def _idempotency_key(call: Call) -> str | None:
    given = call.request.headers.get("idempotency-key")
    if given is None:
        return None
    if len(given) > LONGEST_KEY or not re.fullmatch(KEY_PATTERN, given):
        raise Problem(
            "malformed",
            f"The Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters.",
        )
    # A string in quotes (RFC 9651), or without quotes, as most clients send it.
    return given.strip().removeprefix('"').removesuffix('"')


def _created(call: Call, made: Subscription) -> ApiResponse:
    shown = subscription_document(call.request, made)
    headers = {"location": shown["subscription"], "etag": etag_of(encode(shown))}
    return respond(201, {**shown, "secret": shown_secret(made)}, headers=headers)


def _repeated(
    call: Call, there: Subscription, wanted: Subscription, *, given_secret: str | None
) -> ApiResponse:
    same = all(getattr(there, name) == getattr(wanted, name) for name in COMPARED)
    if not same or (given_secret is not None and given_secret not in there.secrets):
        raise Problem(
            "idempotency-key-reused",
            f"This Idempotency-Key created {there.id}, which differs from this request or has"
            f" changed since; use a new key.",
        )
    return _shown(call, there, {"location": call.request.link(HOOKS, there.id)})


def show_hook(call: Call) -> ApiResponse:
    """`GET /hooks/{id}/`."""
    return respond(200, subscription_document(call.request, call.own_subscription()))


def change_hook(call: Call) -> ApiResponse:
    """`PATCH /hooks/{id}/`."""
    return _change(call, replaces=False)


def replace_hook(call: Call) -> ApiResponse:
    """`PUT /hooks/{id}/`."""
    return _change(call, replaces=True)


class _Stale(Exception):  # noqa: N818 - private, and always handled
    """The subscription has changed since the body was checked against it."""


def _change(call: Call, *, replaces: bool) -> ApiResponse:
    body = read_object(call.request)
    for _ in range(TRIES):
        with suppress(_Stale):
            return _shown(call, _changed(call, body, replaces=replaces))
    raise Problem("conflict", "The subscription keeps changing; try again in a moment.")


def _changed(call: Call, body: Mapping[str, Any], *, replaces: bool) -> Subscription:
    """Check a body against the subscription, and apply it if the subscription is unchanged."""
    current = call.own_subscription()
    shown = _checked_tag(call, current)
    checked = Checked(call.app.rules, current=current, operator=call.request.operator)
    wanted = {**DEFAULTS, **body} if replaces else body
    values = check_body(checked, wanted, required=REQUIRED if replaces else (), shown=shown)
    at = call.app.clock()

    def change(now: Subscription) -> Subscription:
        if (now.url, now.headers, now.owner) != (current.url, current.headers, current.owner):
            # Otherwise hidden headers that the body keeps would be sent to another origin.
            raise _Stale
        _checked_tag(call, now)
        changes = differing(now, values)
        if changes.get("enabled") is False:
            changes["disabled_reason"] = who(call, now) + " disabled it"
        return apply_changes(now, changes, at=at) if changes else now

    return call.app.store.change_subscription(current.id, change)


def _checked_tag(call: Call, subscription: Subscription) -> dict[str, Any]:
    """Return the document of a subscription, if `If-Match` allows the request.

    Raises:
        Problem: `If-Match` contains another entity tag.
    """
    shown = subscription_document(call.request, subscription)
    check_unchanged(call.request, etag_of(encode(shown)))
    return shown


def who(call: Call, subscription: Subscription | None) -> str:
    """Return who makes a call on a subscription, for a text that its owner may read."""
    owner = None if subscription is None else subscription.owner
    own = owner is not None and owner == call.request.owner
    return "its owner" if own else "an operator"


def _shown(
    call: Call, subscription: Subscription, headers: Mapping[str, str] | None = None
) -> ApiResponse:
    shown = subscription_document(call.request, subscription)
    return respond(200, shown, headers={"etag": etag_of(encode(shown)), **(headers or {})})


def remove_hook(call: Call) -> ApiResponse:
    """`DELETE /hooks/{id}/`."""
    current = call.own_subscription()
    _checked_tag(call, current)
    if not call.app.unsubscribe(current.id):
        raise not_found()
    return respond(204)


def pause_hook(call: Call) -> ApiResponse:
    """`POST /hooks/{id}/pause/`."""
    current = call.own_subscription()
    read_options(call.request, ())
    call.take(call.sends)
    return _shown(call, call.app.pause(current.id))


def resume_hook(call: Call) -> ApiResponse:
    """`POST /hooks/{id}/resume/`."""
    current = call.own_subscription()
    read_options(call.request, ())
    call.take(call.sends)
    return _shown(call, call.app.resume(current.id))


def rotate_secret(call: Call) -> ApiResponse:
    """`POST /hooks/{id}/rotate-secret/`."""
    current = call.own_subscription()
    body = read_options(call.request, ("hmac_secret", "overlap"))
    secret, overlap = body.get("hmac_secret"), body.get("overlap")
    faults = [check_new_secret(call.app.rules, secret), check_new_overlap(overlap)]
    if any(faults):
        raise faulty("invalid", [fault for fault in faults if fault is not None])
    call.take(call.rotations, current.id)
    rotated = call.app.rotate_secret(current.id, secret, overlap=overlap)
    shown = subscription_document(call.request, rotated)
    until = max(rotated.secret_expiry.values(), default=None)
    return respond(
        200,
        {
            **shown,
            "secret": shown_secret(rotated),
            "former_secrets_until": None if until is None else format_datetime(until),
        },
        headers={"etag": etag_of(encode(shown))},
    )


def send_test(call: Call) -> ApiResponse:
    """`POST /hooks/{id}/test/`."""
    current = call.own_subscription()
    read_options(call.request, ())
    check_enabled(current)
    call.take(call.sends)
    message = call.app.send_test(current.id).message
    key = delivery_id(message.id, current.id)
    return respond(
        202,
        {
            "message_id": message.id,
            "event": message.event,
            "delivery_id": key,
            "delivery": call.request.link("deliveries", key),
        },
    )


def check_enabled(subscription: Subscription) -> None:
    """Check that messages can be sent to a subscription.

    Raises:
        Problem: It is disabled.
    """
    if not subscription.enabled:
        raise Problem("conflict", "The subscription is disabled; enable it first.")
