"""The OpenAPI 3.1 document: the calls of the resource, and the webhooks of each event."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from thorn_core.api.calls import Call
from thorn_core.api.event_types import TEST, EventType, event_types
from thorn_core.api.exchange import EMPTY, HOOKS, ApiResponse, respond
from thorn_core.api.hooks import KEY_PATTERN, LONGEST_KEY
from thorn_core.api.parameters import LARGEST_PAGE, ORDERS, PAGE
from thorn_core.api.problems import KINDS, PROBLEM_JSON
from thorn_core.api.schemas import (
    OPTIONAL_TEXT,
    PATTERN,
    TEXT,
    TIME,
    Schema,
    described,
    obj,
    ref,
    schemas,
)
from thorn_core.api.stats import DEFAULT_PERIOD, STEPS
from thorn_core.app import Thorn
from thorn_core.codecs import dump_json, media_type
from thorn_core.delivery import envelope_of
from thorn_core.settings import Settings
from thorn_core.subscriptions import OWNER_LENGTH
from thorn_core.values import DeliveryState, Message

JSON_TYPE = "application/json"
# Every call may return these.
ALWAYS = ("unauthenticated", "forbidden", "unavailable")
BODY = ("malformed", "too-large", "unsupported-media-type", "invalid")
OWN = ("not-found",)
CHANGE = ("precondition-failed",)
RATE = ("too-many-requests",)
SIGNATURE_HEADERS: Mapping[str, Sequence[str]] = {
    "standard-webhooks": ("webhook-signature",),
    "standard-webhooks-ed25519": ("webhook-signature",),
    "hook-hmac": ("Hook-HMAC",),
    "github": ("X-Hub-Signature-256",),
    "stripe": ("Stripe-Signature",),
}
EXAMPLE_ID = "msg_0195508e2400a1b2c3d4e5f600000001"
EXAMPLE_TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)


def openapi_document(
    app: Thorn,
    *,
    base_url: str = "",
    hooks_at_root: bool = False,
    operator: bool = True,
    security_schemes: Mapping[str, Any] = EMPTY,
    title: str = "Webhooks",
    version: str = "1",
) -> dict[str, Any]:
    """Describe the resource and its webhooks in OpenAPI 3.1.

    Args:
        app: The app; its settings define the allowed values, its events the webhooks.
        base_url: URL of the mount point.
        hooks_at_root: True if the mount point is the list of subscriptions.
        operator: Include the parts for operators only.
        security_schemes: Security schemes by name; any one of them authenticates.
        title: Title of the document.
        version: Version of the document.

    Example:
        >>> with Thorn() as app:
        ...     sorted(openapi_document(app)["paths"])[:2]
        ['/deliveries/{id}/', '/deliveries/{id}/cancel/']
    """
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": base_url.rstrip("/") or "/"}],
        "paths": {
            path.removeprefix(f"/{HOOKS}") if hooks_at_root else path: item
            for path, item in _paths(operator=operator).items()
        },
        "webhooks": {kind.name: _webhook(app, kind) for kind in (*event_types(app), TEST)},
        "components": {
            "schemas": schemas(app.rules),
            "parameters": _PARAMETERS,
            "responses": {kind: _problem_response(kind) for kind in KINDS},
        },
    }
    if security_schemes:
        document["components"]["securitySchemes"] = dict(security_schemes)
        document["security"] = [{name: []} for name in security_schemes]
    return document


def show_openapi(call: Call) -> ApiResponse:
    """`GET /openapi.json`."""
    return respond(
        200,
        openapi_document(
            call.app,
            base_url=call.request.base_url,
            hooks_at_root=call.request.hooks_at_root,
            operator=call.request.operator,
            security_schemes=call.security_schemes,
            title=call.title,
            version=call.version,
        ),
    )


# -- the calls

_OF_SUBSCRIPTION = (
    *("getSubscription", "changeSubscription", "replaceSubscription", "unsubscribe"),
    *("rotateSecret", "pause", "resume", "sendTest", "listDeliveries", "getStats", "recover"),
)


def _paths(*, operator: bool) -> dict[str, Any]:
    listing = ("cursor", "limit")
    whose = ("owner",) if operator else ()
    changing = ("if-match",)
    refusals = (*BODY, *OWN, *CHANGE, "conflict")
    return {
        "/hooks/": {
            "get": _operation(
                "listSubscriptions", "List your subscriptions", ref("Subscriptions"),
                parameters=(*listing, *whose, "if-none-match"), problems=("malformed",),
            ),
            "post": _operation(
                "subscribe", "Subscribe a URL to events", ref("SubscriptionWithSecret"),
                status=201, body=ref("NewSubscription"), parameters=("idempotency-key",),
                problems=(*BODY, "idempotency-key-reused", *RATE),
                links=dict.fromkeys(_OF_SUBSCRIPTION, "id"),
                more={"200": _json_response(
                    "This Idempotency-Key already created the subscription; the secret is not"
                    " repeated", ref("Subscription")
                )},
            ),
        },
        "/hooks/{id}/": {
            "parameters": [_parameter("id")],
            "get": _operation(
                "getSubscription", "Get a subscription", ref("Subscription"),
                parameters=("if-none-match",), problems=OWN,
            ),
            "patch": _operation(
                "changeSubscription", "Change a subscription", ref("Subscription"),
                body=ref("SubscriptionChange"), parameters=changing, problems=refusals,
            ),
            "put": _operation(
                "replaceSubscription", "Replace a subscription", ref("Subscription"),
                body=ref("SubscriptionReplacement"), parameters=changing, problems=refusals,
            ),
            "delete": _operation(
                "unsubscribe", "Delete a subscription and cancel its pending deliveries", None,
                status=204, parameters=changing, problems=(*OWN, *CHANGE),
            ),
        },
        "/hooks/{id}/rotate-secret/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "rotateSecret", "Rotate the secret; old secrets may keep signing for a while",
                ref("RotatedSubscription"), optional_body=ref("NewSecret"),
                problems=(*BODY, *OWN, *RATE),
            ),
        },
        "/hooks/{id}/pause/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "pause", "Hold the deliveries of a subscription until it is resumed",
                ref("Subscription"), problems=(*BODY, *OWN, *RATE),
            ),
        },
        "/hooks/{id}/resume/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "resume", "Release the deliveries that a paused subscription holds",
                ref("Subscription"), problems=(*BODY, *OWN, *RATE),
            ),
        },
        "/hooks/{id}/test/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "sendTest", "Send a thorn.test message to a"
                " subscription", ref("SentTest"), status=202,
                problems=(*BODY, *OWN, "conflict", *RATE),
                links=dict.fromkeys(
                    ("getDelivery", "retryDelivery", "cancelDelivery"), "delivery_id"
                ),
            ),
        },
        "/hooks/{id}/deliveries/": {
            "parameters": [_parameter("id")],
            "get": _operation(
                "listDeliveries", "List the deliveries of a subscription", ref("Deliveries"),
                parameters=(
                    "state", "event", "since", "until", "order", *listing, "if-none-match",
                ),
                problems=("malformed", *OWN),
            ),
        },
        "/hooks/{id}/stats/": {
            "parameters": [_parameter("id")],
            "get": _operation(
                "getStats", "Get delivery statistics of a subscription", ref("Stats"),
                parameters=("period", "if-none-match"), problems=("malformed", *OWN),
            ),
        },
        "/hooks/{id}/recover/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "recover",
                "Retry failed and cancelled deliveries of events sent since a given time",
                ref("Recovered"), status=202, body=ref("Recover"),
                problems=(*BODY, *OWN, "conflict", *RATE),
            ),
        },
        "/deliveries/{id}/": {
            "parameters": [_parameter("id")],
            "get": _operation(
                "getDelivery", "Get a delivery with its message and attempts",
                ref("DeliveryDetail"), parameters=("if-none-match",), problems=OWN,
            ),
        },
        "/deliveries/{id}/retry/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "retryDelivery", "Retry a finished delivery", ref("Delivery"), status=202,
                problems=(*BODY, *OWN, "conflict", *RATE),
            ),
        },
        "/deliveries/{id}/cancel/": {
            "parameters": [_parameter("id")],
            "post": _operation(
                "cancelDelivery", "Cancel a pending delivery", ref("Delivery"),
                problems=(*BODY, *OWN, "conflict", *RATE),
            ),
        },
        "/event-types/": {
            "get": _operation(
                "listEventTypes", "List event types", ref("EventTypes"),
                parameters=("if-none-match",),
            ),
        },
        "/openapi.json": {
            "get": _operation(
                "getOpenAPI", "Get this document", {"type": "object"},
                parameters=("if-none-match",),
            ),
        },
    }  # fmt: skip


def _operation(
    name: str,
    summary: str,
    answer: Schema | None,
    *,
    status: int = 200,
    body: Schema | None = None,
    optional_body: Schema | None = None,
    parameters: Iterable[str] = (),
    problems: Iterable[str] = (),
    links: Mapping[str, str] = EMPTY,
    more: Mapping[str, Any] = EMPTY,
) -> dict[str, Any]:
    names = list(parameters)
    response = _json_response(summary, answer)
    if links:
        response["links"] = {name: _link(name, field) for name, field in links.items()}
    responses = {str(status): response, **more}
    if "if-none-match" in names:
        responses["304"] = {"description": "Not modified: the entity tag matches If-None-Match"}
    by_status: dict[int, list[str]] = {}
    for kind in (*ALWAYS, *problems):
        by_status.setdefault(KINDS[kind][0], []).append(kind)
    for code, kinds in sorted(by_status.items()):
        # Two problems may share a status; they have the same schema.
        responses[str(code)] = {"$ref": f"#/components/responses/{kinds[0]}"}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if names:
        operation["parameters"] = [_parameter(each) for each in names]
    chosen = body or optional_body
    if chosen is not None:
        content = {JSON_TYPE: {"schema": chosen}}
        operation["requestBody"] = {"required": body is not None, "content": content}
    return operation


def _json_response(description: str, schema: Schema | None) -> dict[str, Any]:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {JSON_TYPE: {"schema": schema}}}


def _link(operation: str, field: str) -> dict[str, Any]:
    """Return links to further calls, with an id from the response."""
    return {"operationId": operation, "parameters": {"id": f"$response.body#/{field}"}}


def _problem_response(kind: str) -> dict[str, Any]:
    return {
        "description": KINDS[kind][1],
        "content": {PROBLEM_JSON: {"schema": ref("Problem")}},
    }


def _parameter(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/parameters/{name}"}


def _in(place: str, name: str, schema: Schema, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
    }


_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE}
_STATES: Schema = {
    "type": "array",
    "items": {"type": "string", "enum": [str(state) for state in DeliveryState]},
}
_OWNER: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": OWNER_LENGTH,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
}
_KEY: Schema = {"type": "string", "maxLength": LONGEST_KEY, "pattern": f"^{KEY_PATTERN}$"}
_PARAMETERS: Mapping[str, Any] = {
    "id": _in("path", "id", TEXT, "ID."),
    "cursor": _in("query", "cursor", TEXT, "Page cursor, from `next`."),
    "limit": _in("query", "limit", _LIMIT, "Page size."),
    "owner": _in("query", "owner", _OWNER, "Only this owner's subscriptions; operators only."),
    "state": _in("query", "state", _STATES, "Only deliveries in these states."),
    "event": _in("query", "event", PATTERN, "Only events that match this pattern."),
    "since": _in("query", "since", TIME, "Only deliveries of events sent at or after this time."),
    "until": _in("query", "until", TIME, "Only deliveries of events sent before this time."),
    "order": _in(
        "query",
        "order",
        {"type": "string", "enum": list(ORDERS), "default": ORDERS[0]},
        "Sort order, by creation time.",
    ),
    "period": _in(
        "query",
        "period",
        {"type": "string", "enum": list(STEPS), "default": DEFAULT_PERIOD},
        "Period of time, ending now.",
    ),
    "if-match": _in("header", "If-Match", TEXT, "Apply only if the resource has this entity tag."),
    "if-none-match": _in(
        "header", "If-None-Match", TEXT, "Answer 304 if the resource still has this entity tag."
    ),
    "idempotency-key": _in(
        "header",
        "Idempotency-Key",
        _KEY,
        "Repeated requests with the same key create only one subscription.",
    ),
}


# -- the webhooks


def _json_of(envelope: str) -> str:
    return media_type(JSON_TYPE, envelope).partition(";")[0]


def _webhook(app: Thorn, kind: EventType) -> dict[str, Any]:
    settings = app.settings
    chosen = kind.envelope or settings.envelope
    content: dict[str, Any] = {"schema": _envelope_schema(settings, kind, chosen)}
    if kind.example is not None:
        message = Message(
            id=EXAMPLE_ID, event=kind.name, data=dump_json(kind.example), at=EXAMPLE_TIME
        )
        envelope = envelope_of(
            message,
            chosen,
            source=settings.event_source,
            audience="https://example.com/hook" if settings.sign_audience else None,
        )
        content["example"] = json.loads(dump_json(envelope.document()))
    headers = ["webhook-id", "webhook-timestamp", "Hook-Event", "Hook-Delivery"]
    headers += ["Hook-Subscription"]
    for scheme in app.settings.signatures:
        headers += [h for h in SIGNATURE_HEADERS.get(scheme, ()) if h not in headers]
    return {
        "post": {
            "summary": kind.name,
            "description": kind.description,
            "parameters": [
                {"name": name, "in": "header", "schema": TEXT, "required": name in headers[:5]}
                for name in headers
            ],
            "requestBody": {
                "required": True,
                "description": "JSON, or the content type of the subscription.",
                "content": {_json_of(chosen): content},
            },
            "responses": {
                "2XX": {"description": "Delivered"},
                "410": {"description": "Gone: disables the subscription"},
                "429": {"description": "Too many requests: retried later, honouring Retry-After"},
                "default": {"description": "Failed: retried later"},
            },
        }
    }


def _envelope_schema(settings: Settings, kind: EventType, envelope: str) -> Schema:
    payload = _payload_schema(kind)
    audience = described(TEXT, "URL of the intended recipient.")
    more = {"audience": audience} if settings.sign_audience else {}
    name = described(TEXT, "Event name.") if "{" in kind.name else {"const": kind.name}
    if envelope == "bare":
        return payload
    if envelope == "thorn":
        sender = described(OPTIONAL_TEXT, "ID of the user or tenant that the event is about.")
        about = described(OPTIONAL_TEXT, "URL of the object that the event is about.")
        return obj({"event": name, "ref": about, "sender": sender, "data": payload, **more})
    if envelope == "standard":
        return obj({"type": name, "timestamp": TIME, "data": payload, **more})
    return obj(
        {
            "specversion": {"const": "1.0"},
            "id": TEXT,
            "source": TEXT,
            "type": name,
            "time": TIME,
            "datacontenttype": {"const": JSON_TYPE},
            "subject": TEXT,
            "data": payload,
            **more,
        },
        optional=("subject",),
    )


def _payload_schema(kind: EventType) -> Schema:
    if not isinstance(kind.schema, dict):
        return {}
    # With an $id, references such as #/$defs/item point into the schema, not into this document.
    return {"$id": f"urn:thorn:event:{quote(kind.name)}", **kind.schema}
